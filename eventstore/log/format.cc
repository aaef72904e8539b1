#include "eventstore/log/format.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/bytes.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

constexpr std::string_view kSegmentMagic("\x89MRSEG\r\n", 8);
constexpr std::uint64_t kNone64 = ~std::uint64_t{0};
constexpr std::size_t kPageChecksumAt = kSegmentHeaderBytes - 8;
constexpr std::size_t kGenerationAt = 128, kOwnEndAt = 168;

// Places of the fields in a batch header; see the grammar at decode_batch_header.
constexpr std::size_t kLengthAt = 4, kCodecAt = 34, kPayloadBytesAt = 36, kRawBytesAt = 40,
                      kPayloadChecksumAt = 48, kSyncedAt = 104, kReservedAt = 112,
                      kChecksumAt = 120;

void put_time(char* to, UnixMicros time) {
  store_le<std::uint64_t>(to, static_cast<std::uint64_t>(time.value));
}

UnixMicros get_time(const char* from) {
  return {static_cast<std::int64_t>(load_le<std::uint64_t>(from))};
}

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

}  // namespace

std::string_view describe(BatchFault fault) {
  switch (fault) {
    case BatchFault::kNone: return "fine";
    case BatchFault::kAbsent: return "no batch";
    case BatchFault::kIncomplete: return "batch cut short";
    case BatchFault::kHeaderChecksum: return "batch header checksum";
    case BatchFault::kUnsupported: return "batch of a newer format";
    case BatchFault::kFields: return "batch header fields";
    case BatchFault::kChain: return "batch chain";
    case BatchFault::kOffset: return "batch offset";
    case BatchFault::kTransaction: return "transaction bounds";
    case BatchFault::kPayloadChecksum: return "batch payload checksum";
    case BatchFault::kPayloadCodec: return "batch payload compression";
  }
  return "unknown";
}

namespace {

void encode_rewritten(const SegmentHeader::Rewritten& rewritten, char* to) {
  store_le<std::uint32_t>(to + kGenerationAt, rewritten.generation);
  put_time(to + 136, rewritten.at);
  store_le<std::uint64_t>(to + 144, rewritten.end.value);
  store_le<std::uint64_t>(to + 152, rewritten.origin.bytes_used);
  store_le<std::uint64_t>(to + 160, rewritten.origin.chain);
  store_le<std::uint64_t>(to + kOwnEndAt, rewritten.own.bytes_used);
  store_le<std::uint64_t>(to + 176, rewritten.own.chain);
  store_le<std::uint64_t>(to + 184, rewritten.control);
}

SegmentHeader::Rewritten decode_rewritten(const char* from) {
  return {.generation = load_le<std::uint32_t>(from + kGenerationAt),
          .at = get_time(from + 136),
          .end = {load_le<std::uint64_t>(from + 144)},
          .origin = {.bytes_used = load_le<std::uint64_t>(from + 152),
                     .chain = load_le<std::uint64_t>(from + 160)},
          .own = {.bytes_used = load_le<std::uint64_t>(from + kOwnEndAt),
                  .chain = load_le<std::uint64_t>(from + 176)},
          .control = load_le<std::uint64_t>(from + 184)};
}

}  // namespace

void encode_segment_header(const SegmentHeader& header, char* to) {
  std::memset(to, 0, kSegmentHeaderBytes);
  std::memcpy(to, kSegmentMagic.data(), kSegmentMagic.size());
  store_le<std::uint32_t>(to + 8, kFormatVersion);
  store_le<std::uint32_t>(to + 12, kFormatVersion);  // oldest version that can read it
  std::memcpy(to + 16, header.store.bytes.data(), header.store.bytes.size());
  store_le<std::uint64_t>(to + 32, header.segment);
  put_time(to + 40, header.created);
  const SegmentHeader::Predecessor before =
      header.predecessor.value_or(SegmentHeader::Predecessor{.segment = kNone64});
  store_le<std::uint64_t>(to + 48, before.segment);
  store_le<std::uint64_t>(to + 56, before.bytes_used);
  store_le<std::uint64_t>(to + 64, before.chain);
  store_le<std::uint64_t>(to + 72, header.mark.end.value);
  store_le<std::uint64_t>(to + 80, header.mark.segment);
  store_le<std::uint64_t>(to + 88, header.mark.position);
  store_le<std::uint32_t>(to + 96, header.mark.source.epoch);
  store_le<std::uint64_t>(to + 104, header.mark.source.commit);
  store_le<std::uint64_t>(to + 112, header.mark.source.end);
  put_time(to + 120, header.mark.commit_time);
  if (header.rewritten) encode_rewritten(*header.rewritten, to);
  store_le<std::uint64_t>(to + kPageChecksumAt, checksum({to, kPageChecksumAt}));
}

