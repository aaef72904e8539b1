#include "capture/capture.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "base/bytes.h"
#include "capture/partial_changes.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"
#include "capture/stream_session.h"
#include "capture/table_patterns.h"
#include "eventstore/event_store.h"
#include "schemas/registry.h"
#include "service/shared_store.h"
#include "service/store_server.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBackoffFirst{200};
/// A slot stays taken for a moment after its client was killed.
constexpr milliseconds kSlotReleaseMax{15'000};
constexpr milliseconds kStorePause{20};
/// So much longer, if the one who holds the store has promised to make room.
constexpr milliseconds kYieldPatience{30'000};
constexpr int kStuckAttempts = 3;
constexpr int kSnapshotAttempts = 5;

/// Sleeps, but not beyond `stop`.
void pause(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, time, [] { return false; });
}

/// A discontinuity between store and source: a named state, what is so, and the way out.
Error halted(std::string_view state, const std::string& message, std::string way_out) {
  return Error(ErrorCode::kFailedPrecondition, std::string(state) + ": " + message)
      .hint(std::move(way_out));
}

/// Category of what capture itself has to say to the log's readers.
constexpr std::string_view kCaptureCategory = "$capture";

std::string in_use(const SlotInfo& slot, const std::string& name) {
  return "slot " + name + " is in use by pid " + std::to_string(slot.active_pid) + " (" +
         slot.active_application + ")";
}

/// "public.orders" of "public.orders (OID 16391, member 16402)"; empty of the publication's own
/// OID.
std::string without_oids(const std::string& line) {
  return line.starts_with("OID ") ? std::string() : line.substr(0, line.find(" (OID "));
}

std::string difference(const std::vector<std::string>& before,
                       const std::vector<std::string>& now) {
  std::vector<std::string> gone, come;
  std::set_difference(before.begin(), before.end(), now.begin(), now.end(),
                      std::back_inserter(gone));
  std::set_difference(now.begin(), now.end(), before.begin(), before.end(),
                      std::back_inserter(come));
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  const bool made_anew = std::any_of(
      gone.begin(), gone.end(), [](const std::string& line) { return without_oids(line).empty(); });
  if (made_anew) add("it was dropped and made again");
  for (const std::string& line : gone) {
    const std::string name = without_oids(line);
    const bool back = std::any_of(come.begin(), come.end(), [&](const std::string& other) {
      return without_oids(other) == name;
    });
    if (!back) add("no longer: " + name);
    if (back && !made_anew) add(name + " left it and came back, or was itself made anew");
  }
  for (const std::string& line : come)
    if (std::none_of(gone.begin(), gone.end(), [&](const std::string& other) {
          return without_oids(other) == without_oids(line);
        }))
      add("new: " + without_oids(line));
  return text;
}

std::string as_it_was(const SourceState& state) {
  std::string text;
  for (const std::string& line : state.publication_definition)
    if (const std::string part = without_oids(line); !part.empty())
      text += (text.empty() ? "" : ", ") + part;
  return text;
}

class Capture {
 public:
  Capture(const CaptureOptions& options, const std::stop_token& stop, SourceAddress address,
          TablePatterns patterns)
      : options_(options),
        stop_(stop),
        address_(std::move(address)),
        patterns_(std::move(patterns)),
        catalog_(address_) {}

  Result<void> run() {
    MILLRACE_RETURN_IF_ERROR(prepare());
    if (auto followed = follow_for_ever(); !followed) {
      // The store's own first error tells more than what came of it.
      MILLRACE_RETURN_IF_ERROR(store_->status());
      return followed;
    }
    return {};
  }

 private:
  Result<void> prepare();
  Result<void> open_store();
  Result<void> begin_epoch(const Preflight& preflight, const SystemIdentity& system);
  Result<void> drop_slot_of_last_start(const Preflight& preflight, const SystemIdentity& system);
  Result<void> keep_slot(const NewSlot& slot);
  /// A temporary slot, and (with a snapshot) a connection that sees the tables as of it.
  struct SnapshotSource {
    NewSlot slot;
    std::unique_ptr<PostgresConnection> walsender, reader;
  };
  Result<SnapshotSource> open_snapshot(const Preflight& preflight);
  Result<void> take_snapshot(const Preflight& preflight);
  Result<void> commit_snapshot(const NewSlot& slot);
  Result<void> wait_until_durable(Offset end, std::uint64_t source_end);
  Result<void> follow_for_ever();
  Result<void> follow();
  Result<void> verify_source(const SystemIdentity& system);
  Result<void> verify_slot();
  Result<void> verify_publication();
  Result<void> record_publication_change(const std::string& changes);
  bool epoch_has_begun() const;
  Result<void> outcome_of_stop() const;
  bool worth_another_try(const Error& error);

  const CaptureOptions& options_;
  std::stop_token stop_;
  SourceAddress address_;
  TablePatterns patterns_;
  Catalog catalog_;

  std::unique_ptr<SchemaRegistry> schemas_;  // outlives the store, which flushes it
  std::unique_ptr<EventStore> store_;
  std::unique_ptr<StoreServer> server_;  // of store_
  std::optional<SourceState> state_;
  std::optional<StoreOut> out_;
  std::optional<ChangeEncoder> encoder_;
  std::optional<StreamApplier> applier_;
  std::optional<Lsn> until_;
  bool connected_ = false;  ///< Since the last failure.

  std::string last_error_;
  Lsn last_error_at_;
  int repeated_errors_ = 0;
};

Result<void> Capture::open_store() {
  StoreOptions store_options;
  store_options.files = options_.files;
  store_options.durability = options_.durability;
  store_options.scrub_bytes_per_second = options_.scrub_bytes_per_second;
  store_options.compaction_bytes_per_second = options_.compaction_bytes_per_second;
  store_options.partials = partial_changes();
  store_options.before_flush = [this] { return schemas_ ? schemas_->flush() : Result<void>{}; };
  auto deadline = std::chrono::steady_clock::now() + options_.store_patience;
  for (bool promised = false;;) {
    auto store = EventStore::open(options_.store, store_options);
    if (store) {
      store_ = *std::move(store);
      break;
    }
    if (store.error().code() != ErrorCode::kLocked || stop_.stop_requested() ||
        std::chrono::steady_clock::now() >= deadline)
      return std::move(store).error();
    // Somebody who only appends, perhaps, or compacts: that ends at its next step.
    if (ask_to_yield(options_.store) && !promised) {
      promised = true;
      deadline += kYieldPatience;
    }
    pause(kStorePause, stop_);
  }
  if (options_.serve) {
    MILLRACE_ASSIGN_OR_RETURN(server_, StoreServer::start(*store_, options_.store));
  }
  MILLRACE_ASSIGN_OR_RETURN(schemas_, SchemaRegistry::open(options_.store, *options_.files));
  MILLRACE_ASSIGN_OR_RETURN(state_, load_source_state(options_.store, *options_.files));
  return {};
}

/// True once the log holds a position of the epoch that source.json names.
bool Capture::epoch_has_begun() const {
  const auto source = store_->durable_source();
  return state_ && source && source->epoch == state_->epoch;
}

/// Everything is looked at before anything is made: a store that is there first, then the source,
/// and only when both are as they must be is a new store, a publication or a slot created.
Result<void> Capture::prepare() {
  FileSystem& files = *options_.files;
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(options_.store));
  if (there) {
    MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(options_.store));
    if (!names.empty()) MILLRACE_RETURN_IF_ERROR(open_store());
  }
  if (store_ && store_->durable_source() && !state_)
    return halted("SOURCE_STATE_MISSING",
                  "the store holds captured changes, but its source.json is gone",
                  "Put the file back from a copy of the store. Without it nothing tells whether "
                  "the slot is the one that the "
                  "store was fed from: start a new --store with a slot of its own.");
  const bool resumes = store_ && epoch_has_begun();
  if (resumes && (state_->slot != options_.slot || state_->publication != options_.publication))
    return Error(ErrorCode::kInvalidArgument, "this store is fed from slot " + state_->slot +
                                                  " and publication " + state_->publication)
        .hint("Start with --slot " + state_->slot + " --publication " + state_->publication +
              ", or with another --store.");

  MILLRACE_ASSIGN_OR_RETURN(const Preflight preflight,
                            run_preflight(catalog_, {.patterns = patterns_,
                                                     .slot = options_.slot,
                                                     .publication = options_.publication}));
  preflight.log_findings(resumes);
  SystemIdentity system;
  if (!resumes) {
    MILLRACE_RETURN_IF_ERROR(preflight.require_no_problem());
    MILLRACE_ASSIGN_OR_RETURN(const auto connection,
                              PostgresConnection::open(address_, true, stop_));
    MILLRACE_ASSIGN_OR_RETURN(system, identify_system(*connection));
    MILLRACE_RETURN_IF_ERROR(drop_slot_of_last_start(preflight, system));
    if (!store_) MILLRACE_RETURN_IF_ERROR(open_store());
  }
  if (options_.until_caught_up) {
    MILLRACE_ASSIGN_OR_RETURN(until_, catalog_.flushed_position());
  }
  if (!resumes) MILLRACE_RETURN_IF_ERROR(begin_epoch(preflight, system));

  const SourcePosition source = *store_->durable_source();
  out_.emplace(*store_, Lsn{source.end});
  encoder_.emplace(*schemas_, catalog_, *out_);
  applier_.emplace(*encoder_, *out_, state_->epoch, Lsn{source.commit});
  return {};
}

