#pragma once

#include <chrono>
#include <stop_token>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/event_store.h"

namespace millrace {

struct CaptureOptions {
  std::string source;  ///< URI or key=value string, as libpq takes it.
  Path store;
  /// Patterns of tables, as "schema.table" with '*' and '?'; one that starts with '!' excludes.
  /// Empty: what the publication has, or public.* where it must be made.
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
  /// Go on although the publication is not what it was when capture last ran. Tables that came in
  /// are captured from now on, without the rows that they had.
  bool accept_publication_change = false;
  /// Of the store. Not kOs: PostgreSQL forgets what it is told is durable.
  Durability durability = Durability::kGroup;
  /// How often PostgreSQL is told of progress that it did not ask for.
  std::chrono::milliseconds status_interval{1000};
  /// How often a running capture looks whether the publication is still the same.
  std::chrono::milliseconds look_interval{10'000};
  /// The longest pause between attempts to connect again.
  std::chrono::milliseconds backoff_max{30'000};
  /// What the store's looking after itself may take of the disk: see StoreOptions. 0: nothing.
  std::uint64_t scrub_bytes_per_second = StoreOptions{}.scrub_bytes_per_second;
  std::uint64_t compaction_bytes_per_second = StoreOptions{}.compaction_bytes_per_second;
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
/// Errors: kUnavailable (can't connect the first time, wrong password), kFailedPrecondition (a
/// setting, a right, a table's identity, or the source is not the one that the store knows: the
/// message starts with a state such as SLOT_MISSING, SOURCE_GAP, NEW_CLUSTER, PUBLICATION_CHANGED),
/// kLocked (another capture), and those of EventStore. Nothing is changed on either side before all
/// checks have passed.
Result<void> run_capture(const CaptureOptions& options, const std::stop_token& stop);

}  // namespace millrace