// clang-format off
// SEGMENT HEADER, 4096 bytes:
//     0  8 bytes 89 4D 52 53 45 47 0D 0A
//     8  u32 format version               12  u32 oldest version that can read it
//    16  16 bytes store id                32  u64 first offset
//    40  i64 created, microseconds since 1970
//    48  u64 predecessor's first offset (all ones: none)
//    56  u64 its bytes used               64  u64 its last chain value
//    72  u64 offset after the last whole transaction
//    80  u64 segment and                  88  u64 byte where that ended
//    96  u32 epoch                       104  u64 commit          112  u64 end: source position then
//   120  i64 commit time then
//   128  u32 generation: 0 as written first, all zeros behind; a rewritten segment counts up:
//   132  u32 zero                       136  i64 when it was rewritten
//   144  u64 first offset of the segment after it
//   152  u64 bytes used and             160  u64 last chain value of generation 0
//   168  u64 bytes used and             176  u64 last chain value of this one
//   184  u64 byte of its control batch
//   192  zeros                          4088  u64 XXH3-64 of all before
// clang-format on
// Magic, the two versions and the checksum stay in their places in every later format.
Result<SegmentHeader> decode_segment_header(std::string_view page) {
  const auto wrong = [](std::string_view what) {
    return Error(ErrorCode::kCorruption, "segment header: " + std::string(what));
  };
  if (page.size() < kSegmentHeaderBytes) return wrong("cut short");
  const char* from = page.data();
  if (page.substr(0, kSegmentMagic.size()) != kSegmentMagic) return wrong("not that of a segment");
  if (load_le<std::uint64_t>(from + kPageChecksumAt) != checksum({from, kPageChecksumAt}))
    return wrong("checksum");
  if (load_le<std::uint32_t>(from + 12) > kFormatVersion)
    return Error(ErrorCode::kUnsupported, "segment header: written by a newer millrace")
        .hint("Install that version, or a newer one.");
  SegmentHeader header;
  std::memcpy(header.store.bytes.data(), from + 16, header.store.bytes.size());
  header.segment = load_le<std::uint64_t>(from + 32);
  header.created = get_time(from + 40);
  if (load_le<std::uint64_t>(from + 48) != kNone64)
    header.predecessor = {.segment = load_le<std::uint64_t>(from + 48),
                          .bytes_used = load_le<std::uint64_t>(from + 56),
                          .chain = load_le<std::uint64_t>(from + 64)};
  header.mark = {.end = {load_le<std::uint64_t>(from + 72)},
                 .segment = load_le<std::uint64_t>(from + 80),
                 .position = load_le<std::uint64_t>(from + 88),
                 .source = {.epoch = load_le<std::uint32_t>(from + 96),
                            .commit = load_le<std::uint64_t>(from + 104),
                            .end = load_le<std::uint64_t>(from + 112)},
                 .commit_time = get_time(from + 120)};
  const bool starts_here = header.mark.segment == header.segment &&
                           header.mark.position == kSegmentHeaderBytes &&
                           header.mark.end.value == header.segment;
  const bool starts_before = header.predecessor && header.mark.segment < header.segment &&
                             header.mark.end.value < header.segment;
  if (!starts_here && !starts_before) return wrong("fields");
  if (load_le<std::uint32_t>(from + kGenerationAt) == 0) return header;
  header.rewritten = decode_rewritten(from);
  const SegmentHeader::Rewritten& rewritten = *header.rewritten;
  // Nobody has counted that far, and the next one would be 0: as written first.
  const bool counts_on = rewritten.generation != std::numeric_limits<std::uint32_t>::max();
  if (!counts_on || rewritten.end.value <= header.segment ||
      rewritten.origin.bytes_used < kSegmentHeaderBytes ||
      rewritten.control < kSegmentHeaderBytes || rewritten.control >= rewritten.own.bytes_used ||
      rewritten.own.bytes_used - rewritten.control < kBatchHeaderBytes)
    return wrong("fields");
  return header;
}

