#include "projections/wait.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "eventstore/inspect.h"
#include "eventstore/log_reader.h"
#include "projections/engine/checkpoint.h"
#include "projections/engine/generations.h"
#include "projections/engine/sink_status.h"
#include "projections/memory_view.h"
#include "projections/sqlite/change_log.h"

namespace millrace::projections {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Between two looks at a view's checkpoint, which wakes nobody: at first, and at most.
constexpr auto kFirstPause = milliseconds(1);
constexpr auto kLongestPause = milliseconds(20);
/// A transaction without events moves the source's position only, which wakes no reader.
constexpr auto kStoreLook = milliseconds(50);

class Wait {
 public:
  Wait(const ViewPlace& place, std::optional<milliseconds> timeout, const std::stop_token& stop)
      : place_(place), generations_(place.views, place.view), stop_(stop) {
    if (timeout) end_ = steady_clock::now() + *timeout;
  }

  /// Nothing if the time was over first.
  Result<std::optional<Offset>> offset_of(Lsn lsn) {
    MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(place_.store));
    for (;;) {
      // The position before the end: what is captured up to there has its events below it.
      MILLRACE_ASSIGN_OR_RETURN(const StoreSummary store, summarize_store(place_.store));
      if (store.source && store.source->end >= lsn.value)
        return std::optional(reader->durable_end());
      MILLRACE_ASSIGN_OR_RETURN(const bool goes_on, pause(kStoreLook));
      if (!goes_on) return std::optional<Offset>();
    }
  }

  Result<bool> until_folded(Offset offset) {
    milliseconds length = kFirstPause;
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(const bool folded, has_folded(offset));
      if (folded) return true;
      MILLRACE_ASSIGN_OR_RETURN(const bool goes_on, pause(length));
      if (!goes_on) return false;
      length = std::min(2 * length, kLongestPause);
    }
  }

 private:
  /// False also while there is no live file yet.
  Result<bool> has_folded(Offset offset) {
    MILLRACE_ASSIGN_OR_RETURN(const auto live, generations_.live());
    if (!live) {
      MILLRACE_ASSIGN_OR_RETURN(const std::string failure, generations_.first_failure());
      return still_going(failure);
    }
    if (!database_ || live != generation_) {
      MILLRACE_ASSIGN_OR_RETURN(database_, sqlite::Database::open(generations_.file(*live),
                                                                  sqlite::Mode::kReadOnly, stop_));
      generation_ = live;
    }
    MILLRACE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, read_checkpoint(*database_));
    MILLRACE_ASSIGN_OR_RETURN(const auto shown, internal::read_shown(*database_));
    if (shown) {
      MILLRACE_ASSIGN_OR_RETURN(const bool is_shown, generations_.is_shown());
      return is_shown && *shown >= offset ? Result<bool>(true) : still_going(checkpoint.failure);
    }
    if (checkpoint.offset >= offset) return sink_shows(offset);
    return still_going(checkpoint.failure);
  }

  /// True also where the view has no sink.
  Result<bool> sink_shows(Offset offset) {
    MILLRACE_ASSIGN_OR_RETURN(const auto head, sqlite::read_change_log_head(*database_));
    if (!head) return true;
    const auto status = read_sink_status(generations_.sink_status());
    if (!status) return still_going({});
    if (status->shown && status->shown->lineage == head->lineage && status->shown->offset >= offset)
      return true;
    return still_going(status->failure);
  }

  /// False, unless nobody is there to make it true.
  Result<bool> still_going(const std::string& failure) {
    if (failure.empty()) return false;
    MILLRACE_ASSIGN_OR_RETURN(const std::string worker, generations_.worker());
    if (!worker.empty()) return false;  // it tries again
    return Error(ErrorCode::kFailedPrecondition,
                 "view " + place_.view + " has stopped: " + failure);
  }

  /// False if the time is over.
  Result<bool> pause(milliseconds length) {
    std::unique_lock lock(mutex_);
    const auto now = steady_clock::now();
    if (end_ && now >= *end_) return false;
    const auto until = end_ ? std::min(*end_, now + length) : now + length;
    woken_.wait_until(lock, stop_, until, [] { return false; });
    if (stop_.stop_requested())
      return Error(ErrorCode::kCancelled, "stopped while waiting for view " + place_.view);
    return true;
  }

  const ViewPlace& place_;
  const Generations generations_;
  const std::stop_token stop_;
  std::optional<steady_clock::time_point> end_;
  std::optional<std::uint32_t> generation_;
  std::unique_ptr<sqlite::Database> database_;
  std::mutex mutex_;
  std::condition_variable_any woken_;  // by stop only
};

}  // namespace

Result<bool> wait_until_folded(const ViewPlace& place, const WaitTarget& target,
                               std::optional<std::chrono::milliseconds> timeout,
                               const std::stop_token& stop) {
  Wait wait(place, timeout, stop);
  MILLRACE_ASSIGN_OR_RETURN(const StoreSummary store, summarize_store(place.store));
  Offset offset = store.durable_end;
  if (target.offset) {
    if (*target.offset > store.durable_end)
      return Error(ErrorCode::kInvalidArgument, "offset " + std::to_string(target.offset->value) +
                                                    " is beyond the store's end, " +
                                                    std::to_string(store.durable_end.value))
          .hint("Everything below an offset is waited for: give the one after the last event's.");
    offset = *target.offset;
  } else if (target.lsn) {
    MILLRACE_ASSIGN_OR_RETURN(const auto reached, wait.offset_of(*target.lsn));
    if (!reached) return false;
    offset = *reached;
  }
  return wait.until_folded(offset);
}

}  // namespace millrace::projections
