#pragma once

#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// Says of a folder that it is a copy, and where its log ends.
inline constexpr const char* kCopyFileName = "snapshot.json";

/// Copies the log up to `log.durable` and the small files beside it to `to`, which is made, and
/// says so in a `snapshot.json` there if `mark_as_copy`. Sealed files are linked if `may_link`.
/// Sealed files must not change meanwhile. Errors: as StoreMaintenance::snapshot.
Result<StoreCopyReport> copy_store(const StoreContext& store, const LogExtent& log, const Path& to,
                                   bool may_link, bool mark_as_copy);

}  // namespace millrace::log