std::uint64_t chain_after_page(std::string_view page) {
  if (load_le<std::uint32_t>(page.data() + kGenerationAt) != 0)
    return checksum(page.substr(0, kOwnEndAt));
  return checksum(page.substr(0, kSegmentHeaderBytes));
}

HeaderSeal::HeaderSeal(const StoreId& store, std::uint64_t segment) {
  char bytes[24];
  std::memcpy(bytes, store.bytes.data(), 16);
  store_le<std::uint64_t>(bytes + 16, segment);
  segment_seed_ = checksum({bytes, sizeof bytes});
}

std::uint64_t HeaderSeal::at(std::uint64_t position) const {
  char bytes[8];
  store_le<std::uint64_t>(bytes, position);
  return checksum({bytes, sizeof bytes}, segment_seed_);
}

void encode_batch_header(const BatchHeader& header, char* to) {
  store_le<std::uint32_t>(to, kBatchMagic);
  store_le<std::uint32_t>(to + kLengthAt, header.length);
  store_le<std::uint64_t>(to + kBatchBaseAt, header.base);
  store_le<std::uint32_t>(to + 16, header.span);
  store_le<std::uint32_t>(to + 20, header.count);
  store_le<std::uint64_t>(to + 24, header.ordinal);
  store_le<std::uint16_t>(to + 32, header.flags);
  to[kCodecAt] = static_cast<char>(header.codec);
  to[35] = 0;
  store_le<std::uint32_t>(to + kPayloadBytesAt, header.payload_bytes);
  store_le<std::uint32_t>(to + kRawBytesAt, header.raw_bytes);
  store_le<std::uint32_t>(to + 44, header.names_at);
  store_le<std::uint64_t>(to + kPayloadChecksumAt, header.payload_checksum);
  store_le<std::uint64_t>(to + kBatchChainAt, 0);
  store_le<std::uint32_t>(to + 64, header.source.epoch);
  store_le<std::uint32_t>(to + 68, header.source_xid);
  store_le<std::uint64_t>(to + 72, header.source.commit);
  store_le<std::uint64_t>(to + 80, header.source.end);
  put_time(to + 88, header.commit_time);
  put_time(to + 96, header.append_time);
  store_le<std::uint64_t>(to + kSyncedAt, 0);
  store_le<std::uint64_t>(to + kReservedAt, 0);
  store_le<std::uint64_t>(to + kChecksumAt, 0);
}

std::string_view raw_batch_payload(const char* batch) {
  return {batch + kBatchHeaderBytes, load_le<std::uint32_t>(batch + kRawBytesAt)};
}

std::uint32_t set_batch_payload(char* batch, Codec codec, std::size_t payload_bytes) {
  const std::size_t bytes = kBatchHeaderBytes + payload_bytes;
  const auto length = static_cast<std::uint32_t>(align_up(bytes, kBatchAlignment));
  std::memset(batch + bytes, 0, length - bytes);
  batch[kCodecAt] = static_cast<char>(codec);
  store_le<std::uint32_t>(batch + kPayloadBytesAt, static_cast<std::uint32_t>(payload_bytes));
  store_le<std::uint32_t>(batch + kLengthAt, length);
  return length;
}

void set_payload_checksum(char* header, std::uint64_t checksum) {
  store_le<std::uint64_t>(header + kPayloadChecksumAt, checksum);
}

