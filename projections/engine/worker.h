#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "projections/engine/build.h"
#include "projections/engine/context.h"
#include "projections/engine/fold.h"
#include "projections/engine/mirror.h"

namespace millrace::projections {

struct WorkerOptions {
  /// End once everything that was durable at the start is folded.
  bool until_caught_up = false;
  /// While there is a backlog, a SQLite transaction takes in whole source transactions until it has
  /// this many events ...
  std::size_t events_per_commit = 20'000;
  /// ... or is this old. At the end of the log each commit follows at once. Larger: faster; a
  /// rebuild's switch and other writers of the file wait longer.
  std::chrono::milliseconds commit_interval{100};
  /// After an error that may pass, the first pause before another attempt; each is twice as long as
  /// the one before it ...
  std::chrono::milliseconds retry_first{200};
  /// ... up to this. Larger: less work in vain; later to notice that the cause has gone.
  std::chrono::milliseconds retry_max{30'000};
  /// Once this is asked, the worker ends as soon as it has caught up: another view of the program
  /// has stopped for good.
  std::stop_token finish{};
  BuildHooks build{};  ///< For the first generation.
};

/// Keeps the live generation of one view up to date with the store. One per view, on its own
/// thread.
///
/// A reader of the view sees whole source transactions only. What may pass (kNoSpace, kIo,
/// kUnavailable, and kLocked while somebody else makes the first generation) is tried again until
/// it does, unless the worker is to end at `until_caught_up`; any other error stops it. Either way
/// the view is as of the last commit, and the error is kept in its file for `status`. kLocked names
/// the process that does this already.
class Worker {
 public:
  Worker(const View& view, const Context& context, WorkerOptions options)
      : view_(view),
        context_(context),
        options_(std::move(options)),
        generations_(context.generations(view)) {}

  /// Until the context's stop is asked (no error), or as `until_caught_up` says; kCancelled if stop
  /// was asked before that.
  Result<void> run();

 private:
  Result<void> keep_following();
  Result<void> follow();
  Result<void> ended() const;
  Result<bool> tables_are_known() const;
  Result<bool> wait_for_tables();
  Result<void> open_live();
  Result<bool> begin();
  Error fenced_off();
  Result<void> take(Batch& batch);
  Result<void> begin_again();
  Result<void> commit(bool at_once = false);
  Result<void> settle(Offset read_to, bool at_once);
  void remember_failure(const Error& error) noexcept;
  void pause_after(const Error& error);
  void goes_well();
  bool stopping() const { return context_.stop.stop_requested(); }
  bool is_to_end() const { return options_.until_caught_up || options_.finish.stop_requested(); }

  const View& view_;
  const Context& context_;
  const WorkerOptions options_;
  const Generations generations_;
  std::uint32_t generation_ = 0;
  std::string switch_;  ///< To that generation.
  std::unique_ptr<sqlite::Database> database_;
  std::unique_ptr<Fold> fold_;
  std::unique_ptr<LogReader> reader_;
  std::unique_ptr<Mirror> mirror_;   ///< Of a view with a sink.
  std::unique_ptr<FileLock> shown_;  ///< Held once a view in memory is shown.
  bool replaced_ = false;            ///< The file was, when it was last looked at.
  bool is_fenced_off_ = false;
  bool in_transaction_ = false;  ///< Of the database.
  bool whole_ = true;            ///< What was taken ends with the end of a source transaction.
  bool caught_up_ = false;       ///< As far as `until_caught_up` asks.
  std::uint64_t events_at_begin_ = 0;
  std::chrono::steady_clock::time_point began_, committed_;
  std::chrono::milliseconds pause_{0};  ///< The last one, while attempts fail; else 0.
};

}  // namespace millrace::projections