/// A slot that a start of this store has made right before it was killed: it noted slot and
/// position in source.json first, and nobody has moved the slot since. Any other slot of our name
/// is somebody else's.
Result<void> Capture::drop_slot_of_last_start(const Preflight& preflight,
                                              const SystemIdentity& system) {
  std::string last = state_ && state_->slot_start != Lsn{} ? state_->slot : "";
  if (!last.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(last));
    const bool ours = slot && state_->system_id == system.system_id &&
                      slot->database == state_->database &&
                      slot->confirmed_flush == state_->slot_start;
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

/// The publication comes first: a slot decodes with the catalog as it was at its position.
Result<void> Capture::begin_epoch(const Preflight& preflight, const SystemIdentity& system) {
  const bool made_publication = !preflight.publication.has_value();
  if (made_publication) {
    MILLRACE_RETURN_IF_ERROR(catalog_.execute(create_publication_statement(
        options_.publication, preflight.tables, preflight.server.version)));
    spdlog::info("publication {} created for {} tables", printable(options_.publication),
                 preflight.tables.size());
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog_.publication(options_.publication));
  if (!publication)
    return halted("PUBLICATION_MISSING",
                  "publication " + options_.publication + " has just vanished", "Start again.");

  const auto source = store_->durable_source();
  state_ =
      SourceState{.epoch = std::max(state_ ? state_->epoch : 0, source ? source->epoch : 0) + 1,
                  .system_id = system.system_id,
                  .timeline = system.timeline,
                  .database = preflight.server.database,
                  .host = address_.host(),
                  .slot = options_.slot,
                  .slot_start = {},
                  .publication = options_.publication,
                  .publication_definition = publication->definition};
  return take_snapshot(preflight);
}

/// A TRUNCATE between slot and copy would show through: it is not transactional to those who look
/// with an older snapshot. So the tables are locked, and if their files are others than before the
/// slot was made, all is done again.
///
/// The slot is a temporary one: whatever ends this start before its snapshot is whole leaves
/// nothing on the server.
Result<Capture::SnapshotSource> Capture::open_snapshot(const Preflight& preflight) {
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
Result<void> Capture::take_snapshot(const Preflight& preflight) {
  MILLRACE_ASSIGN_OR_RETURN(const SnapshotSource source, open_snapshot(preflight));
  const Lsn start = source.slot.consistent_point;
  MILLRACE_RETURN_IF_ERROR(
      store_->begin({.source = {.epoch = state_->epoch, .commit = start.value - 1, .end = 0},
                     .source_xid = 0,
                     .commit_time = Clock::system().wall(),
                     .snapshot = options_.initial_snapshot}));
  if (source.reader) {
    StoreOut out(*store_, Lsn{});
    ChangeEncoder encoder(*schemas_, catalog_, out);
    auto rows = copy_snapshot(*source.reader, catalog_, preflight.tables, options_.publication,
                              source.slot, encoder);
    if (!rows) {
      MILLRACE_RETURN_IF_ERROR(store_->rollback());
      return std::move(rows).error().context("initial snapshot");
    }
    MILLRACE_RETURN_IF_ERROR(end_snapshot(*source.reader));
    spdlog::info("initial snapshot: {} rows of {} tables as of {}", *rows, preflight.tables.size(),
                 to_string(start));
  }
  if (auto kept = keep_slot(source.slot); !kept) {
    MILLRACE_RETURN_IF_ERROR(store_->rollback());
    return kept;
  }
  // From here on the slot stays, whatever comes: a commit that fails or is not waited for may still
  // be found durable by the next start, which then needs it, or else drops it.
  return commit_snapshot(source.slot);
}

/// Makes the start's temporary slot into the one that stays: a copy of it, at the same position.
/// What source.json says before lets a start after a crash know this slot for its own.
Result<void> Capture::keep_slot(const NewSlot& slot) {
  state_->slot_start = slot.consistent_point;
  MILLRACE_RETURN_IF_ERROR(save_source_state(options_.store, *state_, *options_.files));
  MILLRACE_RETURN_IF_ERROR(catalog_.execute("SELECT pg_copy_logical_replication_slot('" +
                                            slot.name + "', '" + options_.slot + "', false)"));
  spdlog::info("slot {} created at {}", options_.slot, to_string(slot.consistent_point));
  return {};
}

Result<void> Capture::commit_snapshot(const NewSlot& slot) {
  const std::uint64_t position = slot.consistent_point.value;
  MILLRACE_ASSIGN_OR_RETURN(const Offset end, store_->commit(position));
  return wait_until_durable(end, position);
}

Result<void> Capture::wait_until_durable(Offset end, std::uint64_t source_end) {
  store_->request_flush();
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool durable,
                              store_->wait_durable(end, source_end, milliseconds(1000)));
    if (durable) return {};
    if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
  }
}

