#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/batch_file.h"
#include "eventstore/log/head.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log/tail_index.h"
#include "eventstore/log_reader.h"

namespace millrace::log {

/// Finds the batches of the durable log that hold a stream or an idempotency key, by their hashes:
/// in sealed segments through their indexes, in the one that is being written, and in those that
/// have no index yet, through one in memory.
///
/// What was opened stays open, of kOpenSegmentsMax segments at most, but for old generations of
/// segments that were replaced: refresh() and wait() close them. Threads: one at a time. Errors: as
/// LogReader.
class StreamLookup {
 public:
  static constexpr std::size_t kOpenSegmentsMax = 256;

  /// Takes a batch, false ends the visit. The batch lasts until it returns.
  using Visit = std::function<bool(Batch& batch)>;
  /// Says of a batch whether everything that is wanted comes after it in the order of the visit;
  /// nothing where it can't tell.
  using IsBefore = std::function<std::optional<bool>(Batch& batch)>;

  static Result<std::unique_ptr<StreamLookup>> open(FileSystem& files, const Path& store);

  /// Takes in what became durable since. The first call reads the segment that is being written.
  Result<void> refresh();
  /// Visits, of all that the last refresh() knew, the batches that may hold `hash` (stream_hash,
  /// idempotency_hash), oldest first or `newest_first`. Other names may have the same hash, so the
  /// visitor looks at the names; it also looks at Batch::status(). With `is_before` it begins at
  /// the first batch of which that is not true, which it finds by halving.
  Result<void> visit(std::uint64_t hash, bool newest_first, const Visit& visit,
                     const IsBefore& is_before = {});
  /// Waits for more than the last refresh() knew: LogReader::wait.
  Result<bool> wait(std::chrono::milliseconds timeout, const std::stop_token& stop);

  /// Below it everything is known.
  Offset end() const { return end_; }
  /// Where that is, by its first offset.
  std::uint64_t newest_segment() const { return newest_; }
  const StoreId& store_id() const { return tail_->store_id(); }

 private:
  /// A segment as far as it was looked at. Positions are of one generation only, so `index` is
  /// always of that of `file`, and `walked` is asked only if it is.
  struct Segment {
    std::optional<BatchFile> file;
    std::optional<SegmentIndex> index;  ///< If it is sealed and has one.
    std::optional<TailIndex> walked;    ///< Else: of all of it, or as far as tail_ has come.
    std::uint32_t walked_generation = 0;
    bool is_begun = false;      ///< `walked` has something of that generation.
    std::uint64_t used_at = 0;  ///< By the clock of uses_.
  };

  StreamLookup(FileSystem& files, StorePaths paths, const StoreId& store)
      : files_(files), paths_(std::move(paths)), head_(files_, paths_, store) {}

  Result<void> list_segments();
  void close_replaced(const HeadView& head);
  Result<Segment*> use(std::uint64_t first);
  Result<void> open_segment(std::uint64_t first, Segment& segment);
  Result<void> walk(SegmentReader reader, Segment& segment);
  void move_to(std::uint64_t newest);
  void close_least_used();
  Result<void> find(Segment& segment, std::uint64_t first, std::uint64_t hash);
  Result<Segment*> find_in(std::uint64_t first, std::uint64_t hash, bool newest_first);
  Result<std::optional<bool>> ask(const Segment& segment, std::uint64_t position,
                                  const IsBefore& is_before);

  FileSystem& files_;
  StorePaths paths_;
  HeadReader head_;
  std::optional<HeadView::SwapMark> swapped_;  // as of when all open ones were in place
  std::unique_ptr<LogReader> tail_;
  Offset end_;
  std::uint64_t newest_ = 0;                   // the segment where it is
  std::map<std::uint64_t, Segment> segments_;  // by their first offsets
  std::uint64_t uses_ = 0;
  std::vector<std::uint64_t> positions_;
  BatchFile::Buffers buffers_;
  Batch batch_;
};

}  // namespace millrace::log
