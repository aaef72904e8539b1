#include "capture/capture.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/progress.h"
#include "capture/daemon/catch_up.h"
#include "capture/daemon/first_start.h"
#include "capture/daemon/known_history.h"
#include "capture/daemon/schema_teller.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/store_history.h"
#include "capture/daemon/store_out.h"
#include "capture/daemon/stream_session.h"
#include "capture/daemon/table_snapshots.h"
#include "capture/daemon/telemetry.h"
#include "capture/partial_changes.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/stream_applier.h"
#include "capture/pipeline/transaction_spill.h"
#include "capture/postgres/binary_choice.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/client_library.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"
#include "capture/table_patterns.h"
#include "eventstore/event_store.h"
#include "schemas/registry.h"
#include "service/shared_store.h"
#include "service/store_server.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

/// Captured rows are small: 128 MiB of them may be ten million, and the index of a segment is made
/// in memory.
constexpr std::uint64_t kSegmentEvents = 1 << 19;
constexpr milliseconds kBackoffFirst{200};
/// Of a capture of this store that was killed, until the server notices (wal_sender_timeout).
constexpr int kGhostPatience = 6;
constexpr milliseconds kStorePause{20};
/// So much longer, if the one who holds the store has promised to make room.
constexpr milliseconds kYieldPatience{30'000};
constexpr int kStuckAttempts = 3;
/// After draining a backlog in stretches did not pay.
constexpr std::chrono::minutes kStreamAtLeast{5};

/// Sleeps, but not beyond `stop`.
void pause(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, time, [] { return false; });
}

class Capture {
 public:
  Capture(const CaptureOptions& options, const std::stop_token& stop, SourceAddress address,
          TablePatterns patterns, std::optional<TablePatterns> complete_rows)
      : options_(options),
        stop_(stop),
        address_(std::move(address)),
        patterns_(std::move(patterns)),
        complete_rows_(std::move(complete_rows)),
        catalog_(address_),
        first_start_(options_, stop_, address_, catalog_),
        telemetry_(options_, address_) {}

  Result<void> run() {
    if (const std::string weakness = libpq_weakness(); !weakness.empty()) spdlog::warn(weakness);
    MILLRACE_RETURN_IF_ERROR(telemetry_.listen());
    auto outcome = capture();
    if (stop_.stop_requested()) tell_stop(outcome);
    telemetry_.ended(outcome);
    return outcome;
  }

 private:
  Result<void> capture() {
    MILLRACE_RETURN_IF_ERROR(prepare());
    telemetry_.watch(address_, state_->slot);
    if (auto followed = follow_for_ever(); !followed) {
      // The store's own first error tells more than what came of it.
      MILLRACE_RETURN_IF_ERROR(store_->status());
      return followed;
    }
    return {};
  }
  Result<void> prepare();
  Result<void> open_store();
  Result<void> check_outbox(const Preflight& preflight);
  Result<void> publication_changed(std::vector<SourceTable> published,
                                   std::vector<SourceTable> joined);
  void tell_weak(const std::vector<SourceTable>& tables);
  Result<void> follow_for_ever();
  Result<void> follow();
  Result<std::unique_ptr<PostgresConnection>> connect();
  Result<Lsn> drain_backlog();
  bool is_caught_up() const;
  std::uint64_t distance(Lsn server_end) const;
  bool drains(std::uint64_t behind) const;
  bool epoch_has_begun() const;
  Result<void> outcome_of_stop() const;
  void tell_stop(const Result<void>& outcome) const;
  bool worth_another_try(const Error& error);
  bool text_instead(const Error& error);

  const CaptureOptions& options_;
  std::stop_token stop_;
  SourceAddress address_;
  TablePatterns patterns_;
  std::optional<TablePatterns> complete_rows_;
  Catalog catalog_;
  FirstStart first_start_;
  Telemetry telemetry_;

