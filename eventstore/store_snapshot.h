#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/maintenance_api.h"

// A copy of a whole store, made by StoreMaintenance::snapshot, is a folder like a store's with one
// file more: `snapshot.json` says which store it is of and where its log ends, so that a copy that
// lacks something, or has something of another one, is not taken for whole.
namespace millrace {

/// What `snapshot.json` says.
struct StoreCopy {
  StoreId store;
  Offset end;
  UnixMicros made;
};
/// Errors: kNotFound (no copy there), kCorruption.
Result<StoreCopy> read_store_copy(const Path& directory, FileSystem& files = FileSystem::real());

struct RestoreReport {
  StoreCopyReport copy;
  /// Made from their segments, because the copy's were damaged or missing: names within log/.
  std::vector<std::string> indexes_made;
};

/// Makes the store that `from` is a copy of in `to`: checks every byte of the copy first, and the
/// result after. `to` gets files of its own, no links.
/// Errors: kNotFound (there is no copy in `from`; the folder above `to` is missing), kCorruption
/// (`from` is damaged or not whole: nothing was made), kFailedPrecondition (`to` is there and not
/// empty), kNoSpace, kIo: what is in `to` then is no store.
Result<RestoreReport> restore_store(const Path& from, const Path& to,
                                    FileSystem& files = FileSystem::real(),
                                    const ProgressFunction& progress = {});

}  // namespace millrace
