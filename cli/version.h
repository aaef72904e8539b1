#pragma once

#include <string_view>

namespace millrace {

/// The same as the project's version in CMakeLists.txt; the test `version` compares them.
inline constexpr std::string_view kVersion = "0.1.0";

}  // namespace millrace
