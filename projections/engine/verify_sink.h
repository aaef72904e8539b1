#pragma once

#include "projections/engine/comparison.h"
#include "projections/engine/context.h"

namespace millrace::projections {

/// Compares a view's sink with the live file, and adds to `report`. A worker may go on with both
/// meanwhile: rows that have changed since the sink was asked where it is are left out.
///
/// kFailedPrecondition if the view was never written there; else those of the sink.
Result<void> verify_sink(const View& view, const Context& context, const Path& file,
                         VerifyReport& report);

}  // namespace millrace::projections
