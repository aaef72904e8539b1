#pragma once

#include <cstdint>
#include <string_view>

namespace millrace {

/// XXH3-64 of `bytes` (https://github.com/Cyan4973/xxHash), the checksum of every file we write.
std::uint64_t checksum(std::string_view bytes, std::uint64_t seed = 0);

}  // namespace millrace
