#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

namespace millrace {

namespace log {
struct BatchHeader;
}

/// A durable part of the log that is decoded front to back: a whole transaction or, of a large one,
/// a piece; the last piece has `last_of_transaction` set.
///
/// Everything in it is a view into the reader's buffer and valid until the reader's next call.
class Batch {
 public:
  /// The next event at or after ReadOptions::from, or nullptr after the last. No allocation. Should
  /// a batch with a good checksum hold nonsense, it ends early and status() says so.
  const EventView* next();
  /// Errors: kCorruption (see next).
  Result<void> status() const;
  /// Goes back to the first event that next() gave.
  void rewind();

  // What follows tells of the whole batch as it lies in the log, also where the reader starts in
  // its middle. An event's ordinal in its transaction is `ordinal` + its offset - `first`.
  TransactionInfo info;  ///< `info.source.end` is set in the last batch of a transaction only.
  Offset first;          ///< Offset of its first event.
  std::uint32_t count = 0;
  std::uint64_t ordinal = 0;  ///< Place of its first event in its transaction, from 0.
  bool first_of_transaction = false;
  bool last_of_transaction = false;
  UnixMicros append_time;
  std::string_view idempotency_key;  ///< Of the append, in its first batch; else empty.
  /// In place of a key that was erased: what knows it again if it comes once more.
  std::string_view erased_key;
  std::string_view payload;  ///< The records and their names, checked and decompressed; for tools.
  /// Where it lies, for messages: its segment's first offset and the byte in it.
  std::uint64_t segment = 0;
  std::uint64_t position = 0;
  std::uint32_t generation = 0;  ///< Of the segment: so often it had been rewritten.

  /// Takes a batch that was read and checked; events below `from` are passed over. For the reader
  /// and for tests.
  void load(const log::BatchHeader& header, std::string_view payload, Offset from);
  /// True if it holds an event of one of `categories`, which ascend.
  bool mentions(const std::vector<std::string>& categories) const;

 private:
  void load_names(std::string_view tail);
  bool decode();
  bool fail();

  EventView event_;
  std::vector<std::string_view> categories_, types_;
  const char* cursor_ = nullptr;
  const char* records_end_ = nullptr;
  std::uint64_t next_offset_ = 0;
  std::uint32_t left_ = 0;
  Offset from_;
  std::uint32_t span_ = 0;
  std::uint32_t names_at_ = 0;
  bool damaged_ = false;
};

struct ReadOptions {
  /// The first event wanted. It may lie in the middle of a batch, or beyond the end: then the
  /// reader waits until the log gets there.
  Offset from = {};
  /// Nothing before the first transaction that was committed then or later. Commit times are the
  /// source's: they need not ascend, so what comes after it may be older.
  std::optional<UnixMicros> from_time = {};
  /// Batches that hold nothing of any of them are passed over; empty for all. Events of others
  /// still come with them. A transaction of which a batch was given is always given to its last
  /// one.
  std::vector<std::string> categories = {};
  /// No kGone: what went for good is passed over like what newer events stand for. For who wants to
  /// know what is there, not what happened.
  bool accepts_gaps = false;
  FileSystem* files = &FileSystem::real();
};

/// Reads the durable part of a store from an offset on, in this or another process than the
/// writer's, without ever disturbing it.
///
/// The end is what the writer publishes in HEAD. When none has written since the machine started,
/// the reader finds the end of what survived by reading the last segment; a writer that starts
/// later is noticed.
///
/// In full segments it goes by their indexes, where they have one, straight to what is wanted;
/// what it passes over is not checked then. Where there is none it looks at each batch.
///
/// Threads: one at a time. Errors: kNotFound (no store there), kFailedPrecondition (other files
/// there, or the store was replaced by an older copy), kUnsupported (newer), kCorruption (names
/// segment, position and kind; nothing beyond is given), kIo, kGone ("OFFSET_GONE": see below).
///
/// Compaction leaves holes: what newer events of the same key replace, nobody misses. But events
/// that retention removed, and deletions past their grace, can't be learned any more by who comes
/// back later (`from` above 0) and had not read them: that is kGone and names what is missing. From
/// 0 on a reader gets what there is. What was erased is no such gap: a tombstone follows for it.
/// Nor is what went of categories that are not wanted.
class LogReader {
 public:
  static Result<std::unique_ptr<LogReader>> open(const Path& directory, ReadOptions options = {});
  virtual ~LogReader() = default;

  /// The next batch with an event at or after `from`, or nullptr at the durable end. Transactions
  /// without events are never given. After an error the reader stays where it is.
  virtual Result<Batch*> next() = 0;
  /// Waits until there is more than was read; false when `timeout` passed or `stop` was asked.
  /// Sleeps on the futex in HEAD: wakes in microseconds, costs nothing meanwhile.
  virtual Result<bool> wait(std::chrono::milliseconds timeout,
                            const std::stop_token& stop = {}) = 0;
  /// Every event below it was given, or passed over for its category or time. `from` before the
  /// first.
  virtual Offset position() const = 0;
  /// The durable end as known now.
  virtual Offset durable_end() = 0;
  virtual const StoreId& store_id() const = 0;
};

}  // namespace millrace
