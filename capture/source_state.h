#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "schemas/lsn.h"

namespace millrace {

/// What a store knows of the source that it is fed from: the file source.json, written when an
/// epoch begins.
///
/// An epoch is one unbroken reading of one slot. The file is written right before the slot is made;
/// the epoch has begun for good once the log holds a position of it (its snapshot). Until then a
/// start begins it anew.
struct SourceState {
  std::uint32_t epoch = 0;
  std::string system_id;
  std::uint32_t timeline = 0;
  std::string database;
  std::string host;
  std::string slot;
  Lsn slot_start;  ///< Where the slot was made.
  std::string publication;
  std::vector<std::string> publication_definition;
  /// Offset of the log from which on there are snapshots of tables that are not known to be
  /// complete; nothing if all are.
  std::optional<std::uint64_t> unfinished_snapshots;
  /// Tables whose rows are domain events, sorted.
  std::vector<std::string> outbox = {};
  /// The --tables in force: those of the last capture, or, where it had none, what the publication
  /// is kept for. Empty: all that the publication has.
  std::string patterns = {};
  /// What the publication had when a capture last looked, outboxes too: "public.orders". Empty: no
  /// capture that notes it has run yet.
  std::vector<std::string> tables = {};
  /// The epoch begins with a resync: only that may begin it, not a first start.
  bool resync = false;
};

/// Nothing where the store was never fed. Errors: kCorruption (no such JSON), kUnsupported (newer),
/// kIo.
Result<std::optional<SourceState>> load_source_state(const Path& store,
                                                     FileSystem& files = FileSystem::real());
/// Durable on return.
Result<void> save_source_state(const Path& store, const SourceState& state,
                               FileSystem& files = FileSystem::real());

}  // namespace millrace
