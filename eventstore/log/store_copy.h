#pragma once

#include <functional>
#include <optional>
#include <set>

#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// Says of a folder that it is a copy, and where its log ends.
inline constexpr const char* kCopyFileName = "snapshot.json";

struct CopyRules {
  /// Segments below it are linked: those that nobody will ever write to.
  std::uint64_t link_below = 0;
  /// Says so in a `snapshot.json`.
  bool mark_as_copy = false;
  /// The indexes of these segments stay behind.
  std::set<std::uint64_t> without_index{};
  CopyOptions watched{};
};

/// Copies the log up to `log.durable` and the small files beside it to `to`, which is made. Sealed
/// files must not change meanwhile. Errors: as StoreMaintenance::snapshot.
Result<StoreCopyReport> copy_store(const StoreContext& store, const LogExtent& log, const Path& to,
                                   const CopyRules& rules);

/// Copies a file to one that is not there yet, durably but for its name: all of it, or `bytes`.
/// `pace` is called with the bytes of each piece. Errors also: kCorruption (it has less), those of
/// `pace`.
Result<void> copy_file(FileSystem& files, const Path& from, const Path& to,
                       std::optional<std::uint64_t> bytes = {},
                       const std::function<Result<void>(std::uint64_t)>& pace = {});

}  // namespace millrace::log
