#include "capture/pipeline/copy_row.h"

#include <cstring>

namespace millrace {
namespace {

/// What stands for the character after a backslash. COPY TO writes only these escapes; any other
/// character stands for itself.
char unescaped(char c) {
  switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'v': return '\v';
    default: return c;
  }
}

}  // namespace

Result<const pgoutput::Tuple*> CopyRowParser::parse(std::string_view line, std::size_t columns) {
  fields_.clear();
  unescaped_.clear();
  if (columns == 0 && line.empty()) return &fields_;
  const bool escapes = line.find('\\') != std::string_view::npos;
  if (escapes) unescaped_.reserve(line.size());  // views into it must survive its growth
  for (std::string_view rest = line;;) {
    const std::size_t tab = rest.find('\t');
    const std::string_view raw = rest.substr(0, tab);
    if (!escapes || raw.find('\\') == std::string_view::npos) {
      fields_.push_back({pgoutput::FieldState::kText, raw});
    } else if (raw == "\\N") {
      fields_.push_back({pgoutput::FieldState::kNull, {}});
    } else {
      const std::size_t start = unescaped_.size();
      for (std::size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] != '\\') {
          unescaped_ += raw[i];
        } else if (++i < raw.size()) {
          unescaped_ += unescaped(raw[i]);
        } else {
          return Error(ErrorCode::kCorruption, "a line of COPY ends inside an escape");
        }
      }
      fields_.push_back({pgoutput::FieldState::kText,
                         std::string_view(unescaped_.data() + start, unescaped_.size() - start)});
    }
    if (tab == std::string_view::npos) break;
    rest.remove_prefix(tab + 1);
  }
  if (fields_.size() != columns)
    return Error(ErrorCode::kCorruption, "a line of COPY has " + std::to_string(fields_.size()) +
                                             " fields, expected " + std::to_string(columns));
  return &fields_;
}

}  // namespace millrace
