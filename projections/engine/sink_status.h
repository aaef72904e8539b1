#pragma once

#include <optional>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "projections/sink.h"

namespace millrace::projections {

/// What the process that keeps a view up to date last knew of its sink, in NAME.sink.json beside
/// the view's files, for `status` and `wait`. Not synced: the truth is in the sink.
struct SinkStatus {
  std::string where;
  std::optional<SinkCheckpoint> shown;
  std::string failure;  ///< Why it is not kept equal now; empty while all is well.
};

Result<void> write_sink_status(const Path& file, const SinkStatus& status);
/// Nothing if there is none, or none that can be read.
std::optional<SinkStatus> read_sink_status(const Path& file);

}  // namespace millrace::projections