  std::unique_ptr<SchemaRegistry> schemas_;  // outlives the store, which flushes it
  std::unique_ptr<EventStore> store_;
  std::unique_ptr<StoreServer> server_;  // of store_
  std::optional<SourceState> state_;
  std::optional<StoreOut> out_;
  std::optional<StoreHistory>
      history_;  // between snapshots_ and out_, if rows are to be made whole
  std::optional<SchemaTeller> teller_;
  std::optional<TableSnapshots> snapshots_;
  std::optional<ChangeEncoder> encoder_;
  std::unique_ptr<TransactionSpill> spill_;
  std::optional<StreamApplier> applier_;
  std::optional<PublicationKeeper> keeper_;
  std::optional<SourceGuard> guard_;
  std::optional<Lsn> until_;
  bool connected_ = false;    ///< Since the last failure.
  std::uint64_t behind_ = 0;  ///< In bytes of WAL, when we last looked.
  std::chrono::steady_clock::time_point no_draining_before_;
  /// The disk had no room for transactions in progress, or one can't be read so: the next
  /// connection asks for none.
  bool hold_back_ = false;
  std::optional<Lsn> without_parts_at_;  ///< That was tried after an error that came again there.
  ValueForm form_ = ValueForm::kText;    ///< That the last connection asked for.
  bool text_only_ = false;               ///< Binary did not work once.

  std::set<std::uint32_t> told_weak_;  ///< Tables whose weakness, if any, was told.

  std::string last_error_;
  Lsn last_error_at_;
  int repeated_errors_ = 0;
};

Result<void> Capture::open_store() {
  StoreOptions store_options;
  store_options.files = options_.files;
  store_options.durability = options_.durability;
  store_options.segment_events = kSegmentEvents;
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
  if (address_.value("application_name").empty())
    address_ = address_.with("application_name", capture_name(store_->id()));
  if (options_.serve) {
    MILLRACE_ASSIGN_OR_RETURN(server_, StoreServer::start(*store_, options_.store));
  }
  MILLRACE_ASSIGN_OR_RETURN(schemas_, SchemaRegistry::open(options_.store, *options_.files));
  MILLRACE_ASSIGN_OR_RETURN(state_, load_source_state(options_.store, *options_.files));
  telemetry_.store_is_open();
  return {};
}

/// True once the log holds a position of the epoch that source.json names.
bool Capture::epoch_has_begun() const {
  const auto source = store_->durable_source();
  return state_ && source && source->epoch == state_->epoch;
}

std::string outbox_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "--outbox " : ",") + name;
  return text.empty() ? "no --outbox" : text;
}

/// Rows that were changes of a table can't become events unnoticed, nor the other way round.
Result<void> Capture::check_outbox(const Preflight& preflight) {
  if (state_->outbox == options_.outbox) return {};
  const std::string before = outbox_text(state_->outbox), now = outbox_text(options_.outbox);
  if (!options_.accept_publication_change)
    return halted("OUTBOX_CHANGED", "this store is fed with " + before + ", not " + now,
                  "Start with it as it was; or, to have what is committed behind the store's end "
                  "read with the new one, once with --accept-publication-change. Rows that a new "
                  "outbox has already are not read; those of a table that is none any more are by "
                  "`millrace capture resnapshot`.");
  MILLRACE_RETURN_IF_ERROR(preflight.require_no_problem("outbox"));
  if (state_->unfinished_snapshots)
    return halted("OUTBOX_CHANGED", "snapshots of this store are not whole yet",
                  "Start with " + before + " until they are (`millrace status`), then change it.");
  spdlog::warn("it was {} and is now {}, accepted", before, now);
  state_->outbox = options_.outbox;
  return save_source_state(options_.store, *state_, *options_.files);
}

/// Of tables that preflight has not told of.
void Capture::tell_weak(const std::vector<SourceTable>& tables) {
  for (const SourceTable& table : tables)
    if (!weakness_of(table).empty() && told_weak_.insert(table.oid).second)
      spdlog::warn("table {}: {}", printable(table.name()), weakness_of(table));
}

