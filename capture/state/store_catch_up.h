#pragma once

#include <chrono>
#include <stop_token>

#include "base/file.h"
#include "base/result.h"
#include "capture/postgres/catalog.h"
#include "capture/source_state.h"

namespace millrace {

/// Waits until `store` holds every captured transaction that was committed before this call.
///
/// Where no capture reads the slot, the slot itself is asked whether anything is missing: what was
/// committed since may be of no captured table. Errors: kFailedPrecondition (something is missing,
/// and nobody fetches it), kUnavailable (`limit` passed), kCancelled.
Result<void> wait_for_store(Catalog& catalog, const Path& store, const SourceState& state,
                            std::chrono::milliseconds limit, const std::stop_token& stop);

}  // namespace millrace
