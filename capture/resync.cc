#include "capture/resync.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/progress.h"
#include "capture/daemon/first_start.h"
#include "capture/daemon/schema_teller.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/store_out.h"
#include "capture/keyed_state.h"
#include "capture/partial_changes.h"
#include "capture/source_state.h"
#include "capture/state/difference_events.h"
#include "capture/state/live_rows.h"
#include "capture/state/table_comparison.h"
#include "eventstore/event_store.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

class Resync {
 public:
  Resync(const ResyncOptions& options, const std::stop_token& stop, SourceAddress address,
         TablePatterns all)
      : options_(options),
        stop_(stop),
        address_(std::move(address)),
        patterns_(std::move(all)),
        catalog_(address_) {}

  Result<ResyncReport> run();

 private:
  Result<void> open_store();
  Result<void> look_at_source();
  Result<void> check_identity() const;
  Result<void> find_reason();
  Result<void> check_slot() const;
  Result<void> append_differences(FirstStart& start);
  Result<void> append_tables(const FirstStart::SnapshotSource& snapshot);
  Result<void> append_notice();
  Result<void> replace_slot(FirstStart& start, const FirstStart::SnapshotSource& snapshot);
  Path spill() const { return options_.spill.empty() ? options_.store : options_.spill; }

  const ResyncOptions& options_;
  std::stop_token stop_;
  SourceAddress address_;
  TablePatterns patterns_;
  Catalog catalog_;
  CaptureOptions capture_;  // as a capture of this store would have them

  std::unique_ptr<SchemaRegistry> schemas_;  // outlives the store, which flushes it
  std::unique_ptr<EventStore> store_;
  std::optional<SourceState> before_;
  Preflight preflight_;
  SystemIdentity system_;
  SourceState state_;  // of the epoch that begins
  ResyncReport report_;
};

Result<void> Resync::open_store() {
  FileSystem& files = *options_.files;
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(options_.store / "store.json"));
  if (!there)
    return Error(ErrorCode::kNotFound, "there is no store in " + options_.store.string())
        .hint("`millrace capture run` makes a new one.");
  StoreOptions store_options;
  store_options.files = options_.files;
  store_options.partials = partial_changes();
  store_options.before_flush = [this] { return schemas_ ? schemas_->flush() : Result<void>{}; };
  auto store = EventStore::open(options_.store, store_options);
  if (!store && store.error().code() == ErrorCode::kLocked)
    return Error(ErrorCode::kLocked, store.error().message())
        .hint("Stop the capture first: nothing else may go into the store meanwhile.");
  MILLRACE_ASSIGN_OR_RETURN(store_, std::move(store));
  MILLRACE_ASSIGN_OR_RETURN(schemas_, SchemaRegistry::open(options_.store, files));
  MILLRACE_ASSIGN_OR_RETURN(before_, load_source_state(options_.store, files));
  if (!store_->durable_source())
    return Error(ErrorCode::kFailedPrecondition, "the store was never captured into")
        .hint("`millrace capture run` begins with the rows that are there.");
  return {};
}

Result<void> Resync::look_at_source() {
  const auto chosen = [](const std::string& given, const std::string* known) {
    return !given.empty() ? given : known != nullptr ? *known : CaptureOptions{}.slot;
  };
  capture_.source = options_.source;
  capture_.store = options_.store;
  capture_.files = options_.files;
  capture_.slot = chosen(options_.slot, before_ ? &before_->slot : nullptr);
  capture_.publication = chosen(options_.publication, before_ ? &before_->publication : nullptr);
  capture_.outbox = before_ ? before_->outbox : options_.outbox;
  if (before_ && !options_.outbox.empty() && options_.outbox != before_->outbox)
    return Error(
               ErrorCode::kInvalidArgument,
               "this store remembers " + (before_->outbox.empty() ? std::string("to have no outbox")
                                                                  : "another --outbox"))
        .hint("Leave --outbox out here; `millrace capture run` takes another one.");
  MILLRACE_RETURN_IF_ERROR(require_slot_name(capture_.slot));
  MILLRACE_ASSIGN_OR_RETURN(const auto connection, PostgresConnection::open(address_, true, stop_));
  MILLRACE_ASSIGN_OR_RETURN(system_, identify_system(*connection));
  MILLRACE_RETURN_IF_ERROR(check_identity());
  MILLRACE_ASSIGN_OR_RETURN(preflight_,
                            run_preflight(catalog_, {.patterns = patterns_,
                                                     .slot = capture_.slot,
                                                     .publication = capture_.publication,
                                                     .outbox = capture_.outbox}));
  if (!preflight_.publication)
    return halted("PUBLICATION_MISSING",
                  "publication " + capture_.publication + " is gone from the server",
                  create_publication_statement(capture_.publication, preflight_.published(),
                                               preflight_.server.version) +
                      ";  -- with the tables that shall be captured; then start again");
  // A slot that is in the way is looked at below, and no problem if it is ours.
  std::erase_if(preflight_.findings, [&](const Finding& finding) {
    return preflight_.slot && finding.subject == "slot " + capture_.slot;
  });
  preflight_.log_findings();
  MILLRACE_RETURN_IF_ERROR(preflight_.require_no_problem());
  return check_slot();
}

