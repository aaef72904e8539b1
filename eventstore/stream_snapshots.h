#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

namespace millrace {

/// The state of a stream as some fold of its events, kept so that the next one to need it need not
/// fold them all.
struct StreamSnapshot {
  std::uint64_t version = 0;      ///< Of the last event in it.
  Offset offset;                  ///< Of that event: a snapshot of another history is not taken.
  std::uint64_t fingerprint = 0;  ///< Of the fold that made it; another one's is not taken.
  std::string state;              ///< Opaque.
  bool operator==(const StreamSnapshot&) const = default;
};

/// The fingerprint of a fold that its author calls `fold`, of streams of `category`.
std::uint64_t snapshot_fingerprint(std::string_view category, std::string_view fold);

/// The latest snapshot of each stream, in the store's folder `snapshots`.
///
/// A cache: one that is missing, damaged or of another store or fold is as if it had never been
/// made, and none is ever needed. Threads and processes: any; the last save wins.
class StreamSnapshots {
 public:
  StreamSnapshots(Path store, const StoreId& id, FileSystem& files = FileSystem::real())
      : store_(std::move(store)), id_(id), files_(&files) {}

  /// Errors: kNoSpace, kIo, kNotFound (who opened or erased just then took it for a leftover); the
  /// snapshot before is then still there.
  Result<void> save(const StreamName& stream, const StreamSnapshot& snapshot) const;
  /// Nothing if there is none that was made by the fold `fingerprint`. Errors: kIo.
  Result<std::optional<StreamSnapshot>> load(const StreamName& stream,
                                             std::uint64_t fingerprint) const;
  /// Durably, also what a save that was interrupted left; fine if there is none. Errors: kIo.
  Result<void> remove(const StreamName& stream) const;
  /// Removes what saves of any stream left that were interrupted. Errors: kIo.
  Result<void> remove_leftovers() const;

 private:
  Path folder() const { return store_ / "snapshots"; }
  Path path_of(const StreamName& stream) const;
  Result<void> remove_file(const Path& file) const;

  Path store_;
  StoreId id_;
  FileSystem* files_;
};

}  // namespace millrace
