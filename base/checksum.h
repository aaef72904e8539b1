#pragma once

#include <compare>
#include <cstdint>
#include <string_view>

namespace millrace {

/// XXH3-64 of `bytes` (https://github.com/Cyan4973/xxHash), the checksum of every file we write.
std::uint64_t checksum(std::string_view bytes, std::uint64_t seed = 0);

/// XXH3-128 of `bytes`, for sets in which two different things must not look equal. With a seed
/// that nobody knows, nobody can make two of them so.
struct Hash128 {
  std::uint64_t high = 0, low = 0;
  auto operator<=>(const Hash128&) const = default;
};
Hash128 hash128(std::string_view bytes, std::uint64_t seed);

}  // namespace millrace
