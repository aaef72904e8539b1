#pragma once

#include "projections/engine/context.h"
#include "projections/view.h"

namespace millrace::projections {

/// Warns of categories of events that `view` is made of and of which the store has none, though it
/// is not empty. No error: unlike a table a stream is there from its first event on, which may be
/// still to come. But a name that is misspelt would give an empty view without a word.
void warn_of_unseen_events(const View& view, const Context& context);

}  // namespace millrace::projections
