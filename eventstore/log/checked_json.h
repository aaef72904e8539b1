#pragma once

#include <string>
#include <string_view>

// The small files of a store that people may want to read are JSON. A flipped bit in a number is
// another number there, and a consumer that resumes at another offset misses events without anybody
// knowing; so they end with a checksum.
namespace millrace::log {

// FILE = object without its "\n}"  `,\n  "checksum": "`  16 hex digits  `"\n}\n`
// The digits are the XXH3-64 of all bytes before them.

/// `object` is a JSON object with at least one member, indented by 2.
std::string with_checksum(std::string object);
/// True if the file is as with_checksum() made it, to the last byte.
bool has_right_checksum(std::string_view file);

}  // namespace millrace::log