void stamp_batch_header(char* header, std::uint64_t chain, std::uint64_t synced_position,
                        std::uint64_t seal) {
  store_le<std::uint64_t>(header + kBatchChainAt, chain);
  store_le<std::uint64_t>(header + kSyncedAt, synced_position);
  store_le<std::uint64_t>(header + kChecksumAt, checksum({header, kChecksumAt}, seal));
}

// clang-format off
// BATCH = header payload padding(zeros, to a multiple of 8)
// header, 128 bytes:
//     0  u32 "MRB1"                  4  u32 length of the batch
//     8  u64 offset of its first event
//    16  u32 offset span            20  u32 count of events
//    24  u64 ordinal of its first event in its transaction
//    32  u16 flags                  34  u8 codec (0 none, 1 zstd)      35  u8 zero
//    36  u32 payload bytes as stored
//    40  u32 decompressed: the same, or with a codec more, at most 64 MiB
//    44  u32 where the tail starts, in the decompressed
//    48  u64 XXH3-64 of payload and padding
//    56  u64 chain: XXH3-64 of the header before
//    64  u32 source epoch           68  u32 source xid
//    72  u64 source commit          80  u64 source end
//    88  i64 commit time            96  i64 append time
//   104  u64 synced position       112  u64 zero
//   120  u64 XXH3-64 of all before, seeded (HeaderSeal)
// clang-format on
BatchFault decode_batch_header(const char* from, std::uint64_t seal, BatchHeader& into) {
  if (load_le<std::uint32_t>(from) != kBatchMagic)
    return all_zero({from, kBatchHeaderBytes}) ? BatchFault::kAbsent : BatchFault::kHeaderChecksum;
  if (load_le<std::uint64_t>(from + kChecksumAt) != checksum({from, kChecksumAt}, seal))
    return BatchFault::kHeaderChecksum;
  into = {.length = load_le<std::uint32_t>(from + kLengthAt),
          .base = load_le<std::uint64_t>(from + kBatchBaseAt),
          .span = load_le<std::uint32_t>(from + 16),
          .count = load_le<std::uint32_t>(from + 20),
          .ordinal = load_le<std::uint64_t>(from + 24),
          .flags = load_le<std::uint16_t>(from + 32),
          .codec = static_cast<Codec>(from[kCodecAt]),
          .payload_bytes = load_le<std::uint32_t>(from + kPayloadBytesAt),
          .raw_bytes = load_le<std::uint32_t>(from + kRawBytesAt),
          .names_at = load_le<std::uint32_t>(from + 44),
          .payload_checksum = load_le<std::uint64_t>(from + kPayloadChecksumAt),
          .chain = load_le<std::uint64_t>(from + kBatchChainAt),
          .source = {.epoch = load_le<std::uint32_t>(from + 64),
                     .commit = load_le<std::uint64_t>(from + 72),
                     .end = load_le<std::uint64_t>(from + 80)},
          .source_xid = load_le<std::uint32_t>(from + 68),
          .commit_time = get_time(from + 88),
          .append_time = get_time(from + 96),
          .synced_position = load_le<std::uint64_t>(from + kSyncedAt)};
  if ((into.flags & ~kKnownBatchFlags) != 0 || into.codec > Codec::kZstd)
    return BatchFault::kUnsupported;
  const std::uint64_t length =
      align_up(kBatchHeaderBytes + std::uint64_t{into.payload_bytes}, kBatchAlignment);
  const bool sizes_agree =
      into.codec == Codec::kNone
          ? into.raw_bytes == into.payload_bytes
          : into.raw_bytes > into.payload_bytes && into.raw_bytes <= kCompressedRawBytesMax;
  if (into.length != length || !sizes_agree || into.names_at > into.raw_bytes ||
      into.count > into.span || from[35] != 0 || load_le<std::uint64_t>(from + kReservedAt) != 0)
    return BatchFault::kFields;
  return BatchFault::kNone;
}

std::uint64_t chain_after_batch(const char* header) {
  return checksum({header, kBatchHeaderBytes});
}

std::uint32_t batch_length(const char* header) {
  return load_le<std::uint32_t>(header + kLengthAt);
}

