#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millrace {

/// A position in PostgreSQL's write-ahead log. Unsigned: servers exist whose LSNs are above 2^63.
struct Lsn {
  std::uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
};

/// "0/1C0ED5F8", as PostgreSQL writes it.
std::string to_string(Lsn lsn);
void append_lsn(Lsn lsn, std::string& out);

/// Errors: kInvalidArgument. Leading zeros and lower case are accepted, as PostgreSQL does.
Result<Lsn> parse_lsn(std::string_view text);

}  // namespace millrace
