#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace millrace {

/// Keys stay in the order in which they were written.
using Json = nlohmann::ordered_json;

/// One line, with its newline. Bytes that are no UTF-8 become U+FFFD.
inline std::string to_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace millrace
