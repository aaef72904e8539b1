#include "eventstore/log/record_writer.h"

#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "eventstore/log/format.h"
#include "eventstore/log/index_format.h"

namespace millrace::log {
namespace {

constexpr std::size_t kVarintBytesMax = 10;
/// A record's flags and the numbers before its parts.
constexpr std::size_t kRecordOverheadMax = 1 + 7 * kVarintBytesMax;

char* put_varint(char* to, std::uint64_t value) {
  while (value >= 0x80) {
    *to++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *to++ = static_cast<char>(value);
  return to;
}

char* put_bytes(char* to, std::string_view bytes) {
  to = put_varint(to, bytes.size());
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

}  // namespace

std::string_view properties_of(std::string_view tail) {
  ByteReader in(tail);
  for (std::uint64_t left = in.varint(); left != 0 && !in.failed(); --left) {
    in.varint();
    in.bytes(in.varint());
  }
  if (in.failed()) return {};
  return tail.substr(0, tail.size() - static_cast<std::size_t>(in.remaining()));
}

std::string without_idempotency_key(std::string_view properties) {
  ByteReader in(properties);
  std::string out;
  std::uint64_t left = in.varint();
  append_varint(out, left);
  for (; left != 0; --left) {
    std::uint64_t tag = in.varint();
    std::string value(in.bytes(in.varint()));
    if (tag == kIdempotencyKeyTag) {
      tag = kErasedKeyTag;
      value = erased_key(value);
    }
    append_varint(out, tag);
    append_varint(out, value.size());
    out += value;
  }
  MILLRACE_CHECK(!in.failed() && in.remaining() == 0);  // properties_of() has read them
  return out;
}

void RecordWriter::begin(ByteBuffer& out, Offset base) {
  out_ = &out;
  start_ = out.size();
  next_ = base;
  categories_.clear();
  types_.clear();
}

// RECORD = u8 flags, [gap], category, [type], [version], key, [metadata], payload: see Batch::next.
void RecordWriter::add(const EventView& event) {
  MILLRACE_CHECK(event.offset >= next_);
  const std::uint64_t gap = event.offset.value - next_.value;
  char* to = out_->reserve(kRecordOverheadMax + event.key.size() + event.metadata.size() +
                           event.payload.size());
  std::uint8_t flags = static_cast<std::uint8_t>(event.flags);
  if (!event.type.empty()) flags |= kRecordHasType;
  if (!event.metadata.empty()) flags |= kRecordHasMetadata;
  if (event.version) flags |= kRecordHasVersion;
  if (gap != 0) flags |= kRecordHasGap;
  *to++ = static_cast<char>(flags);
  if (gap != 0) to = put_varint(to, gap);
  to = put_varint(to, categories_.index_of(event.category));
  if (!event.type.empty()) to = put_varint(to, types_.index_of(event.type));
  if (event.version) to = put_varint(to, *event.version);
  to = put_bytes(to, event.key);
  if (!event.metadata.empty()) to = put_bytes(to, event.metadata);
  to = put_bytes(to, event.payload);
  out_->set_end(to);
  next_ = {event.offset.value + 1};
}

// TAIL = properties categories types; names = count {size bytes}
std::uint32_t RecordWriter::finish(std::string_view properties) {
  const std::size_t names_at = out_->size() - start_;
  out_->append(properties.empty() ? kNoProperties : properties);
  write_names(categories_);
  write_names(types_);
  return static_cast<std::uint32_t>(names_at);
}

void RecordWriter::write_names(const NameTable& names) {
  char* to = out_->reserve((std::size_t{names.size()} + 1) * kVarintBytesMax + names.bytes());
  to = put_varint(to, names.size());
  for (std::uint32_t i = 0; i < names.size(); ++i) to = put_bytes(to, names.at(i));
  out_->set_end(to);
}

}  // namespace millrace::log
