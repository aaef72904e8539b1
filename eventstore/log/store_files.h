#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/format.h"

namespace millrace::log {

/// The names in a store's directory.
struct StorePaths {
  explicit StorePaths(Path store) : directory(std::move(store)) {}
  Path directory;
  Path description() const { return directory / "store.json"; }
  Path lock() const { return directory / "LOCK"; }
  Path head() const { return directory / "HEAD"; }
  Path log() const { return directory / "log"; }
  /// There while a repair is under way, and after one that was interrupted.
  Path repair_mark() const { return directory / "REPAIR"; }
  Path repairs() const { return directory / "repair"; }
  Path segment(std::uint64_t first) const { return log() / segment_name(first); }
  Path index(std::uint64_t first) const { return log() / index_name(first); }

  /// "00000000000000000000.log".
  static std::string segment_name(std::uint64_t first);
  /// Nothing if `name` is not that of a segment.
  static std::optional<std::uint64_t> parse_segment_name(std::string_view name);
  /// "00000000000000000000.index".
  static std::string index_name(std::uint64_t first);
  /// Nothing if `name` is not that of a segment's index.
  static std::optional<std::uint64_t> parse_index_name(std::string_view name);
};

/// store.json.
struct StoreDescription {
  StoreId id{};
  std::uint32_t version = kFormatVersion;
  UnixMicros created{};
};

/// Errors: kNotFound (no such directory or an empty one), kFailedPrecondition (something else lives
/// there), kUnsupported (newer), kCorruption.
Result<StoreDescription> read_description(FileSystem& files, const StorePaths& paths);
Result<void> write_description(FileSystem& files, const StorePaths& paths,
                               const StoreDescription& description);

/// First offsets of all segments, lowest first. Files with other names are none of ours.
Result<std::vector<std::uint64_t>> list_segments(FileSystem& files, const StorePaths& paths);

StoreId random_store_id();

}  // namespace millrace::log
