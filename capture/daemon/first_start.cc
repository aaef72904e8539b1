#include "capture/daemon/first_start.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/counted.h"
#include "capture/daemon/initial_copy.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/store_out.h"
#include "capture/daemon/table_snapshots.h"

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
    return slot_exists(*preflight.slot, options_.slot, "this store has never used it");
  if (last.empty()) return {};
  spdlog::warn("the last start ended before its first rows were in the store: slot {} is dropped",
               last);
  return catalog_.execute("SELECT pg_drop_replication_slot('" + last + "')");
}

Result<SourceState> FirstStart::run(const Preflight& preflight, const SystemIdentity& system,
                                    const std::optional<SourceState>& last, EventStore& store,
                                    SchemaRegistry& schemas) {
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(options_.tables));
  if (!preflight.publication) {
    MILLRACE_RETURN_IF_ERROR(make_publication(catalog_, options_.publication, preflight.published(),
                                              patterns, preflight.server.version));
    spdlog::info("publication {} created for {}", printable(options_.publication),
                 counted(preflight.published().size(), "table"));
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
                    .publication_definition = publication->definition,
                    .unfinished_snapshots = {},
                    .outbox = options_.outbox,
                    .patterns = patterns_in_force(
                        patterns.given() ? std::optional(patterns) : std::nullopt, *publication),
                    .tables = publication->table_names};
  const bool resumable = preflight.server.version >= kWatermarksSince && publication->updates;
  MILLRACE_RETURN_IF_ERROR(take_snapshot(preflight, resumable, state, store, schemas));
  return state;
}

/// A TRUNCATE between slot and copy would show through: it is not transactional to those who look
/// with an older snapshot. So the tables are locked, and if their files are others than before the
/// slot was made, all is done again.
///
/// The slot is a temporary one: whatever ends this start before its snapshot is whole leaves
/// nothing on the server.
Result<FirstStart::SnapshotSource> FirstStart::open_snapshot(const Preflight& preflight) {
  const std::vector<SourceTable> published = preflight.published();
  for (int attempt = 1;; ++attempt) {
    SnapshotSource source;
    MILLRACE_ASSIGN_OR_RETURN(const std::string before, catalog_.storage_of(published));
    MILLRACE_ASSIGN_OR_RETURN(source.walsender, PostgresConnection::open(address_, true, stop_));
    const std::string name = "millrace_start_" + to_hex(std::to_string(std::random_device{}()));
    MILLRACE_ASSIGN_OR_RETURN(source.slot, create_temporary_slot(*source.walsender, catalog_, name,
                                                                 options_.initial_snapshot));
    spdlog::info("temporary slot {} created at {}", name, to_string(source.slot.consistent_point));
    if (!options_.initial_snapshot) return source;
    MILLRACE_RETURN_IF_ERROR(open_readers(preflight, source));
    MILLRACE_ASSIGN_OR_RETURN(const std::string after, catalog_.storage_of(published));
    if (before == after) return source;
    if (attempt == kSnapshotAttempts)
      return Error(ErrorCode::kUnavailable,
                   "tables were truncated or altered each time the snapshot began")
          .hint("Start again when no TRUNCATE or ALTER TABLE runs.");
    spdlog::warn("a table was truncated or altered while the slot was made: it is made again");
    MILLRACE_RETURN_IF_ERROR(source.walsender->query("DROP_REPLICATION_SLOT " + name));
  }
}

/// The first connection is needed, the others are welcome. They do not wait for a lock: who waits
/// before them for one that excludes readers, as TRUNCATE does, waits for the first one to end.
Result<void> FirstStart::open_readers(const Preflight& preflight, SnapshotSource& source) {
  MILLRACE_ASSIGN_OR_RETURN(auto first, PostgresConnection::open(address_, false, stop_));
  MILLRACE_RETURN_IF_ERROR(begin_snapshot(*first, preflight.published(), source.slot));
  source.readers.push_back(std::move(first));
  while (source.readers.size() < options_.snapshot_workers) {
    auto another = [&]() -> Result<std::unique_ptr<PostgresConnection>> {
      MILLRACE_ASSIGN_OR_RETURN(auto opened, PostgresConnection::open(address_, false, stop_));
      MILLRACE_RETURN_IF_ERROR(opened->query("SET lock_timeout = '50ms'"));
      MILLRACE_RETURN_IF_ERROR(begin_snapshot(*opened, preflight.published(), source.slot));
      return opened;
    }();
    if (!another && stop_.stop_requested()) return std::move(another).error();
    if (!another) {
      spdlog::warn("the snapshot is read on {} connections and not on {}: {}",
                   source.readers.size(), options_.snapshot_workers,
                   printable(another.error().message(), 1000));
      break;
    }
    source.readers.push_back(*std::move(another));
  }
  return {};
}

/// The slot is made to stay before anything of the epoch is in the log, and what source.json says
/// before that lets a start after a crash know it for its own: without a row in the log the slot is
/// dropped and all begins anew, with one the slot has every change since.
Result<void> FirstStart::take_snapshot(const Preflight& preflight, bool resumable,
                                       SourceState& state, EventStore& store,
                                       SchemaRegistry& schemas) {
  MILLRACE_ASSIGN_OR_RETURN(SnapshotSource source, open_snapshot(preflight));
  const Lsn start = source.slot.consistent_point;
  if (!options_.initial_snapshot) {
    MILLRACE_RETURN_IF_ERROR(keep_slot(*source.walsender, source.slot, state));
    return begin_without_snapshot(state, store);
  }
  InitialCopy copy(store, schemas, catalog_, state.epoch, start);
  const auto failed = [](Error error) { return std::move(error).context("initial snapshot"); };
  if (auto planned = copy.plan(*source.readers.front(), preflight.tables, preflight.outboxes,
                               options_.publication, resumable);
      !planned)
    return failed(std::move(planned).error());
  if (auto checked = copy.check(*source.readers.front()); !checked)
    return failed(std::move(checked).error());
  state.unfinished_snapshots = store.appended_end().value;
  MILLRACE_RETURN_IF_ERROR(keep_slot(*source.walsender, source.slot, state));
  source.walsender.reset();  // and with it the temporary slot: the readers have its snapshot
  auto whole = copy.run(std::move(source.readers), stop_);
  if (!whole) {
    // Nobody needs the slot then; should the server not be there, the next start drops it.
    if (!copy.has_begun())
      static_cast<void>(
          catalog_.execute("SELECT pg_drop_replication_slot('" + options_.slot + "')"));
    return failed(std::move(whole).error());
  }
  if (!*whole) return {};
  state.unfinished_snapshots.reset();
  return save_source_state(options_.store, state, *options_.files);
}

/// The epoch has begun once the log holds a position of it.
Result<void> FirstStart::begin_without_snapshot(const SourceState& state, EventStore& store) {
  MILLRACE_RETURN_IF_ERROR(
      store.begin({.source = {.epoch = state.epoch, .commit = state.slot_start.value - 1, .end = 0},
                   .source_xid = 0,
                   .commit_time = Clock::system().wall()}));
  // From here on the slot stays, whatever comes: a commit that fails or is not waited for may still
  // be found durable by the next start, which then needs it, or else drops it.
  MILLRACE_ASSIGN_OR_RETURN(const Offset end, store.commit(state.slot_start.value));
  return wait_until_durable(store, end, state.slot_start.value, stop_);
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
