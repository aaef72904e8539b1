#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "schemas/wire_type.h"

/// Writing a row message's fields; the decoders of text and of binary values share it.
namespace millrace::pgoutput {

using enum WireType;

inline void append_tag(std::uint32_t field, WireType type, std::string& out) {
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(type));
}

inline void append_bytes(std::string_view bytes, std::string& out) {
  append_varint(out, bytes.size());
  out += bytes;
}

/// Appends a sint field of a message; 0 is left out, as proto3 does.
inline void append_part(std::uint32_t field, std::int64_t value, std::string& out) {
  if (value == 0) return;
  append_tag(field, kVarint, out);
  append_varint(out, zigzag(value));
}

constexpr std::size_t part_size(std::int64_t value) {
  return value == 0 ? 0 : 1 + varint_size(zigzag(value));
}

/// What stands in the place of a null in an array: zero or empty.
inline void append_placeholder(ValueKind kind, std::string& out) {
  const WireType type = wire_type_of(kind);
  out.append(type == kFixed64 ? 8 : type == kFixed32 ? 4 : 1, '\0');
}

/// The content of a millrace.v1.*Array message that is being gathered. Its buffers are reused.
struct ArrayParts {
  std::string values, nulls;

  void clear() { values.clear(), nulls.clear(); }
  void add_null(ValueKind kind, std::uint64_t place) {
    append_placeholder(kind, values);
    append_varint(nulls, place);
  }
  /// Appends the message with its length in front. `packed`: `values` has no tags yet.
  void append_message(bool packed, std::string& out) const {
    const auto sized = [](const std::string& bytes) {
      return bytes.empty() ? 0 : 1 + varint_size(bytes.size()) + bytes.size();
    };
    append_varint(out, (packed ? sized(values) : values.size()) + sized(nulls));
    if (packed && !values.empty()) {
      append_tag(1, kBytes, out);
      append_bytes(values, out);
    } else {
      out += values;
    }
    if (nulls.empty()) return;
    append_tag(2, kBytes, out);
    append_bytes(nulls, out);
  }
};

/// Appends the message of an array that is kept whole, as PostgreSQL's text.
inline void append_whole_array(std::string_view text, std::string& out) {
  append_varint(out, 1 + varint_size(text.size()) + text.size());
  append_tag(3, kBytes, out);
  append_bytes(text, out);
}

}  // namespace millrace::pgoutput
