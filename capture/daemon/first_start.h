#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include "base/result.h"
#include "capture/capture.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"
#include "eventstore/event_store.h"
#include "schemas/registry.h"

namespace millrace {

/// The beginning of an epoch: publication, slot and the rows that are there, or nothing of it.
///
/// The slot is a temporary one until everything was looked at: whatever ends the start before
/// leaves nothing on the server. From the first rows on that are in the log the epoch has begun,
/// and what was not read then is read beside the stream. Threads: one.
class FirstStart {
 public:
  FirstStart(const CaptureOptions& options, std::stop_token stop, const SourceAddress& address,
             Catalog& catalog)
      : options_(options), stop_(std::move(stop)), address_(address), catalog_(catalog) {}

  /// A slot that a start of this store has made right before it was killed: it noted slot and
  /// position in source.json (`last`) first, and nobody has moved the slot since. It is dropped.
  /// Any other slot of our name is somebody else's: SLOT_EXISTS.
  Result<void> drop_slot_of_last_start(const Preflight& preflight, const SystemIdentity& system,
                                       const std::optional<SourceState>& last);

  /// Makes publication (if missing) and slot, in this order, for a slot decodes with the catalog as
  /// it was at its position; copies the tables. When it returns, snapshot and slot are durable. If
  /// the connection was lost meanwhile, the state that it gives says that tables are unfinished.
  /// Gives what the store knows of the source from now on.
  Result<SourceState> run(const Preflight& preflight, const SystemIdentity& system,
                          const std::optional<SourceState>& last, EventStore& store,
                          SchemaRegistry& schemas);

  /// A temporary slot, and (with a snapshot) connections that see the tables as of it.
  struct SnapshotSource {
    NewSlot slot;
    std::unique_ptr<PostgresConnection> walsender;
    std::vector<std::unique_ptr<PostgresConnection>> readers;
  };
  Result<SnapshotSource> open_snapshot(const Preflight& preflight);
  /// Makes the temporary slot into the one that stays, after noting it in source.json.
  Result<void> keep_slot(PostgresConnection& walsender, const NewSlot& slot, SourceState& state);

 private:
  Result<void> open_readers(const Preflight& preflight, SnapshotSource& source);
  Result<void> take_snapshot(const Preflight& preflight, bool resumable, SourceState& state,
                             EventStore& store, SchemaRegistry& schemas);
  Result<void> begin_without_snapshot(const SourceState& state, EventStore& store);

  const CaptureOptions& options_;
  std::stop_token stop_;
  const SourceAddress& address_;
  Catalog& catalog_;
};

}  // namespace millrace
