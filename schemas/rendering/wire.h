#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "schemas/wire_type.h"

namespace millrace::rendering {

/// One field of a Protobuf message as it stands in its bytes.
struct WireField {
  std::uint32_t number = 0;  ///< 0: there is none.
  WireType type = WireType::kVarint;
  std::uint64_t number_value = 0;  ///< Of a varint or a fixed number.
  std::string_view bytes;          ///< Of a string, bytes, message or packed list.
};

/// Reads the next field; false at the end or where the bytes are no message (`in.failed()`). Groups
/// are not part of proto3 and count as such.
inline bool next_field(ByteReader& in, WireField& field) {
  if (in.remaining() == 0) return false;
  const std::uint64_t tag = in.varint();
  if (tag >> 3 == 0 || tag >> 32 != 0) return in.fail(), false;
  field.number = static_cast<std::uint32_t>(tag >> 3);
  field.type = static_cast<WireType>(tag & 7);
  switch (field.type) {
    case WireType::kVarint: field.number_value = in.varint(); break;
    case WireType::kFixed64: field.number_value = in.u64_le(); break;
    case WireType::kFixed32: field.number_value = in.u32_le(); break;
    case WireType::kBytes: field.bytes = in.bytes(in.varint()); break;
    default: in.fail();
  }
  return !in.failed();
}

}  // namespace millrace::rendering
