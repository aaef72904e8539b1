#pragma once

#include <string>

#include "projections/engine/context.h"

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
  std::uint64_t lag = 0;  ///< Events of the log, of any table, that are not folded yet.
  std::uint64_t rows = 0;
  std::uint64_t bytes = 0;  ///< Of the generation's file.
};

/// Beside a running worker or without one; changes nothing. Errors are those of the store; what is
/// wrong with the view is in the status.
Result<ViewStatus> status_of(const View& view, const Context& context);

/// One JSON object.
std::string to_json(const ViewStatus& status);

}  // namespace millrace::projections
