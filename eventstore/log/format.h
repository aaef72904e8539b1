#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "eventstore/types.h"

// The bytes of the log, little-endian throughout. docs/log-format.md says the same at more length.
namespace millrace::log {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::size_t kSegmentHeaderBytes = 4096;
inline constexpr std::size_t kBatchHeaderBytes = 128;
inline constexpr std::size_t kBatchAlignment = 8;
inline constexpr std::uint32_t kBatchMagic = 0x3142524d;            // "MRB1"
inline constexpr std::size_t kBatchBaseAt = 8, kBatchChainAt = 56;  ///< Recovery compares them.
/// What a disk writes whole or not at all; what a crash takes back comes in pieces of this size.
inline constexpr std::size_t kSectorBytes = 512;

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

/// The end of a whole transaction: where the log may be cut, and what it says of the source there.
struct LogMark {
  Offset end;                  ///< After its last event.
  std::uint64_t segment = 0;   ///< First offset of the segment that it ends in ...
  std::uint64_t position = 0;  ///< ... and the byte in it.
  SourcePosition
      source{};  ///< Of the last captured transaction until then; epoch 0 before the first.
  UnixMicros commit_time{};  ///< Of the last transaction.
  auto operator<=>(const LogMark&) const = default;
};

/// The first page of a segment.
struct SegmentHeader {
  /// How the segment before it ended, so that a missing, cut or exchanged one is noticed.
  struct Predecessor {
    std::uint64_t segment = 0;
    std::uint64_t bytes_used = 0;
    std::uint64_t chain = 0;  ///< Of its last batch header, or of its header page if it has none.
    bool operator==(const Predecessor&) const = default;
  };

  /// Where the batches of a segment end.
  struct End {
    std::uint64_t bytes_used = 0;
    std::uint64_t chain = 0;
    bool operator==(const End&) const = default;
  };

  /// Of a segment that was written anew, with less in it.
  struct Rewritten {
    std::uint32_t generation = 0;  ///< How often, from 1.
    UnixMicros at{};               ///< When, the last time.
    Offset end{};                  ///< The first offset of the segment after it.
    End origin{};  ///< How generation 0 ended: the segment after it remembers that for ever.
    End own{};     ///< How this one ends, so that a cut is noticed.
    std::uint64_t control = 0;  ///< Where its control batch lies, the last one.
    bool operator==(const Rewritten&) const = default;
  };

  StoreId store;
  std::uint64_t segment = 0;  ///< Its first offset, which names it.
  UnixMicros created;
  std::optional<Predecessor> predecessor;
  /// The last whole transaction before this segment. Lies in an older segment if a transaction was
  /// open at the roll, else it is the very start of this one.
  LogMark mark;
  std::optional<Rewritten> rewritten{};

  std::uint32_t generation() const { return rewritten ? rewritten->generation : 0; }
};

/// Fills `kSegmentHeaderBytes` at `to`.
void encode_segment_header(const SegmentHeader& header, char* to);
/// Errors: kCorruption, kUnsupported (needs a newer version).
Result<SegmentHeader> decode_segment_header(std::string_view page);
/// The chain value that the first batch behind `page` holds. In a rewritten segment it leaves out
/// `own`, which is known only behind the last batch.
std::uint64_t chain_after_page(std::string_view page);

enum BatchFlags : std::uint16_t {
  kFirstOfTransaction = 1,
  kLastOfTransaction = 2,
  kSnapshot = 4,
  kControl = 8,  ///< The last batch of a rewritten segment: tells what is gone; has no events.
};
inline constexpr std::uint16_t kKnownBatchFlags = 15;

enum class Codec : std::uint8_t { kNone = 0, kZstd = 1 };
/// What a payload may have at most, decompressed, to be kept compressed. A reader refuses more
/// before it makes room for it; so no frame, whatever it says, costs more memory than this.
inline constexpr std::size_t kCompressedRawBytesMax = std::size_t{64} << 20;

struct BatchHeader {
  std::uint32_t length = 0;   ///< Header, payload and padding: a multiple of 8.
  std::uint64_t base = 0;     ///< Offset of its first event.
  std::uint32_t span = 0;     ///< Offsets that it covers, holes included.
  std::uint32_t count = 0;    ///< Events in it.
  std::uint64_t ordinal = 0;  ///< Of its first event in the transaction.
  std::uint16_t flags = 0;
  Codec codec = Codec::kNone;
  std::uint32_t payload_bytes = 0;  ///< As stored.
  std::uint32_t raw_bytes = 0;      ///< Decompressed.
  std::uint32_t names_at = 0;       ///< Of the tail, within the decompressed payload.
  std::uint64_t payload_checksum = 0;
  std::uint64_t chain = 0;
  SourcePosition source{};
  std::uint32_t source_xid = 0;
  UnixMicros commit_time{};
  UnixMicros append_time{};
  /// Everything in this segment below this byte had been synced before this batch was written. So
  /// damage below it can't come from a crash.
  std::uint64_t synced_position = 0;

