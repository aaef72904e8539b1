#pragma once

#include <string>
#include <string_view>

namespace millrace {

/// `name` as an SQL identifier in double quotes, whatever it holds.
std::string quote_identifier(std::string_view name);

}  // namespace millrace
