#pragma once

#include <memory>

#include "base/result.h"
#include "eventstore/log_reader.h"
#include "projections/engine/checkpoint.h"
#include "projections/engine/context.h"
#include "projections/view.h"

namespace millrace::projections {

/// A reader of what `view` has still to fold, if it can go on from `checkpoint`.
///
/// kFailedPrecondition where check_continuation() says no, or where the log holds another
/// transaction in place of the one that was folded last (CHECKPOINT_DIVERGED): an older copy of the
/// store was put back, and has grown since. That costs reading one batch. Where compaction has
/// taken it, nothing can be told.
Result<std::unique_ptr<LogReader>> continue_from(const View& view, const Context& context,
                                                 const Checkpoint& checkpoint);

}  // namespace millrace::projections
