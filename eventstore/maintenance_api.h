#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"

namespace millrace {

/// Completes a partial event: gives the payload of `newer` with what only `older` holds, or nothing
/// if they do not fit together. `older` is complete. Must not throw. Threads: the one that
/// compacts.
using MergeFunction = std::function<Result<std::optional<std::string>>(
    std::string_view category, std::string_view older, std::string_view newer)>;

/// True if what completes a partial event lies under another key: the row was moved there. Must not
/// throw. Threads: the one that compacts.
using IsMovedFunction = std::function<bool(std::string_view category, std::string_view payload)>;

/// How a store's partial events get complete.
struct PartialEvents {
  /// Without it older events of a key stay as long as its latest one is partial.
  MergeFunction merge{};
  /// While a key's oldest event is partial and moved, all of its category before that stays.
  /// Without this function every key whose oldest event is partial counts as moved.
  IsMovedFunction is_moved{};
};

struct MaintenanceProgress {
  std::uint64_t done_bytes = 0;   ///< Read so far.
  std::uint64_t total_bytes = 0;  ///< As far as it is known by now.
};
/// Called about every MiB that is read, and every 50 ms while it waits, on the thread that works:
/// it holds up the work, and who waits for it. Must not throw.
using ProgressFunction = std::function<void(const MaintenanceProgress&)>;

struct CompactionReport;
struct EraseReport;

struct CompactionOptions {
  /// Tells what it would do, changes nothing.
  bool dry_run = false;
  /// A segment is rewritten if at least this share of its events' bytes would go. Lower: more space
  /// back, more writing for each byte of it.
  double dead_share_min = 0.3;
  /// About so much memory is used; less means that the log is read more often.
  std::size_t memory_bytes = 64 << 20;
  /// Of what is read; 0: as fast as it can be.
  std::uint64_t bytes_per_second = 0;
  /// Instead of StoreOptions::partials, if they are given.
  MergeFunction merge{};
  IsMovedFunction is_moved{};
  /// Mixed into the hashes of keys; nothing: a random one, so that nobody can choose keys with
  /// equal hashes. With one that is given, the same run does the same reads and writes.
  std::optional<std::uint64_t> hash_secret{};
  ProgressFunction progress{};
  /// Called after each segment that was rewritten, with what the report says so far: that stays
  /// true if the run ends with an error. Not in a dry run. As `progress` else.
  std::function<void(const CompactionReport&)> so_far{};
  /// Ends with kCancelled, between two events; what was rewritten by then stays so.
  std::stop_token stop{};
};

/// What went for good, by category and reason.
struct RemovedEvents {
  std::string category;
  std::string reason;  ///< "expired", "erased", or "tombstone" (past its grace).
  Offset first, last;
  std::uint64_t count = 0;
  bool operator==(const RemovedEvents&) const = default;
};

struct RewrittenSegment {
  std::string file;  ///< Name within log/.
  std::uint64_t bytes_before = 0, bytes_after = 0;
  std::uint64_t events_removed = 0, events_completed = 0;
};

struct CompactionReport {
  std::size_t segments = 0;                 ///< That could have been rewritten: all but the newest.
  std::size_t passes = 0;                   ///< How often the log was read to decide.
  std::uint64_t bytes_read = 0;             ///< To decide and to rewrite.
  std::vector<RewrittenSegment> rewritten;  ///< In a dry run: what would be; bytes are estimates.
  std::vector<RemovedEvents> removed;
};

/// What happens when retention would remove events that a consumer (consumers.h) has not read.
enum class ConsumerPolicy : std::uint8_t {
  kHold,  ///< They stay until it has; so one that never comes back fills the disk.
  kLose,  ///< They go; its next read ends with OFFSET_GONE and says what is missing.
};

/// One whose events shall go.
struct EntityToErase {
  std::string_view key;
  /// Tells readers that the entity is gone: its payload and type. The tombstone flag is added.
  std::string_view tombstone_type = {}, tombstone_payload = {};
};

inline constexpr std::size_t kErasedAtOnceMax = 1'000;

struct EraseRequest {
  std::string_view category;
  std::span<const EntityToErase> entities;  ///< 1 to kErasedAtOnceMax, each key once.
};

struct ErasedEntity {
  std::string key;
  Offset tombstone;
  /// That are gone, a tombstone of a call that was ended before counted in, ...
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;  ///< ... of keys, payloads and metadata, ...
  Offset first, last;       ///< ... and where they were, if there were any.
};

struct EraseReport {
  std::size_t segments = 0;  ///< All sealed ones; each that held one of the keys was rewritten.
  std::size_t segments_rewritten = 0;
  std::vector<ErasedEntity> entities;  ///< As in the request.
  std::uint64_t events() const;        ///< Of all of them.
  std::uint64_t bytes() const;
};

struct EraseOptions {
  ProgressFunction progress{};
  /// As CompactionOptions::so_far.
  std::function<void(const EraseReport&)> so_far{};
  /// Ends with kCancelled, at the latest after a MiB more once it has begun; another call goes on.
  std::stop_token stop{};
};

struct CopyOptions {
  ProgressFunction progress{};
  /// Ends with kCancelled, at the latest after a MiB more once it has begun, and leaves no copy.
  std::stop_token stop{};
};

struct StoreCopyReport {
  Offset end;  ///< After its last event.
  std::size_t segments = 0;
  std::size_t linked = 0;  ///< Of its files; they take no space of their own.
  std::uint64_t copied_bytes = 0;
};

/// The report of two runs of which the second went on where the first one was ended.
CompactionReport together(CompactionReport first, const CompactionReport& second);
EraseReport together(const EraseReport& first, EraseReport second);
/// Adds to what a report tells of the same category and reason.
void add_removed(const RemovedEvents& more, std::vector<RemovedEvents>& to);

/// What is done to a store as a whole: by the process that holds it.
///
/// Threads: any; one operation at a time, the others wait. None of them disturbs appending or
/// readers. An error here does not poison the store.
class StoreMaintenance {
 public:
  virtual ~StoreMaintenance() = default;