/// An outbox has no rows that a snapshot could tell of.
Result<void> Capture::publication_changed(std::vector<SourceTable> published,
                                          std::vector<SourceTable> joined) {
  const auto is_outbox = [this](const SourceTable& table) {
    return is_named(options_.outbox, table.name());
  };
  std::erase_if(published, is_outbox);
  std::erase_if(joined, is_outbox);
  tell_weak(joined);
  return snapshots_->publication_changed(published, joined, options_.initial_snapshot);
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
                  "store was fed from; `millrace capture resync --accept-new-source` then compares "
                  "the tables with the "
                  "store and goes on with a new slot.");
  const bool resumes = store_ && epoch_has_begun();
  if (!resumes && state_ && state_->resync)
    return halted("RESYNC_UNFINISHED", "a resync of this store ended before it was whole",
                  "Run `millrace capture resync` again.");
  if (resumes && (state_->slot != options_.slot || state_->publication != options_.publication))
    return Error(ErrorCode::kInvalidArgument, "this store is fed from slot " + state_->slot +
                                                  " and publication " + state_->publication)
        .hint("Start with --slot " + state_->slot + " --publication " + state_->publication +
              ", or with another --store.");

  MILLRACE_ASSIGN_OR_RETURN(
      const Preflight preflight,
      run_preflight(catalog_, {.patterns = patterns_,
                               .slot = options_.slot,
                               .publication = options_.publication,
                               .reads_rows = options_.initial_snapshot && !resumes,
                               .brings_in_step = resumes,
                               .outbox = options_.outbox}));
  preflight.log_findings(resumes);
  for (const SourceTable& table : preflight.tables) told_weak_.insert(table.oid);
  if (resumes) MILLRACE_RETURN_IF_ERROR(check_outbox(preflight));
  SystemIdentity system;
  if (!resumes) {
    MILLRACE_RETURN_IF_ERROR(preflight.require_no_problem());
    MILLRACE_ASSIGN_OR_RETURN(const auto connection,
                              PostgresConnection::open(address_, true, stop_));
    MILLRACE_ASSIGN_OR_RETURN(system, identify_system(*connection));
    MILLRACE_RETURN_IF_ERROR(first_start_.drop_slot_of_last_start(preflight, system, state_));
    if (!store_) MILLRACE_RETURN_IF_ERROR(open_store());
  }
  if (options_.until_caught_up) {
    MILLRACE_ASSIGN_OR_RETURN(until_, catalog_.flushed_position());
  }
  if (!resumes) {
    telemetry_.monitor().enter(CapturePhase::kSnapshot);
    MILLRACE_ASSIGN_OR_RETURN(state_,
                              first_start_.run(preflight, system, state_, *store_, *schemas_));
  }

  const SourcePosition source = *store_->durable_source();
  // A stop may come before the stream does.
  telemetry_.monitor().progress(
      {.durable = Lsn{source.end}, .confirmed = {}, .store_end = store_->durable_end().value});
  // The last transaction of the snapshot lies right below the slot's start. Where it is gone, which
  // a repair may have done, the log tells what is missing.
  if (Lsn{source.end} == state_->slot_start && source.commit + 1 != source.end &&
      !state_->unfinished_snapshots)
    state_->unfinished_snapshots = 0;
  out_.emplace(*store_, Lsn{source.end}, telemetry_.monitor());
  EventOut* out = &*out_;
  if (complete_rows_) {
    history_.emplace(*out_, *store_, options_.store, *options_.files, *complete_rows_);
    out = &*history_;
  }
  teller_.emplace(*out, *schemas_, options_.store, *options_.files);
  snapshots_.emplace(*store_, *teller_, *schemas_, catalog_, *state_,
                     TableSnapshots::Options{.store = options_.store,
                                             .files = options_.files,
                                             .address = address_,
                                             .give_up_early = options_.until_caught_up,
                                             .stop = stop_});
  MILLRACE_RETURN_IF_ERROR(snapshots_->resume());
  encoder_.emplace(*schemas_, catalog_, *snapshots_);
  if (history_) encoder_->use_history(*history_);
  encoder_->use_outbox(options_.outbox);
  keeper_.emplace(
      catalog_, state_->publication,
      PublicationKeeper::Options{
          .given = patterns_.given() ? std::optional(patterns_) : std::nullopt,
          .outbox = options_.outbox,
          .reads_rows = options_.initial_snapshot && preflight.server.version >= kWatermarksSince});
  guard_.emplace(
      catalog_, *store_, *state_,
      SourceGuard::Options{.store = options_.store,
                           .files = options_.files,
                           .accept_publication_change = options_.accept_publication_change,
                           .keeper = &*keeper_,
                           .stop = stop_,
                           .on_accepted = [this](const auto& published, const auto& joined) {
                             return publication_changed(published, joined);
                           }});
  // Where other tables count than before, transactions may have changes now in which the log found
  // none.
  HistoryCheck history;
  if (!options_.accept_publication_change) {
    MILLRACE_ASSIGN_OR_RETURN(history,
                              known_history(options_.store, state_->epoch, *options_.files));
  }
  MILLRACE_ASSIGN_OR_RETURN(spill_,
                            TransactionSpill::open(options_.store / "spill", *options_.files));
  applier_.emplace(*encoder_, *snapshots_, state_->epoch, Lsn{source.commit}, spill_.get(),
                   history);
  applier_->set_own_messages(&*snapshots_);
  return {};
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
  if (repeated_errors_ < kStuckAttempts) return true;
  // PostgreSQL decodes parts of a transaction in progress that are rolled back later, and has met
  // errors in them that it does not meet in what was committed.
  if (!connected_ || without_parts_at_ == at) return false;
  spdlog::warn("once more without transactions in progress: {}", printable(last_error_, 1000));
  without_parts_at_ = at;
  hold_back_ = true;
  repeated_errors_ = 0;
  return true;
}

