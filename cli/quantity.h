#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace millrace {

/// "90s", "15m", "24h", "30d"; a number alone is seconds. Errors: kInvalidArgument, naming
/// `option`.
Result<std::chrono::seconds> parse_age(std::string_view option, std::string_view text);

/// "10GiB", "500MiB", "64KiB"; a number alone is bytes. Errors: kInvalidArgument, naming `option`.
Result<std::uint64_t> parse_bytes(std::string_view option, std::string_view text);

/// The shortest text that parse_bytes() reads as `bytes`.
std::string bytes_text(std::uint64_t bytes);

}  // namespace millrace