/// Errors that pass by themselves are worth a new connection; the same one three times at the same
/// place is not.
bool Capture::worth_another_try(const Error& error) {
  if (error.code() == ErrorCode::kCancelled || !store_->status()) return false;
  if (error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kLocked) return true;
  const Lsn at{store_->durable_source()->end};
  const bool same = error.message() == last_error_ && at == last_error_at_;
  repeated_errors_ = same ? repeated_errors_ + 1 : 1;
  last_error_ = error.message();
  last_error_at_ = at;
  return repeated_errors_ < kStuckAttempts;
}

Result<void> Capture::follow_for_ever() {
  std::minstd_rand jitter(std::random_device{}());
  milliseconds backoff = kBackoffFirst;
  auto locked_since = std::chrono::steady_clock::now();
  for (;;) {
    connected_ = false;
    auto followed = follow();
    if (followed || stop_.stop_requested()) return outcome_of_stop();
    const Error& error = followed.error();
    const auto now = std::chrono::steady_clock::now();
    if (connected_) backoff = kBackoffFirst;
    if (connected_ || error.code() != ErrorCode::kLocked) locked_since = now;
    const bool halted_state =
        error.code() == ErrorCode::kFailedPrecondition && !error.hint().empty();
    if (halted_state || !worth_another_try(error)) {
      if (repeated_errors_ < kStuckAttempts) return followed;
      return halted("STUCK_AT_LSN",
                    "after " + to_string(last_error_at_) + " the same error came " +
                        std::to_string(kStuckAttempts) + " times: " + error.message(),
                    "PostgreSQL can't send, or millrace can't take, the next transaction. Nothing "
                    "was skipped. Mend the cause "
                    "(the message names it) and start again.");
    }
    if (error.code() == ErrorCode::kLocked && now - locked_since > kSlotReleaseMax) return followed;
    const milliseconds wait =
        backoff + milliseconds(jitter() % static_cast<unsigned>(backoff.count() / 4 + 1));
    spdlog::warn("{}; trying again in {} ms", printable(error.message(), 1000), wait.count());
    pause(wait, stop_);
    backoff = std::min(backoff * 2, options_.backoff_max);
    if (stop_.stop_requested()) return outcome_of_stop();
  }
}

