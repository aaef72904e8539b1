#pragma once

#include "base/result.h"
#include "eventstore/types.h"
#include "projections/change.h"

namespace millrace::projections {

/// Takes a domain event or a logical message apart, without copying: `into` has views of `event`. A
/// stream that was erased is an Op::kDelete.
///
/// kUnsupported for a change of a table, kCorruption if a message's payload is none.
Result<void> decode_event(const EventView& event, const TransactionInfo& transaction,
                          internal::RawChange& into);

}  // namespace millrace::projections
