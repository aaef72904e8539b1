#pragma once

#include <cstdint>
#include <string>

namespace millrace {

/// Payload of an event that empties a table, as a TRUNCATE does, where the source sent none.
std::string emptied_payload(std::uint32_t schema_version);

}  // namespace millrace
