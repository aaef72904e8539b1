#pragma once

#include "projections/engine/build.h"
#include "projections/engine/comparison.h"
#include "projections/engine/context.h"

namespace millrace::projections {

/// Computes the view once more from offset zero to the live one's checkpoint, in a file of its own,
/// and compares the two row by row. A worker may go on meanwhile: the live view is read in one read
/// transaction. Events that wait in the live view's quarantine, or were skipped, are left out.
///
/// kNotFound if the view was never made. kFailedPrecondition if the program declares another view
/// than the file holds.
Result<VerifyReport> verify_view(const View& view, const Context& context,
                                 const BuildHooks& hooks = {});

}  // namespace millrace::projections
