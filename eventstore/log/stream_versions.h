#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/appender.h"

namespace millrace::log {

/// What the writer must know of streams to append to them: the version that each one's next event
/// gets, and the appends that had an idempotency key.
///
/// Threads: one at a time.
class StreamVersions {
 public:
  StreamVersions(FileSystem& files, Path store) : files_(files), store_(std::move(store)) {}

  /// Reads the log, the first time. Everything that is in it by then must be durable, as far as it
  /// has versions. Errors: as LogReader.
  Result<void> load();

  std::uint64_t next_version(const StreamName& stream);
  /// The result of the append that had `idempotency_key`, if one did. Errors: kInvalidArgument (it
  /// was for other streams than `request` is).
  Result<std::optional<AppendResult>> find_append(const AppendRequest& request);
  /// Takes note of an append that is in the log now.
  void note(const AppendRequest& request, const AppendResult& result);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view bytes) const {
      return std::hash<std::string_view>()(bytes);
    }
  };
  template <typename Value>
  using Table = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;

  struct KeyedAppend {
    Offset first, end;
    std::vector<std::pair<std::string, std::uint64_t>> next_versions;  // by stream
  };

  std::string_view name_of(const StreamName& stream);
  void set(std::string_view name, std::uint64_t next_version);

  FileSystem& files_;
  Path store_;
  bool loaded_ = false;
  Table<std::uint64_t> versions_;  // of the next event
  Table<KeyedAppend> appends_;
  std::string name_;  // the last that name_of() gave
};

}  // namespace millrace::log