/// Being asked to stop hides neither a store that has failed nor a goal that was not reached.
Result<void> Capture::outcome_of_stop() const {
  MILLRACE_RETURN_IF_ERROR(store_->status());
  const auto source = store_->durable_source();
  if (until_ && Lsn{source->end} < *until_)
    return Error(ErrorCode::kCancelled, "stopped at " + to_string(Lsn{source->end}) +
                                            ", before it had caught up with " + to_string(*until_))
        .hint("Nothing is lost: the next start goes on from there.");
  return {};
}

/// One connection's life: look that the source is still the one the store knows, then stream.
Result<void> Capture::follow() {
  MILLRACE_RETURN_IF_ERROR(applier_->reset());
  encoder_->reset();
  MILLRACE_ASSIGN_OR_RETURN(const auto connection, PostgresConnection::open(address_, true, stop_));
  MILLRACE_ASSIGN_OR_RETURN(const SystemIdentity system, identify_system(*connection));
  MILLRACE_RETURN_IF_ERROR(verify_source(system));
  MILLRACE_RETURN_IF_ERROR(verify_slot());
  MILLRACE_RETURN_IF_ERROR(verify_publication());

  const Lsn from = out_->end();
  MILLRACE_RETURN_IF_ERROR(start_replication(*connection, state_->slot, from, state_->publication));
  connected_ = true;
  spdlog::info("streaming {} from slot {} at {}", address_.describe(), state_->slot,
               to_string(from));
  StreamSession session(*connection, *store_, *out_, *applier_,
                        {.epoch = state_->epoch,
                         .status_interval = options_.status_interval,
                         .until = until_,
                         .look_interval = options_.look_interval,
                         .look_around = [this] { return verify_publication(); }});
  return session.run(stop_);
}