  /// Takes out what the policies (policy.h) say, segment by segment. The newest events, those that
  /// are not in a sealed segment, stay in any case. Wherever it is interrupted, each segment is the
  /// old one or the new one and every reader sees the same latest state of each key.
  /// Errors: kCancelled, kCorruption (a segment is damaged; those before it are done), kNoSpace,
  /// kIo.
  virtual Result<CompactionReport> compact(const CompactionOptions& options) = 0;

  /// Removes every event of some entities from the log's files and leaves a tombstone for each at
  /// its end, so that readers forget them too. Others keep their offsets. The idempotency keys of
  /// the appends that wrote these events go, too: where such an append wrote to others as well, a
  /// hash of its key stays with that, so that it is not made again (see Appender). On return, no
  /// file of the log holds any of it but the tombstones' keys, and every reader of streams in any
  /// process closes files that do when it is used next; a LogReader that is in the middle of one
  /// finishes it. A snapshot of the store that was made before still holds it, as do events of
  /// other keys that tell of it. After an error, or a crash, call it again: what is reported then
  /// is what that call removed.
  /// The cost is that of one entity: the segments that hold any of them are rewritten once.
  /// Errors: kInvalidArgument (a category of the store's own, no entity or too many, a key twice),
  /// kUnavailable (a transaction stays open too long for the newest segment to be sealed),
  /// kCancelled, kCorruption, kNoSpace, kIo.
  virtual Result<EraseReport> erase(const EraseRequest& request,
                                    const EraseOptions& options = {}) = 0;

  /// Makes a copy of the whole store, as of now, in the directory `to`, which is made; its sealed
  /// segments are hard links where the file system has them. Appends and readers go on meanwhile;
  /// rewritten segments and changes of consumers wait for it.
  /// The copy is a store that can be read, and what `restore_store` takes.
  /// Errors: kFailedPrecondition (`to` is there and not empty), kNotFound (the folder above it is
  /// missing), kCancelled, kNoSpace, kIo: what was made in `to` is removed again as far as that
  /// goes, and is no store.
  virtual Result<StoreCopyReport> snapshot(const Path& to, const CopyOptions& options = {}) = 0;

  /// Makes a consumer known at `offset`. Errors: kInvalidArgument (its name; an offset beyond the
  /// durable end), kConflict (there is one of that name), kNoSpace, kIo.
  virtual Result<void> register_consumer(std::string_view name, Offset offset,
                                         ConsumerPolicy policy) = 0;
  /// Durable on return. Errors: kNotFound, kInvalidArgument (backwards, or beyond the durable end),
  /// kGone (it has lost events), kNoSpace, kIo.
  virtual Result<void> advance_consumer(std::string_view name, Offset offset) = 0;
  /// Errors: kNotFound, kIo.
  virtual Result<void> remove_consumer(std::string_view name) = 0;
};

}  // namespace millrace