  bool has(BatchFlags flag) const { return (flags & flag) != 0; }
};

/// What can be wrong with a batch.
enum class BatchFault : std::uint8_t {
  kNone,
  kAbsent,           ///< The file ends here, or zeros follow.
  kIncomplete,       ///< The file ends within it.
  kHeaderChecksum,   ///< No header for this place in this store.
  kUnsupported,      ///< Flags or a codec of a newer version.
  kFields,           ///< A field has a value that can't be.
  kChain,            ///< Not the batch that follows the one before.
  kOffset,           ///< Does not continue the offsets.
  kTransaction,      ///< Does not continue the transaction, or begins one inside another.
  kPayloadChecksum,  ///< Header fine, payload not.
  kPayloadCodec,     ///< Payload as it was written, and yet not to be decompressed.
};
std::string_view describe(BatchFault fault);

/// Binds headers to one segment of one store, and with `at` to their place in it: a stale or
/// misplaced header never passes for the one that belongs there.
class HeaderSeal {
 public:
  HeaderSeal(const StoreId& store, std::uint64_t segment);
  std::uint64_t at(std::uint64_t position) const;

 private:
  std::uint64_t segment_seed_;
};

/// Fills `kBatchHeaderBytes` at `to`, all but what stamp_batch_header sets.
void encode_batch_header(const BatchHeader& header, char* to);
/// The payload of an encoded batch, before it is compressed.
std::string_view raw_batch_payload(const char* batch);
/// Tells `batch` that its payload is now `payload_bytes` by `codec`; fills up with zeros what makes
/// its length whole and gives that length.
std::uint32_t set_batch_payload(char* batch, Codec codec, std::size_t payload_bytes);
void set_payload_checksum(char* header, std::uint64_t checksum);
/// Sets what is known only when the batch gets its place: its link to the batch before and
/// checksum.
void stamp_batch_header(char* header, std::uint64_t chain, std::uint64_t synced_position,
                        std::uint64_t seal);
/// Gives kNone, kAbsent, kHeaderChecksum, kUnsupported or kFields. `bytes` are kBatchHeaderBytes.
BatchFault decode_batch_header(const char* bytes, std::uint64_t seal, BatchHeader& into);
/// What the next header's chain field must be.
std::uint64_t chain_after_batch(const char* header);
std::uint32_t batch_length(const char* header);
/// Adds `by` to the offset of its first event; before it is stamped.
void move_batch(char* header, std::uint64_t by);

// A record's first byte. The low three bits are EventFlags.
inline constexpr std::uint8_t kRecordEventFlags = 7;
inline constexpr std::uint8_t kRecordHasType = 8;
inline constexpr std::uint8_t kRecordHasMetadata = 16;
inline constexpr std::uint8_t kRecordHasVersion = 32;
inline constexpr std::uint8_t kRecordHasGap = 64;
inline constexpr std::uint8_t kRecordReserved = 128;

// Tags of a batch's properties.
inline constexpr std::uint64_t kIdempotencyKeyTag = 1;
inline constexpr std::uint64_t kErasedKeyTag = 4;  // in its place: what tells it from others

/// Where the log goes on: what the next batch has to look like, and the last place to cut at.
class LogState {
 public:
  LogState() = default;
  /// At the start of a segment.
  LogState(const SegmentHeader& header, std::string_view page);

  /// kNone, kChain, kOffset or kTransaction.
  BatchFault check(const BatchHeader& header) const;
  /// Goes on behind a batch that check() passed; `chain` as from chain_after_batch.
  void advance(const BatchHeader& header, std::uint64_t chain);
  /// At the start of a segment in the middle of a transaction: remembers what its batches share.
  void continue_transaction_of(const LogState& before) { previous_ = before.previous_; }
  /// Believes `header`, which lies at `position`: to go on behind damage.
  void resume(const BatchHeader& header, std::uint64_t position);
  /// Goes on at `position`, of which an index tells what must be true there. mark() means nothing
  /// from then on.
  void skip_to(std::uint64_t position, std::uint64_t chain, Offset next);
  /// Goes back to mark(), whose chain value the caller kept.
  void rewind(std::uint64_t chain);

  std::uint64_t segment() const { return segment_; }
  std::uint64_t position() const { return position_; }
  std::uint64_t chain() const { return chain_; }
  Offset next() const { return next_; }
  /// True where the control batch of a rewritten segment has to be.
  bool at_control() const { return rewritten_ && position_ == rewritten_->control; }
  bool in_transaction() const { return in_transaction_; }
  const LogMark& mark() const { return mark_; }

 private:
  BatchFault check_rewritten(const BatchHeader& header) const;
  bool continues_transaction(const BatchHeader& header) const;

  std::uint64_t segment_ = 0;
  std::uint64_t position_ = 0;
  std::uint64_t chain_ = 0;
  Offset next_;
  LogMark mark_;
  bool in_transaction_ = false;
  /// Of the open transaction's batches; nothing at the start of a segment, where only its beginning
  /// is known.
  std::optional<BatchHeader> previous_;
  std::optional<SegmentHeader::Rewritten> rewritten_;
};

}  // namespace millrace::log