Result<void> Capture::verify_source(const SystemIdentity& system) {
  const Lsn known = out_->end();
  if (system.system_id != state_->system_id)
    return halted(
        "NEW_CLUSTER",
        "the server's system identifier is " + system.system_id + ", the store was fed by " +
            state_->system_id,
        "Connect to the server that the store knows, or start a new --store for this one.");
  if (system.database != state_->database)
    return halted(
        "OTHER_DATABASE",
        "connected to database " + system.database + ", the store was fed by " + state_->database,
        "Name database " + state_->database + " in --source, or start a new --store.");
  if (system.timeline != state_->timeline)
    return halted("TIMELINE_CHANGED",
                  "the server is on timeline " + std::to_string(system.timeline) +
                      ", the store knows " + std::to_string(state_->timeline) + " up to " +
                      to_string(known),
                  "The server was promoted or restored: its history may have parted from the "
                  "store's. Start a new --store "
                  "with a slot of its own, and rebuild the views from it.");
  if (system.flushed < known)
    return halted(
        "SOURCE_REWOUND",
        "the server's WAL ends at " + to_string(system.flushed) +
            ", before the store's last position " + to_string(known),
        "The server was restored from an older copy. Start a new --store with a slot of its own.");
  return {};
}

Result<void> Capture::verify_slot() {
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(state_->slot));
  const std::string anew =
      "What was committed since " + to_string(out_->end()) +
      " can no longer be read from the server. Start a new --store, and rebuild the views from it.";
  if (!slot)
    return halted("SLOT_MISSING", "slot " + state_->slot + " is gone from the server", anew);
  if (slot->plugin != "pgoutput" || slot->database != state_->database)
    return halted("SLOT_REPLACED",
                  "slot " + state_->slot + " is now one of plugin " + slot->plugin +
                      " in database " + slot->database,
                  anew);
  if (slot->wal_status == "lost")
    return halted(
        "SLOT_LOST",
        "PostgreSQL has invalidated slot " + state_->slot + ": WAL that it needed was removed",
        anew + " A larger max_slot_wal_keep_size leaves more time.");
  if (slot->confirmed_flush && *slot->confirmed_flush > out_->end())
    return halted(
        "SOURCE_GAP",
        "slot " + state_->slot + " is confirmed up to " + to_string(*slot->confirmed_flush) +
            ", but the store ends at " + to_string(out_->end()),
        "Another program has moved the slot, it was made anew, or the store is an older copy or "
        "was repaired. " +
            anew);
  if (slot->active)
    return Error(ErrorCode::kLocked, in_use(*slot, state_->slot))
        .hint(
            "Only one capture may read a slot: stop the other one, or use another --slot with a "
            "--store of its own.");
  return {};
}

