#pragma once

#include <cstdint>

#include "base/file.h"
#include "base/result.h"
#include "capture/pipeline/history_check.h"

namespace millrace {

/// What the store's log tells of `epoch`'s last transaction. Not known where its events may have
/// been compacted away, or where it lies behind a million events of others. Errors: LogReader's.
Result<HistoryCheck> known_history(const Path& store, std::uint32_t epoch, FileSystem& files);

}  // namespace millrace
