#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "eventstore/event_store.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"

// A sealed segment is written anew with less in it, beside the old one, and takes its name in one
// step. What stays keeps its offset, its place in its transaction and the header of its batch; the
// first and last flags move to the first and last batch that stay. A transaction that crosses a
// border of the segment keeps a batch on this side of it, an empty one if need be, so that the
// segments beside it stay right whichever generation they are of.
namespace millrace::log {

/// What shall become of an event.
struct Verdict {
  enum class Kind : std::uint8_t {
    kKeep,
    kSuperseded,  ///< Newer events of its key or category stand for it.
    kRemoved,     ///< Gone for good; `removal` says why.
    kCompleted,   ///< Kept with `payload`, and not partial any more.
  };
  Kind kind = Kind::kKeep;
  RemovalKind removal = RemovalKind::kExpired;
  std::string_view payload{};  ///< Lives until the next call.
};
using Judge = std::function<Result<Verdict>(const EventView& event, const Batch& batch)>;

/// Told what goes for good with the new generation, and how to put it in place.
using AroundSwap = std::function<Result<void>(const std::vector<Removal>& removed,
                                              const std::function<Result<void>()>& swap)>;

/// So many bytes are read between two calls of a pace.
inline constexpr std::uint64_t kPaceBytes = 1 << 20;

struct RewriteOptions {
  FileSystem* files = nullptr;
  Clock* clock = nullptr;
  Compression compression = Compression::kZstd;
  /// Called about every MiB with the bytes read since: to go slowly, to stop.
  std::function<Result<void>(std::uint64_t)> pace{};
  /// Asked of a batch with an idempotency key after its events were judged: whether the key goes,
  /// all but what knows it again. If nothing of the batch stays, nothing of its key does.
  std::function<bool(const Batch&)> forgets_key{};
  /// Runs around the step that makes the new generation the segment: to keep others out.
  AroundSwap around_swap{};
};

struct RewriteReport {
  std::uint64_t bytes_before = 0, bytes_after = 0;
  std::uint64_t events_kept = 0, events_removed = 0, events_completed = 0, keys_forgotten = 0;
  bool changes() const { return events_removed + events_completed + keys_forgotten != 0; }
  std::vector<Removal> removed{};  ///< What went for good with this generation.
};

/// Puts a new generation of the sealed segment `segment` in its place, durably. `next` is the
/// segment after it. A segment of which everything stays is left alone.
///
/// Whenever it is interrupted, the segment is the old one or the new one. Readers that have the old
/// one open finish on it. Errors: those of `judge` and `pace`; kCorruption (one of the two segments
/// is damaged), kNoSpace, kIo: nothing was changed, or all was and is not known to be durable.
Result<RewriteReport> rewrite_segment(const StorePaths& paths, const StoreId& store,
                                      std::uint64_t segment, std::uint64_t next, const Judge& judge,
                                      const RewriteOptions& options);

}  // namespace millrace::log
