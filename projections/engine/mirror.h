#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "projections/engine/context.h"
#include "projections/engine/sink_difference.h"
#include "projections/engine/sink_status.h"
#include "projections/sink.h"

namespace millrace::projections {

/// Keeps the sink of one view equal to its live generation, on a thread of its own, so that a slow
/// or absent sink holds up nobody else: the view's file goes on, and the sink is brought from where
/// it is to where the file is then, in one transaction of its own.
///
/// What may pass (kUnavailable) is tried again until it does; any other error is failure().
/// Threads: all of it, from any.
class Mirror {
 public:
  struct Pauses {
    std::chrono::milliseconds first, max;  ///< Between attempts, as WorkerOptions has them.
  };

  /// Begins at once. `view` has a sink.
  Mirror(const View& view, const Context& context, Pauses pauses);
  ~Mirror();

  /// There is something new in the view's file.
  void committed();
  /// Why it has stopped for good, if it has.
  Result<void> failure() const;
  /// Until the sink shows what the file has now. The first error ends the wait, also one that may
  /// pass; kCancelled if the context's stop was asked.
  Result<void> wait_until_equal();

 private:
  void follow(const std::stop_token& stop);
  Result<void> bring_up_to_date();
  void take_sink(std::unique_ptr<Sink> sink);
  Result<bool> open_live();
  Result<void> open_sink(const Checkpoint& live);
  Result<void> check_origin(const SinkCheckpoint& shown, const Checkpoint& live) const;
  Result<void> update(const sqlite::ChangeLogHead& head, const Checkpoint& live);
  Result<void> confirm();
  Result<void> probe();
  Result<void> write_all();
  Result<void> write_differences();
  void tell(const std::string& failure);
  void settle(Result<void> done);
  bool has_more(std::uint64_t than) const;
  bool pause(const std::stop_token& stop);

  const View& view_;
  const Context& context_;
  const Pauses pauses_;
  const Generations generations_;
  const SinkShape shape_;
  const std::string where_;

  // Of its thread only.
  std::optional<std::uint32_t> generation_;
  std::unique_ptr<sqlite::Database> live_;
  std::optional<ViewRows> rows_;
  SinkWriter writer_;
  std::unique_ptr<Sink> sink_;
  std::optional<SinkCheckpoint> sent_;   ///< Committed last ...
  std::optional<SinkCheckpoint> shown_;  ///< ... and the last of which it is known to be there.
  std::chrono::steady_clock::time_point probed_;
  bool told_ = true;                    ///< The last tell() was written.
  std::chrono::milliseconds pause_{0};  ///< The last one, while attempts fail; else 0.

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t asked_ = 0;          // guarded by mutex_: counts committed()
  std::uint64_t done_ = 0;           // the value of asked_ that is taken care of
  std::optional<Error> last_error_;  // of the last attempt
  bool failed_ = false;              // for good
  std::jthread thread_;              // last: it uses all of the above
};

}  // namespace millrace::projections
