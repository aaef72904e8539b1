#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace millrace {

/// That rows of tables be read once more: a file in the store's folder `requests`, which a running
/// capture finds within a second or two, and the next one else. It is there until the log has the
/// snapshot's beginning.
struct SnapshotRequest {
  struct Table {
    std::uint32_t oid = 0;
    std::string category;
  };
  std::string id;  ///< Hexadecimal digits: the file's name.
  std::vector<Table> tables;
  std::string where;  ///< SQL; empty for every row.
};

/// Durable on return. `id` may be empty: it gets one.
Result<std::string> save_snapshot_request(const Path& store, SnapshotRequest request,
                                          FileSystem& files = FileSystem::real());
/// Errors: kCorruption (a file that is none), kIo.
Result<std::vector<SnapshotRequest>> list_snapshot_requests(const Path& store,
                                                            FileSystem& files = FileSystem::real());
Result<void> remove_snapshot_request(const Path& store, const std::string& id,
                                     FileSystem& files = FileSystem::real());

}  // namespace millrace
