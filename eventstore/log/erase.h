#pragma once

#include <functional>

#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// Removes the events of some entities from all sealed segments, in which everything below their
/// tombstones lies; these follow one another from `tombstones` on. `around_swap` as in
/// RewriteOptions.
Result<EraseReport> erase_events(const StoreContext& store, const LogExtent& log,
                                 const EraseRequest& request, Offset tombstones,
                                 const EraseOptions& options, const AroundSwap& around_swap);

}  // namespace millrace::log