/// A value in binary that only its text tells exactly, and a type that the server can't send in
/// binary, come with a column that was not there when the connection began. The transaction that it
/// is part of is sent again whole on the next one, as text, like all that follow. So whatever else
/// goes wrong in binary is tried once as text too.
bool Capture::text_instead(const Error& error) {
  if (form_ != ValueForm::kBinary || is_halt(error) || error.code() == ErrorCode::kUnavailable ||
      error.code() == ErrorCode::kLocked || error.code() == ErrorCode::kCancelled ||
      error.code() == ErrorCode::kNoSpace || !store_->status())
    return false;
  spdlog::info("values are asked for as text from now on: {}", printable(error.message(), 1000));
  return text_only_ = true;
}

Result<void> Capture::follow_for_ever() {
  std::minstd_rand jitter(std::random_device{}());
  const milliseconds first = std::min(kBackoffFirst, options_.backoff_max);
  milliseconds backoff = first;
  auto locked_since = std::chrono::steady_clock::now();
  for (;;) {
    connected_ = false;
    auto followed = follow();
    // What is open must not keep others' appends waiting, nor the end of this process.
    if (auto closed = applier_->reset(); followed && !closed) followed = std::move(closed);
    if (stop_.stop_requested() || (followed && is_caught_up())) return outcome_of_stop();
    if (followed) continue;  // there is a better way to go on than the one that ended
    const Error& error = followed.error();
    if (text_instead(error)) continue;
    const auto now = std::chrono::steady_clock::now();
    if (connected_) backoff = first;
    if (connected_ || error.code() != ErrorCode::kLocked) locked_since = now;
    if (is_halt(error) || !worth_another_try(error)) {
      if (repeated_errors_ < kStuckAttempts) return followed;
      return halted("STUCK_AT_LSN",
                    "after " + to_string(last_error_at_) + " the same error came " +
                        std::to_string(kStuckAttempts) + " times: " + error.message(),
                    "PostgreSQL can't send, or millrace can't take, the next transaction. Nothing "
                    "was skipped. Mend the cause "
                    "(the message names it) and start again. If it can't be mended, `millrace "
                    "capture resync` goes on behind it, with what the tables hold now.");
    }
    if (error.code() == ErrorCode::kLocked &&
        now - locked_since >
            options_.slot_patience * (guard_->held_by_own_ghost() ? kGhostPatience : 1))
      return followed;
    const milliseconds base =
        was_refused(error) ? std::max(backoff, options_.refused_pause) : backoff;
    const milliseconds wait =
        base + milliseconds(jitter() % static_cast<unsigned>(backoff.count() / 4 + 1));
    telemetry_.lost(error);
    spdlog::warn("{}; trying again in {} ms", printable(error.message(), 1000), wait.count());
    pause(wait, stop_);
    backoff = std::min(backoff * 2, options_.backoff_max);
    if (stop_.stop_requested()) return outcome_of_stop();
  }
}

