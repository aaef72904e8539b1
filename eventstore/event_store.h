#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/appender.h"
#include "eventstore/maintenance_api.h"
#include "eventstore/types.h"

namespace millrace {

/// What becomes of payloads on their way to the disk.
enum class Compression : std::uint8_t {
  kNone,
  kZstd,  ///< Each batch by itself, where that makes it smaller by an eighth at least.
};

struct StoreOptions {
  /// A segment is sealed before it would become larger than this (only a single batch may). Larger:
  /// fewer files; smaller: less to read when opening. 8 KiB to 32 GiB.
  std::uint64_t segment_bytes = 128u << 20;
  /// A segment that holds so many events is sealed, too (the batch that brings them still gets into
  /// it). To make its index takes 30 bytes of memory for each. 1 or more.
  std::uint64_t segment_events = 8u << 20;
  /// Appended but not yet being written, from where on has_room() is false. Larger rides out a
  /// slower disk; costs this much memory twice, and at most three times (see add()).
  std::size_t pending_bytes_max = 8u << 20;
  /// What durable_end() promises. HEAD and `millrace status` tell which it is.
  Durability durability = Durability::kGroup;
  /// kOs: what was written is synced at least this often, besides when a segment is full and when
  /// the store is closed. Larger: fewer syncs, more that a power loss takes back.
  std::chrono::milliseconds os_sync_interval{1000};
  /// Without a request_flush(), what was appended is synced after this long (kAlways: at once) ...
  std::chrono::milliseconds flush_interval{10};
  /// ... or once this much is pending. Larger: fewer syncs, later acknowledgements.
  std::size_t flush_bytes = 1u << 20;
  /// What is there already can be read either way. Saves disk and its bandwidth, costs the flushing
  /// thread time (docs/figures.md).
  Compression compression = Compression::kZstd;
  /// Runs before each write to the log, on the thread that does it; must not throw. What events
  /// refer to (their schemas) is made durable here, so that the log never points at something that
  /// is not there. An error poisons the store as a failed write does.
  std::function<Result<void>()> before_flush;
  /// The identity of a store that is made; nothing: a random one. It is mixed into every checksum,
  /// so only with one that is given are the bytes of two stores with the same events the same.
  std::optional<StoreId> new_store_id;
  /// Threads of the store's look after the segments that are full: they build what
  /// run_maintenance() builds, compact and scrub. Without them the first two are the caller's to
  /// do.
  bool background_maintenance = true;
  /// One of them also reads the full segments again and again, at most so many bytes a second and
  /// each about once a week, and checks every byte: damage is logged and told by `millrace status`
  /// while there may still be a copy of what it took. Larger: found sooner, more of the disk's
  /// bandwidth. 0: not at all.
  std::uint64_t scrub_bytes_per_second = 4u << 20;
  /// So much is read in a second while the store compacts itself as its policies say: when segments
  /// have become full and once a day, for a twentieth of the time at most. 0: never by itself.
  std::uint64_t compaction_bytes_per_second = 32u << 20;
  /// It does so at the earliest this long after it was opened, or after the last time.
  std::chrono::milliseconds compaction_rest{60'000};
  /// How partial events get complete when they are compacted.
  PartialEvents partials{};
  FileSystem* files = &FileSystem::real();
  Clock* clock = &Clock::system();
};

/// The one writer of a store: a directory with an append-only log of events.
///
/// A transaction is built with begin(), add() ..., commit(), or in one call from an AppendRequest,
/// which gives its events versions in their streams; readers see all of it or none. Between
/// appended_end() and durable_end() lies what a crash would still take back: acknowledge upstream,
/// and show to anybody, only what is below durable_end(). What durable means is
/// StoreOptions::durability's to say.
///
/// Errors: a failed write or sync poisons the store: that first error answers every later call, and
/// opening the store again recovers. Threads: begin(), add(), commit(), rollback() and the append()
/// made of them belong to one thread at a time; everything else may be called from any thread.
/// docs/log-format.md tells the bytes.
class EventStore : public Appender {
 public:
  /// Opens `directory`, making a new store where it is missing or empty, and recovers what a crash
  /// left: a torn tail is cut off and logged. Reads the last segment only, whatever the store's
  /// size.
  ///
  /// Errors: kLocked (another writer, with pid and program), kFailedPrecondition (a directory with
  /// other things in it), kUnsupported (made by a newer version), kCorruption (what may have been
  /// acknowledged is damaged: nothing is changed; `millrace log verify` says more),
  /// kInvalidArgument (options), kNoSpace, kIo.
  static Result<std::unique_ptr<EventStore>> open(const Path& directory, StoreOptions options = {});
  /// Syncs what was committed, drops an unfinished transaction.
  ~EventStore() override = default;

