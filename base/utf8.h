#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace millrace {

/// Length of the well-formed UTF-8 character that `text`, which is not empty, starts with (RFC
/// 3629); 0 if there is none.
inline std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const auto follows = [&](std::size_t i) { return (at(i) & 0xc0) == 0x80; };
  const std::uint8_t lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return text.size() >= 2 && follows(1) ? 2 : 0;
  if (lead < 0xf0) {
    if (text.size() < 3 || !follows(1) || !follows(2)) return 0;
    const bool overlong = lead == 0xe0 && at(1) < 0xa0;
    const bool surrogate = lead == 0xed && at(1) >= 0xa0;
    return overlong || surrogate ? 0 : 3;
  }
  if (lead >= 0xf5 || text.size() < 4 || !follows(1) || !follows(2) || !follows(3)) return 0;
  const bool overlong = lead == 0xf0 && at(1) < 0x90;
  const bool too_large = lead == 0xf4 && at(1) >= 0x90;
  return overlong || too_large ? 0 : 4;
}

}  // namespace millrace
