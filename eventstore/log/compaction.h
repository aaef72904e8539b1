#pragma once

#include <functional>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/format.h"
#include "eventstore/log/segment_rewriter.h"
#include "eventstore/log/store_files.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// The store as its writer knows it.
struct StoreContext {
  FileSystem* files = nullptr;
  Clock* clock = nullptr;
  StorePaths paths;
  StoreId store;
  Compression compression = Compression::kZstd;
  PartialEvents partials{};
};

/// The segments of a log and how far it is durable, as of one moment.
struct LogExtent {
  std::vector<std::uint64_t> segments;
  LogMark durable;
  /// So many of the segments are sealed for good: no recovery will go back to one of them.
  std::size_t sealed() const;
};

/// Calls `see` for each event of the segments from `from` to below `to`, up to the durable end.
/// `pace` is called about every MiB with the bytes read since; an error of either ends the walk.
Result<void> walk_log(const StoreContext& store, const LogExtent& log, std::size_t from,
                      std::size_t to,
                      const std::function<Result<void>(const EventView&, const Batch&)>& see,
                      const std::function<Result<void>(std::uint64_t)>& pace);

/// Keeps to a number of bytes in a second, tells how far it is, and ends what is paced when a stop
/// is asked.
class Pace {
 public:
  /// `bytes_per_second` 0: as fast as it can be.
  Pace(std::uint64_t bytes_per_second, ProgressFunction progress, std::stop_token stop,
       Clock& clock)
      : bytes_per_second_(bytes_per_second),
        stop_(std::move(stop)),
        progress_(std::move(progress)),
        clock_(clock),
        start_(clock.monotonic()) {}
  /// So many bytes more are going to be read.
  void expect(std::uint64_t bytes) { told_.total_bytes += bytes; }
  /// Errors: kCancelled.
  Result<void> operator()(std::uint64_t bytes);
  std::uint64_t bytes() const { return told_.done_bytes; }

 private:
  const std::uint64_t bytes_per_second_;
  const std::stop_token stop_;
  const ProgressFunction progress_;
  Clock& clock_;
  const Clock::Monotonic start_;
  MaintenanceProgress told_;
};

/// One run of compaction over the log. What is at `hold` or above is never removed for good.
/// `around_swap` as in RewriteOptions. Errors: see StoreMaintenance::compact.
Result<CompactionReport> compact_log(const StoreContext& store, const LogExtent& log, Offset hold,
                                     const CompactionOptions& options,
                                     const AroundSwap& around_swap);

/// Adds what a segment lost to what a report tells so far.
void add_removals(const std::vector<Removal>& removals, std::vector<RemovedEvents>& to);

}  // namespace millrace::log
