#pragma once

#include <cstdint>

#include "schemas/table_schema.h"

namespace millrace {

/// How Protobuf writes a value: https://protobuf.dev/programming-guides/encoding
enum class WireType : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

/// Of one value of `kind` in a row message, alone or as an element of an array.
constexpr WireType wire_type_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::kBool:
    case ValueKind::kInt32:
    case ValueKind::kInt64:
    case ValueKind::kUInt32:
    case ValueKind::kDate:
    case ValueKind::kTime:
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz: return WireType::kVarint;
    case ValueKind::kFloat: return WireType::kFixed32;
    case ValueKind::kDouble: return WireType::kFixed64;
    default: return WireType::kBytes;
  }
}

}  // namespace millrace