/// A slot of the name may be dropped if the store was fed from it.
Result<void> Resync::check_slot() const {
  if (!preflight_.slot) return {};
  const SlotInfo& slot = *preflight_.slot;
  const bool ours = before_ && before_->slot == capture_.slot &&
                    before_->system_id == system_.system_id && slot.database == before_->database &&
                    slot.plugin == "pgoutput";
  if (!ours) return slot_exists(slot, capture_.slot, "this store was never fed from it");
  if (slot.active)
    return Error(ErrorCode::kLocked, in_use(slot, capture_.slot))
        .hint("Stop the capture that reads it first.");
  return {};
}

/// A wrong --source would have all that the store holds deleted, by events.
Result<void> Resync::check_identity() const {
  if (options_.accept_new_source) return {};
  if (!before_)
    return halted("SOURCE_STATE_MISSING",
                  "the store's source.json is gone, and with it which source it was fed from",
                  "If it was " + address_.describe() + ", say so with --accept-new-source.");
  if (before_->system_id == system_.system_id && before_->database == system_.database) return {};
  const bool same_server = before_->system_id == system_.system_id;
  return halted(same_server ? "OTHER_DATABASE" : "NEW_CLUSTER",
                "database " + system_.database + " of the server with system identifier " +
                    system_.system_id + " is not the one that the store was fed by (" +
                    before_->database + " of " + before_->system_id + ")",
                "If it has taken that one's place, say so with --accept-new-source: rows that the "
                "store has and this database has not are then deleted by events.");
}

/// What capture would halt with.
Result<void> Resync::find_reason() {
  const SourcePosition source = *store_->durable_source();
  report_.old_end = Lsn{source.end};
  report_.epoch = std::max(before_ ? before_->epoch : 0, source.epoch) + 1;
  if (!before_) {
    report_.reason = "SOURCE_STATE_MISSING";
    return {};
  }
  if (before_->epoch != source.epoch) {
    report_.reason = "RESYNC_UNFINISHED";
    return {};
  }
  SourceState state = *before_;
  SourceGuard guard(catalog_, *store_, state,
                    {.store = options_.store, .files = options_.files, .stop = stop_});
  MILLRACE_ASSIGN_OR_RETURN(const auto walsender, PostgresConnection::open(address_, true, stop_));
  const auto checked = guard.check_all(*walsender, report_.old_end);
  if (!checked && !is_halt(checked.error())) return checked.error();
  report_.reason = checked
                       ? "REQUESTED"
                       : checked.error().message().substr(0, checked.error().message().find(':'));
  return {};
}

Result<ResyncReport> Resync::run() {
  MILLRACE_RETURN_IF_ERROR(open_store());
  MILLRACE_RETURN_IF_ERROR(look_at_source());
  MILLRACE_RETURN_IF_ERROR(find_reason());
  if (before_ && before_->slot != capture_.slot)
    spdlog::warn("slot {} is not used any more: drop it where it still is, or it holds the WAL",
                 before_->slot);
  spdlog::info("resync, because of {}: the store ends at {}", report_.reason,
               to_string(report_.old_end));
  if (report_.reason == "REQUESTED")
    spdlog::warn(
        "nothing keeps the capture from going on: what the slot still holds comes as differences "
        "only, and messages to streams ('millrace:...') in it are lost. Where that matters, end "
        "this, let the capture catch up, and resync then");
  for (const std::string& outbox : capture_.outbox)
    spdlog::warn(
        "rows that were inserted into outbox {} since then become no events: look for them there, "
        "and insert them once more where they are wanted",
        printable(outbox));
  state_ = {.epoch = report_.epoch,
            .system_id = system_.system_id,
            .timeline = system_.timeline,
            .database = preflight_.server.database,
            .host = address_.host(),
            .slot = capture_.slot,
            .slot_start = {},
            .publication = capture_.publication,
            .publication_definition = preflight_.publication->definition,
            .unfinished_snapshots = {},
            .outbox = capture_.outbox,
            .patterns = before_ ? before_->patterns : "",
            .tables = preflight_.publication->table_names,
            .resync = true};
  FirstStart start(capture_, stop_, address_, catalog_);
  if (auto done = append_differences(start); !done) {
    // What is in the transaction so far never was.
    MILLRACE_RETURN_IF_ERROR(store_->status());
    MILLRACE_RETURN_IF_ERROR(store_->rollback());
    return std::move(done).error().context("resync");
  }
  return std::move(report_);
}

