#pragma once

#include <functional>

#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// Removes the events of one entity below `tombstone` from all sealed segments, in which everything
/// below it lies. `around_swap` as in RewriteOptions.
Result<EraseReport> erase_events(const StoreContext& store, const LogExtent& log,
                                 const EraseRequest& request, Offset tombstone,
                                 const EraseOptions& options, const AroundSwap& around_swap);

}  // namespace millrace::log
