#include "schemas/lsn.h"

#include <charconv>

#include "base/bytes.h"

namespace millrace {
namespace {

/// One to eight hexadecimal digits and nothing else.
bool parse_half(std::string_view text, std::uint32_t& half) {
  if (text.empty() || text.size() > 8) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), half, 16);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

void append_lsn(Lsn lsn, std::string& out) {
  char text[17];
  char* const end = text + sizeof text;
  char* slash = std::to_chars(text, end, static_cast<std::uint32_t>(lsn.value >> 32), 16).ptr;
  *slash = '/';
  char* last = std::to_chars(slash + 1, end, static_cast<std::uint32_t>(lsn.value), 16).ptr;
  for (char* c = text; c != last; ++c)
    if (*c >= 'a') *c = static_cast<char>(*c - 'a' + 'A');
  out.append(text, last);
}

std::string to_string(Lsn lsn) {
  std::string text;
  append_lsn(lsn, text);
  return text;
}

Result<Lsn> parse_lsn(std::string_view text) {
  const std::size_t slash = text.find('/');
  std::uint32_t high = 0, low = 0;
  if (slash == std::string_view::npos || !parse_half(text.substr(0, slash), high) ||
      !parse_half(text.substr(slash + 1), low))
    return Error(ErrorCode::kInvalidArgument, "not a WAL position: \"" + printable(text, 40) + "\"")
        .hint("PostgreSQL writes one as two hexadecimal numbers: 0/1C0ED5F8.");
  return Lsn{static_cast<std::uint64_t>(high) << 32 | low};
}

}  // namespace millrace