Result<void> Resync::append_differences(FirstStart& start) {
  MILLRACE_ASSIGN_OR_RETURN(const auto snapshot, start.open_snapshot(preflight_));
  report_.new_start = snapshot.slot.consistent_point;
  MILLRACE_RETURN_IF_ERROR(store_->begin(
      {.source = {.epoch = state_.epoch, .commit = report_.new_start.value - 1, .end = 0},
       .source_xid = 0,
       .commit_time = Clock::system().wall(),
       .snapshot = true}));
  MILLRACE_RETURN_IF_ERROR(append_tables(snapshot));
  MILLRACE_RETURN_IF_ERROR(append_notice());
  MILLRACE_RETURN_IF_ERROR(snapshot.readers.front()->query("COMMIT"));
  if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
  MILLRACE_RETURN_IF_ERROR(replace_slot(start, snapshot));
  MILLRACE_ASSIGN_OR_RETURN(const Offset end, store_->commit(report_.new_start.value));
  // Whoever asks us to stop now has to wait for the disk: the old slot is gone.
  return wait_until_durable(*store_, end, report_.new_start.value, {});
}

Result<void> Resync::append_tables(const FirstStart::SnapshotSource& snapshot) {
  LiveRows live(*snapshot.readers.front(), catalog_, *schemas_, spill(), options_.memory_bytes / 2);
  std::vector<LiveRows::Table> tables;
  KeyedState::Options wanted{.store = options_.store,
                             .tables = {},
                             .spill_folder = spill(),
                             .memory_bytes = options_.memory_bytes / 2,
                             .files = options_.files,
                             .stop = stop_};
  for (const SourceTable& table : preflight_.tables) {
    MILLRACE_ASSIGN_OR_RETURN(auto known,
                              live.learn(table, capture_.publication, report_.new_start));
    wanted.tables.push_back({.category = known.schema->category,
                             .rows_are_keys = known.rows_are_keys ? known.schema : nullptr});
    tables.push_back(std::move(known));
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto state, KeyedState::read(std::move(wanted)));
  StoreOut out(*store_, report_.new_start);
  SchemaTeller teller(out, *schemas_, options_.store, *options_.files);
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const std::string& category = tables[i].schema->category;
    DifferenceEvents events(teller, *schemas_, tables[i]);
    MILLRACE_RETURN_IF_ERROR(live.read(tables[i]));
    auto counts = compare_table(
        *state, i, live, tables[i], *schemas_,
        [&](const FoundDifference& found) { return events.append(found); }, stop_);
    if (!counts) return std::move(counts).error().context("compare " + printable(category));
    if (events.must_start_anew()) MILLRACE_RETURN_IF_ERROR(events.append_all(live));
    spdlog::info("{}: {}, {} differed, {} incomplete", printable(category),
                 counted(counts->live, "row"), grouped(counts->differences()),
                 grouped(counts->incomplete));
    report_.tables.push_back(
        {.category = category, .counts_equal_rows = tables[i].rows_are_keys, .counts = *counts});
  }
  return {};
}

/// Tells the log's readers what they can't see: that changes were lost, and where.
Result<void> Resync::append_notice() {
  nlohmann::ordered_json tables = nlohmann::ordered_json::object();
  for (const TableReport& table : report_.tables)
    if (table.counts.differences() + table.counts.incomplete != 0)
      tables[table.category] = {{"missing_in_store", table.counts.missing},
                                {"different", table.counts.different},
                                {"incomplete", table.counts.incomplete},
                                {"missing_in_table", table.counts.gone}};
  const SourcePosition source = *store_->durable_source();
  const nlohmann::ordered_json notice{{"reason", report_.reason},
                                      {"captured_up_to", to_string(report_.old_end)},
                                      {"captured_from", to_string(report_.new_start)},
                                      {"epoch_before", source.epoch},
                                      {"epoch", report_.epoch},
                                      {"slot", capture_.slot},
                                      {"system_id", system_.system_id},
                                      {"timeline", system_.timeline},
                                      {"outboxes_not_read", capture_.outbox},
                                      {"tables", tables}};
  const std::string payload =
      notice.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return store_->add({.category = kCaptureCategory,
                      .key = capture_.slot,
                      .type = "resynced",
                      .payload = payload,
                      .metadata = {}});
}

/// source.json first: from then on a capture knows that this resync has to be done again, unless
/// its events are in the log.
Result<void> Resync::replace_slot(FirstStart& start, const FirstStart::SnapshotSource& snapshot) {
  MILLRACE_RETURN_IF_ERROR(save_source_state(options_.store, state_, *options_.files));
  MILLRACE_ASSIGN_OR_RETURN(preflight_.slot, catalog_.slot(capture_.slot));
  MILLRACE_RETURN_IF_ERROR(check_slot());
  if (preflight_.slot)
    MILLRACE_RETURN_IF_ERROR(
        catalog_.execute("SELECT pg_drop_replication_slot('" + capture_.slot + "')"));
  return start.keep_slot(*snapshot.walsender, snapshot.slot, state_);
}

}  // namespace

Result<ResyncReport> resync_source(const ResyncOptions& options, const std::stop_token& stop) {
  MILLRACE_ASSIGN_OR_RETURN(SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(TablePatterns all, TablePatterns::parse({}));
  ResyncOptions parsed = options;
  MILLRACE_ASSIGN_OR_RETURN(parsed.outbox, parse_table_names(options.outbox));
  return Resync(parsed, stop, std::move(address), std::move(all)).run();
}

}  // namespace millrace
