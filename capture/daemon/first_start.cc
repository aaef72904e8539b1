#include "capture/daemon/first_start.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "base/bytes.h"
#include "base/clock.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/store_out.h"
#include "capture/pipeline/change_encoder.h"

namespace millrace {
namespace {

constexpr int kSnapshotAttempts = 5;

}  // namespace

Result<void> FirstStart::drop_slot_of_last_start(const Preflight& preflight,
                                                 const SystemIdentity& system,
                                                 const std::optional<SourceState>& before) {
  std::string last = before && before->slot_start != Lsn{} ? before->slot : "";
  if (!last.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(last));
    const bool ours = slot && before->system_id == system.system_id &&
                      slot->database == before->database &&
                      slot->confirmed_flush == before->slot_start;
    if (!ours) last.clear();
  }
  if (preflight.slot && last != options_.slot)
    return halted("SLOT_EXISTS",
                  "slot " + options_.slot + " exists, but this store has never used it",
                  "Is --store the right one? Dropping a slot ends the store that is fed from it. "
                  "Use another --slot; or, if nobody needs it: "
                  "SELECT pg_drop_replication_slot('" +
                      options_.slot + "');");
  if (last.empty()) return {};
  spdlog::warn("the last start ended before its snapshot was whole: slot {} is dropped", last);
  return catalog_.execute("SELECT pg_drop_replication_slot('" + last + "')");
}

Result<SourceState> FirstStart::run(const Preflight& preflight, const SystemIdentity& system,
                                    const std::optional<SourceState>& last, EventStore& store,
                                    SchemaRegistry& schemas) {
  const bool made_publication = !preflight.publication.has_value();
  if (made_publication) {
    MILLRACE_RETURN_IF_ERROR(make_publication(catalog_, options_.publication, preflight.tables,
                                              preflight.server.version));
    spdlog::info("publication {} created for {} tables", printable(options_.publication),
                 preflight.tables.size());
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog_.publication(options_.publication));
  if (!publication)
    return halted("PUBLICATION_MISSING",
                  "publication " + options_.publication + " has just vanished", "Start again.");

  const auto source = store.durable_source();
  SourceState state{.epoch = std::max(last ? last->epoch : 0, source ? source->epoch : 0) + 1,
                    .system_id = system.system_id,
                    .timeline = system.timeline,
                    .database = preflight.server.database,
                    .host = address_.host(),
                    .slot = options_.slot,
                    .slot_start = {},
                    .publication = options_.publication,
                    .publication_definition = publication->definition};
  MILLRACE_RETURN_IF_ERROR(take_snapshot(preflight, state, store, schemas));
  return state;
}

/// A TRUNCATE between slot and copy would show through: it is not transactional to those who look
/// with an older snapshot. So the tables are locked, and if their files are others than before the
/// slot was made, all is done again.
///
/// The slot is a temporary one: whatever ends this start before its snapshot is whole leaves
/// nothing on the server.
Result<FirstStart::SnapshotSource> FirstStart::open_snapshot(const Preflight& preflight) {
  for (int attempt = 1;; ++attempt) {
    SnapshotSource source;
    MILLRACE_ASSIGN_OR_RETURN(const std::string before, catalog_.storage_of(preflight.tables));
    MILLRACE_ASSIGN_OR_RETURN(source.walsender, PostgresConnection::open(address_, true, stop_));
    const std::string name = "millrace_start_" + to_hex(std::to_string(std::random_device{}()));
    MILLRACE_ASSIGN_OR_RETURN(source.slot, create_temporary_slot(*source.walsender, catalog_, name,
                                                                 options_.initial_snapshot));
    spdlog::info("temporary slot {} created at {}", name, to_string(source.slot.consistent_point));
    if (!options_.initial_snapshot) return source;
    MILLRACE_ASSIGN_OR_RETURN(source.reader, PostgresConnection::open(address_, false, stop_));
    MILLRACE_RETURN_IF_ERROR(begin_snapshot(*source.reader, preflight.tables, source.slot));
    MILLRACE_ASSIGN_OR_RETURN(const std::string after, catalog_.storage_of(preflight.tables));
    if (before == after) return source;
    if (attempt == kSnapshotAttempts)
      return Error(ErrorCode::kUnavailable,
                   "tables were truncated or rewritten each time the snapshot began")
          .hint("Start again when no TRUNCATE or ALTER TABLE runs.");
    spdlog::warn("a table was truncated or rewritten while the slot was made: it is made again");
    MILLRACE_RETURN_IF_ERROR(source.walsender->query("DROP_REPLICATION_SLOT " + name));
  }
}

/// One transaction of the log: the snapshot is there whole or not at all. Its commit position is
/// just below the slot's start.
Result<void> FirstStart::take_snapshot(const Preflight& preflight, SourceState& state,
                                       EventStore& store, SchemaRegistry& schemas) {
  MILLRACE_ASSIGN_OR_RETURN(const SnapshotSource source, open_snapshot(preflight));
  const Lsn start = source.slot.consistent_point;
  MILLRACE_RETURN_IF_ERROR(
      store.begin({.source = {.epoch = state.epoch, .commit = start.value - 1, .end = 0},
                   .source_xid = 0,
                   .commit_time = Clock::system().wall(),
                   .snapshot = options_.initial_snapshot}));
  if (source.reader) {
    StoreOut out(store, Lsn{});
    ChangeEncoder encoder(schemas, catalog_, out);
    auto rows = copy_snapshot(*source.reader, catalog_, preflight.tables, options_.publication,
                              source.slot, encoder);
    if (!rows) {
      MILLRACE_RETURN_IF_ERROR(store.rollback());
      return std::move(rows).error().context("initial snapshot");
    }
    MILLRACE_RETURN_IF_ERROR(end_snapshot(*source.reader));
    spdlog::info("initial snapshot: {} rows of {} tables as of {}", *rows, preflight.tables.size(),
                 to_string(start));
  }
  if (auto kept = keep_slot(*source.walsender, source.slot, state); !kept) {
    MILLRACE_RETURN_IF_ERROR(store.rollback());
    return kept;
  }
  // From here on the slot stays, whatever comes: a commit that fails or is not waited for may still
  // be found durable by the next start, which then needs it, or else drops it.
  MILLRACE_ASSIGN_OR_RETURN(const Offset end, store.commit(start.value));
  return wait_until_durable(store, end, start.value, stop_);
}

/// Makes the start's temporary slot into the one that stays: a copy of it, at the same position.
/// What source.json says before lets a start after a crash know this slot for its own.
Result<void> FirstStart::keep_slot(PostgresConnection& walsender, const NewSlot& slot,
                                   SourceState& state) {
  state.slot_start = slot.consistent_point;
  MILLRACE_RETURN_IF_ERROR(save_source_state(options_.store, state, *options_.files));
  MILLRACE_RETURN_IF_ERROR(catalog_.execute("SELECT pg_copy_logical_replication_slot('" +
                                            slot.name + "', '" + options_.slot + "', false)"));
  spdlog::info("slot {} created at {}", options_.slot, to_string(slot.consistent_point));
  enable_failover(walsender, options_.slot);
  return {};
}

}  // namespace millrace