  /// Starts a transaction. Its events go to memory, and to disk early if they are many.
  /// Errors: kInvalidArgument (a captured one whose commit position is not above the last of its
  /// epoch, or whose epoch is below the last), kFailedPrecondition (one is open).
  virtual Result<void> begin(const TransactionInfo& info) = 0;
  /// Adds one event. Blocks only while twice pending_bytes_max are pending: who must not block asks
  /// has_room() before each handful of events, not before each one.
  /// From the first event that is `versioned` until the transaction's end appends of others wait,
  /// so that versions are given once; each stream that it names takes memory until then. The first
  /// one of a stream may read the log.
  /// Errors: kInvalidArgument (over a limit of types.h; the transaction goes on without it),
  /// kFailedPrecondition (no transaction is open); of one that is versioned also kCorruption and
  /// kIo from reading the log.
  virtual Result<void> add(const NewEvent& event) = 0;
  /// Ends it. `source_end` is where reading the source resumes after it (ignored if it was not
  /// captured). A transaction without events is legal: it moves the source position only. Gives the
  /// offset after its last event. Never waits for the disk.
  virtual Result<Offset> commit(std::uint64_t source_end) = 0;
  /// Forgets the transaction that is open, if one is; readers never saw any of it. Waits for the
  /// disk only if a part of it is there already, to take it back.
  virtual Result<void> rollback() = 0;

  /// begin, add, commit in one; gives the offset of the first event. Not yet durable.
  Result<Offset> append(const TransactionInfo& info, std::span<const NewEvent> events);

  /// As append_durably(), but does not wait: the result is appended, not yet durable. It may take
  /// its place beside a transaction that is open, but waits while that is on its way to the disk
  /// already because of its size. The first call of all reads what the log knows of streams.
  /// Errors beside those: kFailedPrecondition (this thread's own transaction is open), kCorruption
  /// and kIo from reading the log.
  virtual Result<AppendResult> append(const AppendRequest& request) = 0;

  /// Asks to have everything committed so far made durable now, without waiting for it.
  virtual void request_flush() = 0;
  /// Waits until durable_end() reaches `end` and durable_source()'s end reaches `source_end` (0:
  /// never mind); false when `timeout` was first. Asks for no flush.
  virtual Result<bool> wait_durable(Offset end, std::uint64_t source_end,
                                    std::chrono::milliseconds timeout) = 0;
  /// True below pending_bytes_max; add() then takes as much again before it blocks.
  virtual bool has_room() const = 0;
  /// Waits for room, asking for a flush; false when `timeout` was first. True also for a poisoned
  /// store: the next add() tells.
  virtual bool wait_room(std::chrono::milliseconds timeout) = 0;

  /// Builds, in the caller's thread, the indexes that are missing of full segments: by them readers
  /// pass over what they don't want. Errors: what kept it from that; the store goes on all the
  /// same.
  virtual Result<void> run_maintenance() = 0;
  /// What is done to the store as a whole. Lives as long as the store.
  virtual StoreMaintenance& maintenance() = 0;

  virtual Offset appended_end() const = 0;  ///< After the last committed transaction.
  virtual Offset durable_end() const = 0;
  /// Of the last durable transaction that was captured; nothing before the first.
  virtual std::optional<SourcePosition> durable_source() const = 0;
  /// The error that poisoned the store, if one did.
  virtual Result<void> status() const = 0;
  virtual const StoreId& id() const = 0;
};

}  // namespace millrace
