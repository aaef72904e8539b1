#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/event_store.h"

namespace millrace {

/// When a capture that is far behind leaves the replication protocol for a faster way, and how it
/// goes about it. All in bytes of WAL.
struct CatchUpBounds {
  std::uint64_t from = 64 << 20;  ///< Behind by so much. 0: never.
  /// Read at once. Larger: larger temporary files on the server (about as large, two at a time).
  /// Smaller: the server reads more of the WAL again and again.
  std::uint64_t stretch_min = 16 << 20, stretch_max = 256 << 20;
  /// How much is read before the slot is moved on, and the server may forget it.
  std::uint64_t confirm = 1 << 30;
};

struct CaptureOptions {
  std::string source;  ///< URI or key=value string, as libpq takes it.
  Path store;
  /// Patterns of tables, as "schema.table" with '*' and '?'; one that starts with '!' excludes.
  /// Empty: what the publication was made for or has, or public.* where it must be made. A
  /// publication that capture has made is kept in step with them, at the start and while it runs.
  std::vector<std::string> tables;
  std::string slot = "millrace";
  std::string publication = "millrace";
  /// Read the tables' present rows before the first change.
  bool initial_snapshot = true;
  /// Connections that read them at once, 1 to 64. More: faster, if server and machine have cores to
  /// spare.
  unsigned snapshot_workers = 2;
  /// End once everything that was committed before the start is durable in the store.
  bool until_caught_up = false;
  /// Go on although the publication, or `outbox`, is not what it was when capture last ran, for other
  /// reasons than `tables`. The rows that tables which came in have now are read beside the stream.
  bool accept_publication_change = false;
  /// Patterns as `tables`: rows of these tables are made whole with what the store knows of them,
  /// where PostgreSQL leaves values out: large ones that an update left alone, and the old rows of
  /// updates and deletes. Costs a lookup for each of them. Empty: none.
  std::vector<std::string> complete_rows = {};
  /// Tables ("schema.table", several with ',' between) into which the application inserts its
  /// domain events, with the columns id, aggregatetype, aggregateid, type and payload. Their rows
  /// become events of those streams instead of changes of a table.
  std::vector<std::string> outbox = {};
  /// Of the store. Not kOs: PostgreSQL forgets what it is told is durable.
  Durability durability = Durability::kGroup;
  /// How often PostgreSQL is told of progress that it did not ask for.
  std::chrono::milliseconds status_interval{1000};
  /// Without a byte from the server for this long an answer is asked for; for twice as long the
  /// connection is given up. Smaller finds a dead peer sooner, and may take a server for one that
  /// is busy with a transaction of which it has nothing to send.
  std::chrono::milliseconds silence_max{45'000};
  /// How often a running capture looks whether the publication is still the same, and in step with
  /// `tables`.
  std::chrono::milliseconds look_interval{10'000};
  CatchUpBounds catch_up;
  /// The longest pause between attempts to connect again.
  std::chrono::milliseconds backoff_max{30'000};
  /// How long to wait for a slot that somebody else streams from: one stays taken for a moment
  /// after its client was killed. Six times as long if it was a capture of this store, whose
  /// machine may have gone without a word.
  std::chrono::milliseconds slot_patience{15'000};
  /// The pause after the server has not let us in, so that no account is locked by a storm.
  std::chrono::milliseconds refused_pause{10'000};
  /// From where on WAL is told of that the server keeps for somebody's transaction, and after how
  /// long such a one is long.
  std::uint64_t held_back_wal_bytes = 256u << 20;
  std::chrono::milliseconds long_transaction{60'000};
  /// What the store's looking after itself may take of the disk: see StoreOptions. 0: nothing.
  std::uint64_t scrub_bytes_per_second = StoreOptions{}.scrub_bytes_per_second;
  std::uint64_t compaction_bytes_per_second = StoreOptions{}.compaction_bytes_per_second;
  /// Where /metrics, /healthz and /readyz are served: "127.0.0.1:9187", or a port alone for the
  /// loopback address. Empty: nowhere.
  std::string listen{};
  /// How often the server is looked at beside the stream: where its WAL ends, what the slot holds.
  std::chrono::milliseconds watch_interval{5000};
  /// How often the status goes into the store, for `millrace status`.
  std::chrono::milliseconds report_interval{1000};
  /// How often a small transaction is committed to see how long it takes to become durable here.
  /// Smaller: a finer picture, and a few hundred bytes more of WAL for each. 0: never.
  std::chrono::milliseconds probe_interval{5000};
  /// Appends of other processes to the store go through this one: see service/shared_store.h. The
  /// store must lie in the kernel's file system.
  bool serve = false;
  /// How long to wait for a process that holds the store for a moment only, such as one that
  /// appends to it. One that has to end something first, such as a compaction, and says so, has
  /// longer.
  std::chrono::milliseconds store_patience{800};
  FileSystem* files = &FileSystem::real();
};

/// Captures a database into a store until `stop`, or, with until_caught_up, until it has caught up.
///
/// The first run makes publication and slot (in this order) and reads the initial snapshot; later
/// ones go on after the last durable transaction. PostgreSQL is told to forget only what is
/// durable. A connection that breaks is made again, with back-off. A first run that ends before its
/// snapshot is whole leaves no slot; at worst (killed in the last moment) one that the next start
/// of this store knows for its own and drops.
///
/// Errors: kUnavailable (can't connect the first time, wrong password, `listen` is taken),
/// kFailedPrecondition (a setting, a right, a table's identity, or the source is not the one that
/// the store knows: the message starts with a state such as SLOT_MISSING, SOURCE_GAP, NEW_CLUSTER,
/// PUBLICATION_CHANGED), kLocked (another capture), and those of EventStore. Nothing is changed on
/// either side before all checks have passed.
Result<void> run_capture(const CaptureOptions& options, const std::stop_token& stop);

/// kInvalidArgument unless `text` is empty or one that CaptureOptions::listen takes.
Result<void> require_listen_address(const std::string& text);

}  // namespace millrace
