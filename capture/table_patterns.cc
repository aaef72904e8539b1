#include "capture/table_patterns.h"

#include <algorithm>

namespace millrace {
namespace {

bool glob(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*') {
      ++p, ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = t;
    } else if (star != std::string_view::npos) {
      p = star + 1, t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace

Result<TablePatterns> TablePatterns::parse(const std::vector<std::string>& texts) {
  TablePatterns patterns;
  for (std::string_view rest : texts) {
    for (;;) {
      const std::size_t comma = rest.find(',');
      std::string_view pattern = rest.substr(0, comma);
      while (pattern.starts_with(' ')) pattern.remove_prefix(1);
      while (pattern.ends_with(' ')) pattern.remove_suffix(1);
      const bool excludes = pattern.starts_with('!');
      if (excludes) pattern.remove_prefix(1);
      const std::size_t dot = pattern.find('.');
      if (dot == std::string_view::npos || dot == 0 || dot + 1 == pattern.size())
        return Error(ErrorCode::kInvalidArgument,
                     "'" + std::string(pattern) + "' is no pattern of tables")
            .hint("Write schema.table, for example 'public.*,!public.log_*'.");
      (excludes ? patterns.exclude_ : patterns.include_).emplace_back(pattern);
      patterns.given_ = true;
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  if (patterns.include_.empty()) patterns.include_.emplace_back("public.*");
  return patterns;
}

std::string TablePatterns::text() const {
  std::string text;
  for (const std::string& pattern : include_) text += (text.empty() ? "" : ",") + pattern;
  for (const std::string& pattern : exclude_) text += ",!" + pattern;
  return text;
}

std::vector<std::string> TablePatterns::plain_names() const {
  std::vector<std::string> names;
  std::copy_if(
      include_.begin(), include_.end(), std::back_inserter(names),
      [](const std::string& pattern) { return pattern.find_first_of("*?") == std::string::npos; });
  return names;
}

bool TablePatterns::match(std::string_view schema_name, std::string_view table_name) const {
  const std::string name = std::string(schema_name) + "." + std::string(table_name);
  const auto matches = [&](const std::string& pattern) { return glob(pattern, name); };
  return std::any_of(include_.begin(), include_.end(), matches) &&
         std::none_of(exclude_.begin(), exclude_.end(), matches);
}

Result<std::vector<std::string>> parse_table_names(const std::vector<std::string>& texts) {
  if (texts.empty()) return std::vector<std::string>();
  auto parsed = TablePatterns::parse(texts);
  if (!parsed)
    return Error(ErrorCode::kInvalidArgument, "no name of a table: " + parsed.error().message())
        .hint("Write schema.table, for example 'public.outbox'.");
  const TablePatterns patterns = *std::move(parsed);
  std::vector<std::string> names = patterns.include_;
  if (!patterns.exclude_.empty() || patterns.plain_names().size() != names.size())
    return Error(ErrorCode::kInvalidArgument, "a pattern where tables are to be named one by one")
        .hint("Write schema.table, for example 'public.outbox'.");
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

bool is_named(const std::vector<std::string>& names, std::string_view table) {
  return std::ranges::binary_search(names, table);
}

}  // namespace millrace
