#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <thread>

#include "base/mutex.h"
#include "base/result.h"

namespace millrace::log {

/// Compacts by itself, seldom enough to be no burden: when segments were sealed since the last run,
/// and once a day because events grow old; never sooner than twenty times as long after a run as
/// that one took. Threads: any.
class AutoCompaction {
 public:
  /// One run; it ends soon after its token asks for it, with kCancelled.
  using Run = std::function<Result<void>(std::stop_token)>;

  /// Without a `run` nothing ever happens. Two runs, and the first from now on, are `rest` apart at
  /// least.
  AutoCompaction(Run run, std::chrono::steady_clock::duration rest);
  ~AutoCompaction() { stop(); }

  /// Another segment is sealed.
  void note_sealed();
  /// Ends a run that is under way: somebody wants its place. Another one begins later.
  void interrupt();
  /// No run begins from now on; the one under way is over on return.
  void stop();

 private:
  using Time = std::chrono::steady_clock::time_point;

  void run_in_background();

  const Run run_;
  const std::chrono::steady_clock::duration rest_;
  Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ MILLRACE_GUARDED_BY(mutex_) = false;
  bool sealed_ MILLRACE_GUARDED_BY(mutex_) = true;  // before this process held the store, perhaps
  std::stop_source running_ MILLRACE_GUARDED_BY(mutex_);
  std::jthread thread_;
};

}  // namespace millrace::log
