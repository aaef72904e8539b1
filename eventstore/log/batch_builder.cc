#include "eventstore/log/batch_builder.h"

#include <limits>

#include "base/bytes.h"
#include "base/check.h"
#include "eventstore/appender.h"

namespace millrace::log {
namespace {

constexpr std::size_t kVarintBytesMax = 10;
/// A record's flags and the numbers before its parts.
constexpr std::size_t kRecordOverheadMax = 1 + 6 * kVarintBytesMax;
/// Properties: an idempotency key; category and type, each with count and size.
constexpr std::size_t kTailOverheadMax =
    1 + 2 * kVarintBytesMax + kIdempotencyKeyBytesMax + 4 * kVarintBytesMax;
// A batch with one event of any size: a larger one is closed before it takes another event.
static_assert(kBatchHeaderBytes + kRecordOverheadMax + kEventBytesMax + kTailOverheadMax +
                  kBatchAlignment <=
              std::numeric_limits<std::uint32_t>::max());

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

void BatchBuilder::begin(const TransactionInfo& info, Offset first, std::size_t batch_bytes,
                         std::string_view idempotency_key) {
  info_ = info;
  idempotency_key_ = idempotency_key;
  first_ = next_ = first;
  batch_bytes_ = batch_bytes;
  batch_open_ = false;
  first_batch_ = true;
}

void BatchBuilder::start_batch() {
  batch_at_ = out_.size();
  batch_base_ = next_.value;
  out_.resize(out_.size() + kBatchHeaderBytes);
  categories_.clear();
  types_.clear();
  batch_open_ = true;
}

// RECORD = u8 flags, [gap], category, [type], [stream version], key, [metadata], payload: see
// Batch::next.
void BatchBuilder::add(const NewEvent& event, std::optional<std::uint64_t> version) {
  const std::size_t event_bytes_max =
      kRecordOverheadMax + event.key.size() + event.metadata.size() + event.payload.size();
  // Cut before an event, not after one: so the last batch of a transaction always has the last
  // event.
  if (batch_open_ && out_.size() - batch_at_ + event_bytes_max > batch_bytes_) close_batch(0, 0);
  if (!batch_open_) start_batch();
  char* to = out_.reserve(event_bytes_max);
  std::uint8_t flags = static_cast<std::uint8_t>(event.flags);
  if (!event.type.empty()) flags |= kRecordHasType;
  if (!event.metadata.empty()) flags |= kRecordHasMetadata;
  if (version) flags |= kRecordHasVersion;
  *to++ = static_cast<char>(flags);
  to = put_varint(to, categories_.index_of(event.category));
  if (!event.type.empty()) to = put_varint(to, types_.index_of(event.type));
  if (version) to = put_varint(to, *version);
  to = put_bytes(to, event.key);
  if (!event.metadata.empty()) to = put_bytes(to, event.metadata);
  to = put_bytes(to, event.payload);
  out_.set_end(to);
  ++next_.value;
}

Offset BatchBuilder::commit(std::uint64_t source_end) {
  if (!batch_open_) start_batch();
  close_batch(kLastOfTransaction, source_end);
  return next_;
}

Offset BatchBuilder::rebase(Offset first) {
  const std::uint64_t by = first.value - first_.value;  // may wrap, and wraps back
  if (by == 0) return next_;
  for (std::size_t at = 0; at < closed_bytes(); at += batch_length(out_.data() + at))
    move_batch(out_.data() + at, by);
  first_ = first;
  next_.value += by;
  batch_base_ += by;
  return next_;
}

// TAIL = properties categories types
// properties = count {tag size bytes}; names = count {size bytes}
void BatchBuilder::close_batch(std::uint16_t flags, std::uint64_t source_end) {
  const std::size_t names_at = out_.size() - batch_at_ - kBatchHeaderBytes;
  write_properties();
  write_names(categories_);
  write_names(types_);
  const std::size_t payload_bytes = out_.size() - batch_at_ - kBatchHeaderBytes;
  const std::size_t length = align_up(kBatchHeaderBytes + payload_bytes, kBatchAlignment);
  MILLRACE_CHECK(length <= 0xffffffffu);
  std::memset(out_.reserve(kBatchAlignment), 0, kBatchAlignment);
  out_.resize(batch_at_ + length);

  if (first_batch_) flags |= kFirstOfTransaction;
  if (info_.snapshot) flags |= kSnapshot;
  SourcePosition source = info_.source;
  source.end = source_end;
  const std::uint32_t count = static_cast<std::uint32_t>(next_.value - batch_base_);
  char* header = out_.data() + batch_at_;
  encode_batch_header({.length = static_cast<std::uint32_t>(length),
                       .base = batch_base_,
                       .span = count,
                       .count = count,
                       .ordinal = batch_base_ - first_.value,
                       .flags = flags,
                       .payload_bytes = static_cast<std::uint32_t>(payload_bytes),
                       .raw_bytes = static_cast<std::uint32_t>(payload_bytes),
                       .names_at = static_cast<std::uint32_t>(names_at),
                       .source = source,
                       .source_xid = info_.source_xid,
                       .commit_time = info_.commit_time,
                       .append_time = clock_.wall()},
                      header);
  batch_open_ = false;
  first_batch_ = false;
}

void BatchBuilder::write_properties() {
  const bool has_key = first_batch_ && !idempotency_key_.empty();
  char* to = out_.reserve(1 + 2 * kVarintBytesMax + idempotency_key_.size());
  *to++ = has_key ? 1 : 0;
  if (has_key) to = put_bytes(put_varint(to, kIdempotencyKeyTag), idempotency_key_);
  out_.set_end(to);
}

void BatchBuilder::write_names(const NameTable& names) {
  char* to = out_.reserve((std::size_t{names.size()} + 1) * kVarintBytesMax + names.bytes());
  to = put_varint(to, names.size());
  for (std::uint32_t i = 0; i < names.size(); ++i) to = put_bytes(to, names.at(i));
  out_.set_end(to);
}

}  // namespace millrace::log
