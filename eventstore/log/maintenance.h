#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <stop_token>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "eventstore/log/store_files.h"

namespace millrace::log {

/// The writer's work on files that are at rest, beside and never in the way of appending: builds
/// the indexes that are missing or of no use, removes once what interrupted saves of snapshots
/// left, and in the background scrubs. What fails here is logged once and tried again when the next
/// segment is sealed; the store goes on without it.
///
/// Threads: any.
class Maintenance {
 public:
  struct Options {
    StoreId store;
    FileSystem* files = nullptr;
    Clock* clock = nullptr;
    bool background = true;  ///< Else only run() does anything.
    std::uint64_t scrub_bytes_per_second = 0;
  };

  /// All segments before `sealed_before` never change again.
  Maintenance(StorePaths paths, const Options& options, std::uint64_t sealed_before);
  /// As stop().
  ~Maintenance();

  /// More segments are sealed for good: those before `segment`.
  void set_sealed_before(std::uint64_t segment);
  /// Does what is due now, in the caller's thread. Errors: the first that kept it from something.
  Result<void> run();
  /// Ends the background thread, within one batch or one sync of what it is at; run() gives
  /// kCancelled from then on.
  void stop();

 private:
  using Deadline = std::chrono::steady_clock::time_point;

  void run_background();
  std::optional<std::uint64_t> wait_for_work(std::optional<Deadline> scrub_at);
  Result<void> run_once() MILLRACE_REQUIRES(work_);
  Result<void> remove_leftovers() MILLRACE_REQUIRES(work_);
  Result<void> keep_index(std::uint64_t segment) MILLRACE_REQUIRES(work_);
  Result<void> build_index(std::uint64_t segment);

  const StorePaths paths_;
  const Options options_;
  std::stop_source stop_;

  Mutex work_;  // one at a time; taken before mutex_
  /// Below this each segment was looked at, and is right but for those that ...
  std::uint64_t checked_before_ MILLRACE_GUARDED_BY(work_) = 0;
  /// ... failed: worth another attempt.
  std::set<std::uint64_t> failed_ MILLRACE_GUARDED_BY(work_);
  bool leftovers_removed_ MILLRACE_GUARDED_BY(work_) = false, leftovers_told_
                                                              MILLRACE_GUARDED_BY(work_) = false;

  Mutex mutex_;
  ConditionVariable due_changed_;
  std::uint64_t sealed_before_ MILLRACE_GUARDED_BY(mutex_);
  bool due_ MILLRACE_GUARDED_BY(mutex_) = true;

  std::jthread thread_;
};

}  // namespace millrace::log
