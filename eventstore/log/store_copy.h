#pragma once

#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// Says of a folder that it is a copy, and where its log ends.
inline constexpr const char* kCopyFileName = "snapshot.json";

/// Copies the log up to `log.durable` and the small files beside it to `to`, which is made, and
/// says so in a `snapshot.json` there if `mark_as_copy`. Segments below `link_below` are linked:
/// those that nobody will ever write to. Sealed files must not change meanwhile. Errors: as
/// StoreMaintenance::snapshot.
Result<StoreCopyReport> copy_store(const StoreContext& store, const LogExtent& log, const Path& to,
                                   std::uint64_t link_below, bool mark_as_copy);

}  // namespace millrace::log
