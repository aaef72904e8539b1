#pragma once

#include "base/result.h"
#include "eventstore/types.h"
#include "projections/change.h"

namespace millrace {
class ByteReader;
}

namespace millrace::projections {

/// Takes the payload of a captured event (millrace.v1.Change) apart without copying the row images:
/// `into` has views of `event`. The generated parser would copy both for every event.
///
/// kCorruption if the payload is no such message, kUnsupported if it is of a kind that views don't
/// know.
Result<void> decode_change(const EventView& event, const TransactionInfo& transaction,
                           internal::RawChange& into);

/// Goes over the value of a field of any Protobuf message whose tag has just been read.
void skip_field(ByteReader& in, std::uint64_t tag);

}  // namespace millrace::projections
