#include "eventstore/event_metadata.h"

#include "base/bytes.h"

namespace millrace {
namespace {

// Field numbers of millrace.v1.EventMetadata, and Protobuf's wire types.
constexpr std::uint64_t kEventId = 1, kCorrelationId = 2, kCausationId = 3, kTime = 4, kExtra = 5;
constexpr std::uint64_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

constexpr std::uint64_t tag(std::uint64_t field, std::uint64_t wire_type) {
  return field << 3 | wire_type;
}

void append_bytes(std::string& out, std::uint64_t field, std::string_view value) {
  if (value.empty()) return;
  append_varint(out, tag(field, kBytes));
  append_varint(out, value.size());
  out += value;
}

void skip(ByteReader& in, std::uint64_t wire_type) {
  switch (wire_type) {
    case kVarint: in.varint(); break;
    case kFixed64: in.bytes(8); break;
    case kBytes: in.bytes(in.varint()); break;
    case kFixed32: in.bytes(4); break;
    default: in.fail();
  }
}

}  // namespace

std::string encode_metadata(const EventMetadata& metadata) {
  std::string out;
  append_bytes(out, kEventId, metadata.event_id);
  append_bytes(out, kCorrelationId, metadata.correlation_id);
  append_bytes(out, kCausationId, metadata.causation_id);
  if (metadata.time) {
    append_varint(out, tag(kTime, kFixed64));
    append_le<std::uint64_t>(out, static_cast<std::uint64_t>(metadata.time->value));
  }
  append_bytes(out, kExtra, metadata.extra);
  return out;
}

Result<EventMetadata> decode_metadata(std::string_view bytes) {
  EventMetadata metadata;
  ByteReader in(bytes);
  while (in.remaining() > 0) {
    const std::uint64_t field = in.varint();
    switch (field) {
      case tag(kEventId, kBytes): metadata.event_id = in.bytes(in.varint()); break;
      case tag(kCorrelationId, kBytes): metadata.correlation_id = in.bytes(in.varint()); break;
      case tag(kCausationId, kBytes): metadata.causation_id = in.bytes(in.varint()); break;
      case tag(kTime, kFixed64):
        metadata.time = UnixMicros{static_cast<std::int64_t>(in.u64_le())};
        break;
      case tag(kExtra, kBytes): metadata.extra = in.bytes(in.varint()); break;
      default: skip(in, field & 7);
    }
  }
  return in.finish("event metadata", metadata);
}

}  // namespace millrace
