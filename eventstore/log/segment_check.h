#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log_reader.h"

namespace millrace::log {

/// Reads all of the next batch, its records too, and goes on behind it if it is right; else stays
/// and tells what is wrong. `scratch` is memory. Errors: kUnsupported, kIo.
Result<std::optional<std::string>> check_next_batch(SegmentReader& reader, Batch& scratch);

}  // namespace millrace::log