/// With a goal: whether everything up to it is durable, and no table is still being read.
bool Capture::is_caught_up() const {
  return until_ && Lsn{store_->durable_source()->end} >= *until_ && !snapshots_->busy();
}

/// Bytes of WAL from the log's end to there.
std::uint64_t Capture::distance(Lsn server_end) const {
  return server_end > out_->end() ? server_end.value - out_->end().value : 0;
}

/// Being asked to stop hides neither a store that has failed nor a goal that was not reached.
Result<void> Capture::outcome_of_stop() const {
  MILLRACE_RETURN_IF_ERROR(store_->status());
  if (until_ && !is_caught_up())
    return Error(ErrorCode::kCancelled, "stopped at " +
                                            to_string(Lsn{store_->durable_source()->end}) +
                                            ", before it had caught up with " + to_string(*until_))
        .hint("Nothing is lost: the next start goes on from there.");
  return {};
}

/// Where it ended and where the next start goes on; of an error that itself tells.
void Capture::tell_stop(const Result<void>& outcome) const {
  if (until_ || (!outcome && outcome.error().code() != ErrorCode::kCancelled)) return;
  if (!store_) return;
  if (const auto source = store_->durable_source())
    spdlog::info("stopped at offset {}, LSN {}: the next start goes on there",
                 store_->durable_end().value, to_string(Lsn{source->end}));
  else
    spdlog::info("stopped before any row was in the store: the next start begins anew");
}

/// A walsender of the source that the store knows.
Result<std::unique_ptr<PostgresConnection>> Capture::connect() {
  MILLRACE_ASSIGN_OR_RETURN(auto connection, PostgresConnection::open(address_, true, stop_));
  MILLRACE_ASSIGN_OR_RETURN(const Lsn end, catalog_.wal_end());
  MILLRACE_ASSIGN_OR_RETURN(const Lsn slot, guard_->check_all(*connection, out_->end()));
  applier_->history().begin(slot);
  behind_ = distance(end);
  telemetry_.monitor().connected(end);
  return connection;
}

