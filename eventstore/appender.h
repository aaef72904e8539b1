#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "eventstore/types.h"

namespace millrace {

/// What a stream must look like for an append to it to happen: optimistic concurrency.
struct ExpectedVersion {
  enum class Kind : std::uint8_t { kAny, kNone, kExact };
  Kind kind = Kind::kAny;
  std::uint64_t version = 0;  ///< Of the stream's last event; kExact only.

  static constexpr ExpectedVersion any() { return {}; }
  /// The stream has no event yet.
  static constexpr ExpectedVersion none() { return {.kind = Kind::kNone}; }
  static constexpr ExpectedVersion exact(std::uint64_t version) {
    return {.kind = Kind::kExact, .version = version};
  }
};

/// A domain event on its way in. The views need to live only until the call that takes them
/// returns.
struct NewStreamEvent {
  std::string_view type = {};      ///< "ItemAdded": 1 to kCategoryBytesMax bytes.
  std::string_view payload = {};   ///< Opaque.
  std::string_view metadata = {};  ///< As EventMetadata encodes it, or empty.
};

/// What one append adds to one stream. Without events it only checks the version.
struct StreamAppend {
  StreamName stream = {};
  ExpectedVersion expected = {};
  std::span<const NewStreamEvent> events = {};
};

/// One append: to one stream or to several at once, all or nothing.
struct AppendRequest {
  std::span<const StreamAppend> streams = {};  ///< Each stream once.
  /// Up to kIdempotencyKeyBytesMax bytes that name this append, so that it can be sent again when
  /// its outcome is not known; empty for none.
  std::string_view idempotency_key = {};
};

struct AppendResult {
  Offset first;  ///< Of its first event.
  Offset end;    ///< After its last event.
  /// For each stream of the request, in its order: the version that its next event will have.
  std::vector<std::uint64_t> next_versions;
  /// An earlier append had the same idempotency key: this is its result, nothing was added.
  bool repeated = false;
};

inline constexpr std::size_t kIdempotencyKeyBytesMax = 256;
/// All events of one append together: it is built in memory.
inline constexpr std::size_t kAppendBytesMax = 256u << 20;

/// Takes appends to streams: a store that this process holds, or the way to the process that does.
class Appender {
 public:
  virtual ~Appender() = default;

  /// Appends as one unit and returns when it is durable. Each event gets the next version of its
  /// stream, counted from 0; events that were added without one (NewEvent::versioned), such as
  /// captured changes, count for none.
  ///
  /// A request whose idempotency key is in the log already gives the result of the append that
  /// wrote it, whatever the versions are now; keys are known for as long as the log holds the
  /// append's first event.
  ///
  /// Errors, nothing appended: kConflict (a stream is not at its expected version; the message says
  /// where it is), kInvalidArgument (a name, an event or the whole is over a limit, no events, a
  /// stream named twice, an idempotency key that was used for other streams), kGone (it was done
  /// before, but of what it wrote to one of its streams nothing is left, or some was erased; where
  /// all of its first batch was erased the key went with it, and this is a new append), what
  /// poisoned the store. Outcome unknown, so repeat with an idempotency key: kUnavailable.
  /// Threads: any.
  virtual Result<AppendResult> append_durably(const AppendRequest& request) = 0;
};

}  // namespace millrace