Result<void> Capture::verify_publication() {
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog_.publication(state_->publication));
  if (!publication)
    return halted(
        "PUBLICATION_MISSING", "publication " + state_->publication + " is gone from the server",
        "Changes since then can't be decoded. Make it again as it was (" + as_it_was(*state_) +
            ") and start once with --accept-publication-change; if PostgreSQL then still reports "
            "that it does "
            "not exist, start a new --store.");
  if (publication->definition == state_->publication_definition) return {};
  const std::string changes = difference(state_->publication_definition, publication->definition);
  if (!options_.accept_publication_change)
    return halted("PUBLICATION_CHANGED",
                  "publication " + state_->publication + " is not what it was: " + changes,
                  "Change it back, or start with --accept-publication-change: tables that are new "
                  "in it are then captured from "
                  "here on, without the rows that they have now.");
  spdlog::warn("publication {} changed, accepted: {}", printable(state_->publication),
               printable(changes, 2000));
  MILLRACE_RETURN_IF_ERROR(record_publication_change(changes));
  state_->publication_definition = publication->definition;
  return save_source_state(options_.store, *state_, *options_.files);
}

/// Readers of the log must be able to tell that tables are incomplete from here on.
Result<void> Capture::record_publication_change(const std::string& changes) {
  const std::string payload = nlohmann::json{
      {"publication", state_->publication},
      {"changes", changes},
      {"captured_up_to",
       to_string(out_->end())}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const NewEvent event{.category = kCaptureCategory,
                       .key = state_->slot,
                       .type = "publication_changed",
                       .payload = payload,
                       .metadata = {}};
  MILLRACE_RETURN_IF_ERROR(store_->append(
      {.source = {}, .source_xid = 0, .commit_time = Clock::system().wall()}, {&event, 1}));
  return wait_until_durable(store_->appended_end(), 0);
}

}  // namespace

Result<void> run_capture(const CaptureOptions& options, const std::stop_token& stop) {
  MILLRACE_RETURN_IF_ERROR(require_slot_name(options.slot));
  MILLRACE_ASSIGN_OR_RETURN(SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(TablePatterns patterns, TablePatterns::parse(options.tables));
  Capture capture(options, stop, std::move(address), std::move(patterns));
  auto outcome = capture.run();
  const bool asked =
      !outcome && outcome.error().code() == ErrorCode::kCancelled && stop.stop_requested();
  if (asked && !options.until_caught_up) return {};
  return outcome;
}

}  // namespace millrace
