#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/format.h"
#include "eventstore/log/store_files.h"

namespace millrace::log {

/// Puts encoded batches into segments: gives each its place, chain and checksum, writes, syncs,
/// rolls.
///
/// Pure of threads: EventStore's flusher is the only one that calls it. After any error nothing but
/// the destructor may be called (poison): what is on the disk then is for recovery to find out.
class LogWriter {
 public:
  struct Options {
    std::uint64_t segment_bytes = 0, segment_events = 0;
    StoreId store;
    FileSystem* files = nullptr;
    Clock* clock = nullptr;
  };

  /// Makes the first segment of a new log, durably.
  static Result<LogWriter> create(const StorePaths& paths, const Options& options);
  /// Goes on where recover() ended.
  static Result<LogWriter> resume(const StorePaths& paths, const Options& options,
                                  const LogState& state);

  /// Stamps and writes whole batches. Rolls to a new segment where one is full; the old one is then
  /// durable and holds nothing behind its last batch.
  Result<void> write(std::span<char> batches);
  /// Makes everything written survive the machine.
  Result<void> sync();
  /// Takes back the transaction that is open, if one is: durably, so that none of its bytes can
  /// ever be mistaken for what comes after.
  Result<void> rewind();
  /// Goes on in a new segment, so that what was written so far lies in sealed ones; nothing if the
  /// present one has no events. No transaction is open.
  Result<void> seal();
  /// Gives the reserved space back. Everything must be synced.
  Result<void> close();

  /// kFailedPrecondition if the segment that is written to is not the one that lies under its name:
  /// the store was moved away, removed or replaced. What can't be told is no error.
  Result<void> check_place() const;

  /// After the last whole transaction that was written.
  const LogMark& mark() const { return state_.mark(); }
  /// After the last one that is known to survive the machine.
  const LogMark& synced_mark() const { return synced_mark_; }
  /// True if nothing was written since sync(), or since the segment began.
  bool is_synced() const { return synced_position_ == state_.position(); }
  bool in_transaction() const { return state_.in_transaction(); }

 private:
  LogWriter(StorePaths paths, const Options& options)
      : paths_(std::move(paths)), options_(options), seal_(options.store, 0) {}

  Result<void> write_run(std::string_view bytes, std::uint64_t position);
  Result<void> reserve(std::uint64_t end);
  Result<void> roll();
  Result<void> start_segment(const SegmentHeader& header);
  bool is_full_for(std::uint32_t batch_bytes) const;
  void stamp(char* batch);

  StorePaths paths_;
  Options options_;
  std::unique_ptr<File> file_;
  LogState state_;
  HeaderSeal seal_;
  std::uint64_t reserved_ = 0;         // bytes that the file has
  std::uint64_t synced_position_ = 0;  // in this segment
  std::uint64_t writeback_begun_ = 0;  // to there, or further by sync()
  LogMark synced_mark_;
  std::uint64_t mark_chain_ = 0;
  /// Segments made since the open transaction began, this one included.
  std::vector<std::uint64_t> transaction_segments_;
};

}  // namespace millrace::log
