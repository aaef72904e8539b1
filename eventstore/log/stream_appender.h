#pragma once

#include <functional>

#include "base/clock.h"
#include "eventstore/appender.h"
#include "eventstore/log/batch_builder.h"
#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/stream_versions.h"

namespace millrace::log {

/// Makes transactions of append requests: checks them, gives versions, encodes. Threads: one at a
/// time, but for check().
class StreamAppender {
 public:
  /// Gives an encoded transaction its place at the end of the log; gives the offset after it.
  using Place = std::function<Result<Offset>(BatchBuilder& builder, ByteBuffer& batches)>;

  StreamAppender(StreamVersions& versions, Clock& clock, std::size_t batch_bytes)
      : clock_(clock), versions_(versions), builder_(batches_, clock), batch_bytes_(batch_bytes) {}

  /// Errors: kInvalidArgument.
  static Result<void> check(const AppendRequest& request);
  /// Takes a request that check() passed. Errors: as Appender, and those of `place`.
  Result<AppendResult> append(const AppendRequest& request, const Place& place);
  /// Takes events within the limits that end their streams, each another one, as one transaction;
  /// gives the offset after it. One has a version if its stream has versions, so that they go on
  /// behind it.
  Result<Offset> append_tombstones(std::span<const NewEvent> events, const Place& place);

 private:
  Result<std::vector<std::uint64_t>> first_versions(const AppendRequest& request);

  Clock& clock_;
  StreamVersions& versions_;
  ByteBuffer batches_;
  BatchBuilder builder_;
  const std::size_t batch_bytes_;
};

/// Errors: kInvalidArgument (over a limit of types.h).
Result<void> check_limits(const NewEvent& event);

}  // namespace millrace::log
