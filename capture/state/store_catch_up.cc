#include "capture/state/store_catch_up.h"

#include <spdlog/spdlog.h>

#include <condition_variable>
#include <mutex>

#include "base/progress.h"
#include "capture/pipeline/change_encoder.h"
#include "eventstore/inspect.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLook{50};

/// False once `stop` was asked.
bool pause(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, kLook, [] { return false; });
  return !stop.stop_requested();
}

std::string positions(const SourcePosition& source, Lsn target) {
  return "the store ends at " + to_string(Lsn{source.end}) + ", the source at " + to_string(target);
}

/// Nobody reads the slot: whether something is in it tells the slot.
Result<void> ask_slot(Catalog& catalog, const SourceState& state, const SourcePosition& source,
                      Lsn target) {
  auto behind = catalog.has_changes_behind(state.slot, state.publication, Lsn{source.commit});
  if (behind && !*behind) return {};
  Error error(ErrorCode::kFailedPrecondition,
              positions(source, target) + ", and no capture is running that would fetch the rest");
  if (!behind)
    return std::move(error).hint(
        "The slot can't tell what is missing (" + behind.error().message() +
        "). Start `millrace capture run`; where that halts it names the way out.");
  return std::move(error).hint(
      "Start `millrace capture run`, or run it once with --until-caught-up, then verify again.");
}

}  // namespace

Result<void> wait_for_store(Catalog& catalog, const Path& store, const SourceState& state,
                            milliseconds limit, const std::stop_token& stop) {
  MILLRACE_ASSIGN_OR_RETURN(const Lsn target, catalog.flushed_position());
  // Something beyond it that capture answers soon, so that nobody waits for its idle interval.
  MILLRACE_RETURN_IF_ERROR(catalog.execute("SELECT pg_logical_emit_message(true, '" +
                                           std::string(kOwnMessagePrefix) + "', '" +
                                           std::string(kConfirmMessage) + "')"));
  const auto deadline = std::chrono::steady_clock::now() + limit;
  Progress progress("wait for capture", 0, ProgressUnit::kBytes);
  std::uint64_t began = 0;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const StoreSummary summary, summarize_store(store));
    if (!summary.source || summary.source->epoch != state.epoch)
      return Error(ErrorCode::kFailedPrecondition,
                   "the store has no position of the slot " + state.slot + " that it is fed from")
          .hint("Start `millrace capture run`; where that halts it names the way out.");
    if (Lsn{summary.source->end} >= target) return {};
    if (began == 0) began = summary.source->end;
    progress.update(summary.source->end - began, target.value - began);
    MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog.slot(state.slot));
    if ((!slot || !slot->active) && summary.writer.empty())
      return ask_slot(catalog, state, *summary.source, target);
    if (std::chrono::steady_clock::now() > deadline)
      return Error(ErrorCode::kUnavailable,
                   positions(*summary.source, target) + ": capture has not caught up in time")
          .hint("Give it longer with --wait, or look at its log.");
    if (!pause(stop)) return Error(ErrorCode::kCancelled, "asked to stop");
  }
}

}  // namespace millrace
