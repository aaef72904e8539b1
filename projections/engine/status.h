#pragma once

#include <optional>
#include <string>

#include "projections/engine/context.h"
#include "projections/engine/quarantine.h"
#include "projections/engine/sink_status.h"

namespace millrace::projections {

struct ViewStatus {
  std::string view;
  /// "running", "retrying" (the worker waits for an error to pass), "stopped", "failed" (the worker
  /// had to stop), "unmade", "refused" (does not belong to this store or program), "unreadable".
  std::string state;
  std::string reason;  ///< Of retrying, failed, refused and unreadable.
  std::string worker;  ///< Who keeps it up to date; empty if nobody.
  std::uint32_t generation = 0;
  Checkpoint checkpoint;
  Offset store_end;
  /// Events of the log, of any table, that are not folded yet; of a view in memory those that are
  /// not shown.
  std::uint64_t lag = 0;
  std::optional<std::uint64_t> rows;  ///< Where they were to be counted.
  std::uint64_t bytes = 0;            ///< Of the generation's file.
  std::optional<Offset> shown;        ///< Of a view in memory, while a process shows it.
  std::optional<SinkStatus> sink;     ///< Of a view with one, as its worker last knew it.
  QuarantineCounts quarantine{};      ///< The view is degraded while keys are set aside.
};

/// `count_rows` reads the whole view, all else is told at once.
struct StatusOptions {
  bool count_rows = false;
};

/// Beside a running worker or without one; changes nothing. Errors are those of the store; what is
/// wrong with the view is in the status.
Result<ViewStatus> status_of(const View& view, const Context& context,
                             const StatusOptions& options = {});

/// One JSON object.
std::string to_json(const ViewStatus& status);

}  // namespace millrace::projections
