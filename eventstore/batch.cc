#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/format.h"
#include "eventstore/log_reader.h"

namespace millrace {

void Batch::load(const log::BatchHeader& header, std::string_view bytes, Offset from) {
  info = {.source = header.source,
          .source_xid = header.source_xid,
          .commit_time = header.commit_time,
          .snapshot = header.has(log::kSnapshot)};
  first = {header.base};
  count = header.count;
  span_ = header.span;
  ordinal = header.ordinal;
  first_of_transaction = header.has(log::kFirstOfTransaction);
  last_of_transaction = header.has(log::kLastOfTransaction);
  append_time = header.append_time;
  payload = bytes;
  names_at_ = header.names_at;
  from_ = from;
  idempotency_key = erased_key = {};
  categories_.clear();
  types_.clear();
  damaged_ = false;
  load_names(bytes.substr(std::min<std::size_t>(names_at_, bytes.size())));
  rewind();
}

// PAYLOAD = records tail(at names_at)
// tail = properties categories types
// properties = varint count, of each: varint tag, varint size, bytes. Unknown tags are skipped.
// categories, types = varint count, of each: varint size, bytes
void Batch::load_names(std::string_view tail) {
  ByteReader in(tail);
  for (std::uint64_t left = in.varint(); left != 0 && !in.failed(); --left) {
    const std::uint64_t tag = in.varint();
    const std::string_view value = in.bytes(in.varint());
    if (tag == log::kIdempotencyKeyTag) idempotency_key = value;
    if (tag == log::kErasedKeyTag) erased_key = value;
  }
  for (auto* names : {&categories_, &types_}) {
    const std::uint64_t names_count = in.varint();
    if (names_count > in.remaining()) in.fail();  // each takes a byte at least
    for (std::uint64_t left = names_count; left != 0 && !in.failed(); --left)
      names->push_back(in.bytes(in.varint()));
  }
  if (in.failed() || in.remaining() != 0) damaged_ = true;
}

void Batch::rewind() {
  cursor_ = payload.data();
  records_end_ = cursor_ + std::min<std::size_t>(names_at_, payload.size());
  next_offset_ = first.value;
  left_ = damaged_ ? 0 : count;
}

const EventView* Batch::next() {
  do {
    if (left_ == 0) {
      if (cursor_ != records_end_) fail();  // also where the names are damaged
      return nullptr;
    }
    --left_;
    if (!decode()) return nullptr;
  } while (event_.offset < from_);
  return &event_;
}

// clang-format off
// RECORD = u8 flags            bits 0-2 EventFlags, 3 has type, 4 has metadata, 5 has version, 6 has gap
//          [varint gap]        offsets left out before this event, by compaction
//          varint category     index into categories
//          [varint type]       index into types
//          [varint version]    of the event in its stream
//          bytes key
//          [bytes metadata]
//          bytes payload
// bytes = varint size, that many bytes
// clang-format on
bool Batch::decode() {
  ByteReader in({cursor_, static_cast<std::size_t>(records_end_ - cursor_)});
  const std::uint8_t flags = in.u8();
  if ((flags & log::kRecordReserved) != 0) [[unlikely]]
    return fail();
  if ((flags & log::kRecordHasGap) != 0) [[unlikely]] {
    const std::uint64_t gap = in.varint();
    if (gap >= span_) return fail();
    next_offset_ += gap;
  }
  const std::uint64_t category = in.varint();
  if (category >= categories_.size()) [[unlikely]]
    return fail();
  event_.category = categories_[category];
  event_.type = {};
  if ((flags & log::kRecordHasType) != 0) {
    const std::uint64_t type = in.varint();
    if (type >= types_.size()) [[unlikely]]
      return fail();
    event_.type = types_[type];
  }
  event_.version.reset();
  if ((flags & log::kRecordHasVersion) != 0) [[unlikely]]
    event_.version = in.varint();
  event_.key = in.bytes(in.varint());
  event_.metadata =
      (flags & log::kRecordHasMetadata) != 0 ? in.bytes(in.varint()) : std::string_view();
  event_.payload = in.bytes(in.varint());
  event_.flags = static_cast<EventFlags>(flags & log::kRecordEventFlags);
  event_.offset = {next_offset_++};
  if (in.failed() || event_.offset.value - first.value >= span_) [[unlikely]]
    return fail();
  cursor_ = in.position();
  return true;
}

bool Batch::fail() {
  damaged_ = true;
  left_ = 0;
  cursor_ = records_end_;
  return false;
}

Result<void> Batch::status() const {
  if (!damaged_) return {};
  return Error(ErrorCode::kCorruption, "the batch at offset " + std::to_string(first.value) +
                                           " (segment " + std::to_string(segment) + ", byte " +
                                           std::to_string(position) +
                                           ") has a good checksum and records that can't be read")
      .hint(
          "This is a bug of the millrace that wrote it, or somebody changed the file on purpose.");
}

bool Batch::mentions(const std::vector<std::string>& categories) const {
  return damaged_ || std::any_of(categories_.begin(), categories_.end(), [&](auto name) {
           return std::binary_search(categories.begin(), categories.end(), name);
         });
}

}  // namespace millrace