/// One connection's life: drain a large backlog, then stream.
Result<void> Capture::follow() {
  form_ = ValueForm::kText;
  MILLRACE_RETURN_IF_ERROR(applier_->reset());
  MILLRACE_RETURN_IF_ERROR(snapshots_->begin_session());
  MILLRACE_ASSIGN_OR_RETURN(auto connection, connect());
  Lsn checked_to;
  if (drains(behind_)) {
    connection.reset();
    MILLRACE_ASSIGN_OR_RETURN(checked_to, drain_backlog());
    MILLRACE_ASSIGN_OR_RETURN(connection, connect());
  }
  if (!text_only_ && connection->server_version() >= kBinaryServerMin) {
    MILLRACE_ASSIGN_OR_RETURN(const bool exact, binary_is_exact(catalog_, state_->publication));
    form_ = exact ? ValueForm::kBinary : ValueForm::kText;
  }
  const Lsn from = applier_->history().start(out_->end());
  const auto in_progress =
      std::exchange(hold_back_, false) ? InProgress::kHeldBack : InProgress::kStreamed;
  MILLRACE_RETURN_IF_ERROR(
      start_replication(*connection, state_->slot, from, state_->publication, in_progress, form_));
  MILLRACE_ASSIGN_OR_RETURN(const Lsn held_at, guard_->check_not_moved(out_->end()));
  applier_->history().begin(held_at);
  connected_ = true;
  spdlog::info("streaming {} from slot {} at {}", address_.describe(), state_->slot,
               to_string(from));
  StreamSession session(*connection, *store_, *out_, *applier_,
                        {.epoch = state_->epoch,
                         .status_interval = options_.status_interval,
                         .silence_max = options_.silence_max,
                         .until = until_,
                         .checked_to = checked_to,
                         .look_interval = options_.look_interval,
                         .look_around = [this]() -> Result<bool> {
                           MILLRACE_RETURN_IF_ERROR(guard_->check_publication(out_->end()));
                           MILLRACE_ASSIGN_OR_RETURN(const Lsn end, catalog_.wal_end());
                           const std::uint64_t before = std::exchange(behind_, distance(end));
                           if (!drains(behind_) || behind_ <= before) return false;
                           spdlog::info("streaming is {} of WAL behind, and falls further behind",
                                        human_bytes(static_cast<double>(behind_)));
                           return true;
                         },
                         .monitor = &telemetry_.monitor(),
                         .snapshots = &*snapshots_});
  auto outcome = session.run(stop_);
  if (!outcome && applier_->needs_whole_transactions()) hold_back_ = true;
  if (!outcome && spill_->ran_full()) {
    // One huge transaction, which may yet be rolled back, shall not hold up all the others.
    hold_back_ = true;
    spdlog::warn(
        "the disk has no room for transactions in progress. The next connection leaves them with "
        "PostgreSQL until they commit; then the log needs the room");
  }
  return outcome;
}

/// True where draining a backlog of so much WAL in stretches is the faster way.
bool Capture::drains(std::uint64_t behind) const {
  const CatchUpBounds& bounds = options_.catch_up;
  return bounds.from != 0 && behind >= bounds.from &&
         std::chrono::steady_clock::now() >= no_draining_before_;
}

/// Gives up to where the server was read.
Result<Lsn> Capture::drain_backlog() {
  CatchUp catch_up(address_, catalog_, *store_, *out_, *applier_,
                   {.slot = state_->slot,
                    .publication = state_->publication,
                    .epoch = state_->epoch,
                    .bounds = options_.catch_up,
                    .until = until_,
                    .look_interval = options_.look_interval,
                    .look_around = [this] { return guard_->check_publication(out_->end()); }});
  MILLRACE_ASSIGN_OR_RETURN(const CatchUp::End end, catch_up.run(stop_));
  connected_ = true;
  if (end == CatchUp::End::kDoesNotPay)
    no_draining_before_ = std::chrono::steady_clock::now() + kStreamAtLeast;
  return end == CatchUp::End::kNear ? out_->end() : Lsn{};
}

}  // namespace

Result<void> require_listen_address(const std::string& text) {
  if (text.empty()) return {};
  MILLRACE_RETURN_IF_ERROR(ListenAddress::parse(text));
  return {};
}

Result<void> run_capture(const CaptureOptions& options, const std::stop_token& stop) {
  MILLRACE_RETURN_IF_ERROR(require_slot_name(options.slot));
  MILLRACE_ASSIGN_OR_RETURN(SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(TablePatterns patterns, TablePatterns::parse(options.tables));
  std::optional<TablePatterns> complete_rows;
  if (!options.complete_rows.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(complete_rows, TablePatterns::parse(options.complete_rows));
  }
  CaptureOptions parsed = options;
  MILLRACE_ASSIGN_OR_RETURN(parsed.outbox, parse_table_names(options.outbox));
  Capture capture(parsed, stop, std::move(address), std::move(patterns), std::move(complete_rows));
  auto outcome = capture.run();
  const bool asked =
      !outcome && outcome.error().code() == ErrorCode::kCancelled && stop.stop_requested();
  if (asked && !options.until_caught_up) return {};
  return outcome;
}

}  // namespace millrace
