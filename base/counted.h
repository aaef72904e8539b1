#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

/// "1 event", "2,000 events": a number of things whose name takes an s.
std::string counted(std::uint64_t count, std::string_view what);

}  // namespace millrace