void move_batch(char* header, std::uint64_t by) {
  store_le<std::uint64_t>(header + kBatchBaseAt,
                          load_le<std::uint64_t>(header + kBatchBaseAt) + by);
}

LogState::LogState(const SegmentHeader& header, std::string_view page)
    : segment_(header.segment),
      position_(kSegmentHeaderBytes),
      chain_(chain_after_page(page)),
      next_{header.segment},
      mark_(header.mark),
      in_transaction_(header.mark.segment != header.segment),
      rewritten_(header.rewritten) {}

BatchFault LogState::check(const BatchHeader& header) const {
  if (header.chain != chain_) return BatchFault::kChain;
  if (rewritten_) return check_rewritten(header);
  if (header.has(kControl)) return BatchFault::kTransaction;
  // Only a rewritten segment has holes.
  if (header.base != next_.value || header.count != header.span) return BatchFault::kOffset;
  if (header.has(kFirstOfTransaction) == in_transaction_) return BatchFault::kTransaction;
  if (header.ordinal != header.base - mark_.end.value) return BatchFault::kTransaction;
  if (previous_ && !continues_transaction(header)) return BatchFault::kTransaction;
  return BatchFault::kNone;
}

/// Whole transactions may be missing, and of each one any batches but, where it crosses a border of
/// the segment, one on this side.
BatchFault LogState::check_rewritten(const BatchHeader& header) const {
  if (header.has(kControl) != at_control()) return BatchFault::kTransaction;
  if (header.base < next_.value || header.base > rewritten_->end.value ||
      header.span > rewritten_->end.value - header.base)
    return BatchFault::kOffset;
  if (at_control()) {
    const bool fits =
        header.base == rewritten_->end.value && header.span == 0 && header.flags == kControl;
    return fits ? BatchFault::kNone : BatchFault::kOffset;
  }
  if (header.has(kFirstOfTransaction) == in_transaction_ || header.ordinal > header.base)
    return BatchFault::kTransaction;
  const std::uint64_t start = header.base - header.ordinal;
  if (in_transaction_ ? start != mark_.end.value : start < next_.value)
    return BatchFault::kTransaction;
  if (previous_ && !continues_transaction(header)) return BatchFault::kTransaction;
  return BatchFault::kNone;
}

bool LogState::continues_transaction(const BatchHeader& header) const {
  return header.source.epoch == previous_->source.epoch &&
         header.source.commit == previous_->source.commit &&
         header.source_xid == previous_->source_xid &&
         header.commit_time == previous_->commit_time &&
         header.has(kSnapshot) == previous_->has(kSnapshot);
}

void LogState::advance(const BatchHeader& header, std::uint64_t chain) {
  position_ += header.length;
  chain_ = chain;
  if (header.has(kControl)) return;
  next_ = {header.base + header.span};
  in_transaction_ = !header.has(kLastOfTransaction);
  if (header.has(kFirstOfTransaction)) mark_.end = {header.base - header.ordinal};
  if (in_transaction_) {
    previous_ = header;
    return;
  }
  previous_.reset();
  mark_.end = next_;
  mark_.segment = segment_;
  mark_.position = position_;
  mark_.commit_time = header.commit_time;
  if (header.source.epoch != 0) mark_.source = header.source;
}

void LogState::resume(const BatchHeader& header, std::uint64_t position) {
  position_ = position;
  chain_ = header.chain;
  in_transaction_ = !header.has(kFirstOfTransaction) && !header.has(kControl);
  mark_.end = {header.base - header.ordinal};
  // In a rewritten segment a transaction may begin with any of its events.
  next_ = in_transaction_ ? Offset{header.base} : mark_.end;
  previous_.reset();
}

void LogState::skip_to(std::uint64_t position, std::uint64_t chain, Offset next) {
  position_ = position;
  chain_ = chain;
  next_ = next;
  previous_.reset();
}

void LogState::rewind(std::uint64_t chain) {
  segment_ = mark_.segment;
  position_ = mark_.position;
  chain_ = chain;
  next_ = mark_.end;
  in_transaction_ = false;
  previous_.reset();
}

}  // namespace millrace::log
