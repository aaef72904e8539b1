#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "eventstore/appender.h"
#include "eventstore/log/stream_lookup.h"

namespace millrace::log {

/// What the writer must know of streams to append to them: the version that each one's next event
/// gets, and the appends that had an idempotency key.
///
/// The log knows it, but only what is durable is looked up there; what was appended since, and what
/// was asked for lately, is in memory. Threads: any; who appends keeps others from it from his
/// first question until note(). Errors: as LogReader.
class StreamVersions {
 public:
  /// In memory: more than this is forgotten again once it is durable.
  static constexpr std::size_t kRecentMax = 100'000;

  StreamVersions(FileSystem& files, Path store, std::size_t recent_max = kRecentMax)
      : files_(files), store_(std::move(store)), recent_max_(recent_max) {}

  Result<std::uint64_t> next_version(const StreamName& stream);
  /// The result of the append that had the request's idempotency key, if one did. Errors too:
  /// kInvalidArgument (it was to other streams than `request` is), kGone (some of it was erased, or
  /// what it wrote to one of them is not in the log any more).
  Result<std::optional<AppendResult>> find_append(const AppendRequest& request);
  /// Takes note of an append that is in the log now.
  void note(const AppendRequest& request, const AppendResult& result);
  /// The version of the next event that a transaction adds while it is open: next_version(), and
  /// one more for each that it was given before. Others are told of them by keep_given() only,
  /// which comes right before the transaction's events are at `end`; drop_given() forgets them.
  Result<std::uint64_t> give(const StreamName& stream);
  void keep_given(Offset end);
  void drop_given();
  /// Takes into memory what next_version() would look up, so that who appends need not wait for it.
  Result<void> learn(const StreamName& stream);
  /// Lets go of old generations of segments that were replaced, and of appends that may have been
  /// erased with them. The log is durable up to `durable`.
  void drop_replaced(const LogMark& durable);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view bytes) const {
      return std::hash<std::string_view>()(bytes);
    }
  };
  template <typename Value>
  using Table = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;

  struct Version {
    std::uint64_t next = 0;
    Offset end;  ///< The log's, when it was that.
  };
  struct KeyedAppend {
    Offset first, end;
    std::vector<std::pair<std::string, std::uint64_t>> next_versions;  // by stream
    /// Of one that was read from the log, which may have lost some of it: what comes behind it
    /// begins here or before.
    std::optional<Offset> end_max{};
    bool erased = false;  ///< Some of it: only `first` is known.

    const std::pair<std::string, std::uint64_t>* find(std::string_view name) const;
  };

  Result<std::uint64_t> find_next(const StreamName& stream) MILLRACE_REQUIRES(mutex_);
  Result<void> look_up() MILLRACE_REQUIRES(mutex_);
  Result<void> forget_durable() MILLRACE_REQUIRES(mutex_);
  Result<std::optional<KeyedAppend>> look_up_append(std::string_view idempotency_key)
      MILLRACE_REQUIRES(mutex_);
  Result<KeyedAppend> read_append(Offset first) MILLRACE_REQUIRES(mutex_);
  Result<AppendResult> result_of(const KeyedAppend& append, const AppendRequest& request)
      MILLRACE_REQUIRES(mutex_);
  Result<Error> gone(const KeyedAppend& append, const AppendRequest& request)
      MILLRACE_REQUIRES(mutex_);
  Result<std::string> what_became_of(const StreamName& stream, Offset from, Offset end)
      MILLRACE_REQUIRES(mutex_);
  void set(std::string_view name, std::uint64_t next, Offset end) MILLRACE_REQUIRES(mutex_);

  FileSystem& files_;
  const Path store_;
  const std::size_t recent_max_;
  Mutex mutex_;
  std::unique_ptr<StreamLookup> lookup_ MILLRACE_GUARDED_BY(mutex_);  // once it was needed
  Table<Version> versions_ MILLRACE_GUARDED_BY(mutex_);
  Table<std::uint64_t> given_ MILLRACE_GUARDED_BY(mutex_);  // next ones, of the open transaction
  Table<KeyedAppend> appends_ MILLRACE_GUARDED_BY(mutex_);
  std::string name_ MILLRACE_GUARDED_BY(mutex_);
};

}  // namespace millrace::log
