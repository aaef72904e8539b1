#include "projections/engine/worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>

#include "projections/engine/continuation.h"
#include "projections/engine/row_check.h"
#include "projections/engine/unseen_events.h"

namespace millrace::projections {
namespace {

/// How long a wait may take until stop is looked at again, should the reader not notice it by
/// itself.
constexpr auto kWaitMax = std::chrono::milliseconds(250);
/// How often the position is written while nothing happens but events that the view does not take.
constexpr auto kPositionInterval = std::chrono::seconds(1);

/// SQLite calls a wait for a lock that was given up "locked".
bool is_of_a_stop(ErrorCode code) {
  return code == ErrorCode::kCancelled || code == ErrorCode::kLocked;
}

}  // namespace

Result<void> Worker::run() {
  MILLRACE_ASSIGN_OR_RETURN(const auto lock, generations_.lock_worker(context_.holder("run")));
  warn_of_unseen_events(view_, context_);
  auto done = keep_following();
  // Before the lock: nobody is to write, or to be seen, without it.
  mirror_.reset();
  fold_.reset();
  shown_.reset();
  return done;
}

Result<void> Worker::keep_following() {
  for (;;) {
    auto done = follow();
    if (done || (stopping() && is_of_a_stop(done.error().code()))) return ended();
    remember_failure(done.error());
    if (is_to_end() || !may_pass(done.error().code())) return done;
    pause_after(done.error());
    if (stopping()) return {};
    if (is_to_end()) return done;
  }
}

/// Whoever waits for the views to be up to date must not take a stop for it.
Result<void> Worker::ended() const {
  if (!options_.until_caught_up || caught_up_) return {};
  return Error(ErrorCode::kCancelled, "view " + view_.name() + ": stopped before it had caught up")
      .hint("What was folded is kept: the next `" + context_.program + " run` goes on from there.");
}

Result<void> Worker::follow() {
  MILLRACE_ASSIGN_OR_RETURN(const bool can_start, wait_for_tables());
  if (!can_start) return {};
  MILLRACE_RETURN_IF_ERROR(open_live());
  const Offset target = reader_->durable_end();
  while (!stopping()) {
    // Asked before next(): when that finds nothing more, everything below this has been read.
    const Offset end = reader_->durable_end();
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader_->next());
    if (batch != nullptr) {
      MILLRACE_RETURN_IF_ERROR(take(*batch));
      continue;
    }
    const bool caught_up = is_to_end() && end >= target;
    MILLRACE_RETURN_IF_ERROR(settle(end, caught_up));
    if (fold_->checkpoint().offset < end) continue;  // another generation is open now
    if (mirror_)
      MILLRACE_RETURN_IF_ERROR(caught_up ? mirror_->wait_until_equal() : mirror_->failure());
    caught_up_ = caught_up;
    if (caught_up) return {};
    MILLRACE_RETURN_IF_ERROR(reader_->wait(kWaitMax, context_.stop));
  }
  // In the middle of a source transaction nothing may be shown: the database drops what was folded
  // since the last commit.
  if (whole_) return settle(fold_->checkpoint().offset, true);
  fold_->give_up();
  return {};
}

/// True if all tables of the view can be read; false if that can't be told since no table was
/// captured yet.
Result<bool> Worker::tables_are_known() const {
  MILLRACE_ASSIGN_OR_RETURN(const auto tables, context_.schemas->all());
  for (const auto& source : view_.sources()) {
    auto known = check_source(view_, source, *context_.schemas);
    if (!known && known.error().code() == ErrorCode::kNotFound && tables.empty()) return false;
    MILLRACE_RETURN_IF_ERROR(known);
  }
  return true;
}

/// False if the worker was told to end before there was anything to follow.
Result<bool> Worker::wait_for_tables() {
  bool said = false;
  while (!stopping()) {
    MILLRACE_ASSIGN_OR_RETURN(const auto before, LogReader::open(context_.store));
    const Offset end = before->durable_end();
    MILLRACE_ASSIGN_OR_RETURN(const bool known, tables_are_known());
    if (known || options_.until_caught_up) return true;
    if (is_to_end()) break;
    if (!said) spdlog::info("view {}: waiting for the first captured table", view_.name());
    said = true;
    MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(context_.store, {.from = end}));
    MILLRACE_RETURN_IF_ERROR(reader->wait(kWaitMax, context_.stop));
  }
  return false;
}

Result<void> Worker::open_live() {
  fold_.reset();
  // The last connection to a file that was replaced must be gone for SQLite to make it whole, and
  // what is there now must not be taken for it.
  if (!database_ || !database_->is_in_place()) mirror_.reset();
  database_.reset();  // first: two with different WALs beside one file would ruin it
  in_transaction_ = false;
  whole_ = true;
  switch_ = generations_.last_switch();  // before the generation: what comes in between is seen
  MILLRACE_ASSIGN_OR_RETURN(auto live, generations_.live());
  if (!live) {
    MILLRACE_ASSIGN_OR_RETURN(const BuildReport built,
                              build_generation(view_, context_, options_.build));
    spdlog::info("view {}: made from {} events", view_.name(), built.checkpoint.events);
    live = built.generation;
    switch_ = generations_.last_switch();
  }
  MILLRACE_RETURN_IF_ERROR(generations_.write_first_failure({}));
  generation_ = *live;
  auto database =
      sqlite::Database::open(generations_.file(generation_), sqlite::Mode::kLive, context_.stop);
  if (!database)
    return std::move(database)
        .error()
        .context("view " + view_.name())
        .hint("To make the view anew from the log, run: " + context_.program + " rebuild " +
              view_.name());
  database_ = std::move(*database);
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, read_checkpoint(*database_));
  MILLRACE_ASSIGN_OR_RETURN(reader_, continue_from(view_, context_, checkpoint));
  MILLRACE_RETURN_IF_ERROR(write_failure(*database_, {}));
  MILLRACE_ASSIGN_OR_RETURN(fold_, Fold::make(view_, *database_, *context_.schemas, checkpoint));
  spdlog::debug("view {}: generation {} from offset {}", view_.name(), generation_,
                checkpoint.offset.value);
  if (view_.sink() != nullptr && !mirror_)
    mirror_ = std::make_unique<Mirror>(view_, context_,
                                       Mirror::Pauses{options_.retry_first, options_.retry_max});
  return {};
}

/// Gets the file's write lock. False if a rebuild has made another generation the live one, or
/// somebody has moved, removed or replaced the file: what is there now is open then.
Result<bool> Worker::begin() {
  MILLRACE_RETURN_IF_ERROR(database_->begin());
  MILLRACE_ASSIGN_OR_RETURN(const auto live, generations_.live());
  const bool in_place = database_->is_in_place();
  if (!live)  // and with the folder this worker's lock, most likely
    return Error(ErrorCode::kFailedPrecondition, "view " + view_.name() + ": " +
                                                     generations_.link().string() +
                                                     " was removed, or the folder that it was in")
        .hint("Put it back, or start `" + context_.program +
              " run` again, which makes the view anew.");
  const bool switched = live != generation_ || generations_.last_switch() != switch_;
  if (switched || !in_place) {
    database_->rollback();
    if (!in_place && replaced_)
      return Error(ErrorCode::kUnavailable,
                   "view " + view_.name() + ": " + database_->file().string() +
                       " was replaced again, or what SQLite keeps beside it");
    replaced_ = !in_place;
    if (in_place)
      spdlog::info("view {}: going on with a new generation", view_.name());
    else
      spdlog::warn("view {}: {} was moved, removed or replaced, or what SQLite keeps beside it",
                   view_.name(), database_->file().string());
    MILLRACE_RETURN_IF_ERROR(open_live());
    return false;
  }
  MILLRACE_ASSIGN_OR_RETURN(const Fold::Found found, fold_->look_again());
  if (found == Fold::Found::kElsewhere) return fenced_off();
  if (found == Fold::Found::kChanged) {
    database_->rollback();
    spdlog::info("view {}: taking over what another process has written", view_.name());
    MILLRACE_RETURN_IF_ERROR(open_live());
    return false;
  }
  in_transaction_ = true;
  replaced_ = false;
  began_ = std::chrono::steady_clock::now();
  events_at_begin_ = fold_->checkpoint().events;
  return true;
}

/// Nothing is written: the file is somebody else's now.
Error Worker::fenced_off() {
  is_fenced_off_ = true;
  fold_.reset();
  database_->rollback();
  return Error(ErrorCode::kFailedPrecondition,
               "view " + view_.name() + ": FENCED: " + database_->file().string() +
                   " is not as this worker left it: another one has folded into it, which takes a "
                   "lock file that was removed, or a copy was put over it")
      .hint("Nothing was folded twice. End the other one if there is one, then start `" +
            context_.program + " run` again.");
}

Result<void> Worker::take(Batch& batch) {
  if (!in_transaction_) {
    MILLRACE_ASSIGN_OR_RETURN(const bool begun, begin());
    if (!begun) return {};  // and `batch` is of a reader that is gone
  }
  whole_ = batch.last_of_transaction;
  if (auto applied = fold_->apply(batch); !applied)
    return fold_->wants_to_begin_again() ? begin_again() : applied;
  fold_->advance_to(reader_->position());
  const bool full = fold_->checkpoint().events - events_at_begin_ >= options_.events_per_commit ||
                    std::chrono::steady_clock::now() - began_ >= options_.commit_interval;
  return full && whole_ ? commit() : Result<void>{};
}

/// From the last commit on, or from where the fold has come with care, for the event that failed.
Result<void> Worker::begin_again() {
  MILLRACE_RETURN_IF_ERROR(fold_->begin_again());
  in_transaction_ = database_->in_transaction();
  whole_ = !in_transaction_;
  MILLRACE_ASSIGN_OR_RETURN(reader_, context_.open_reader(view_, fold_->checkpoint().offset));
  return {};
}

Result<void> Worker::commit(bool at_once) {
  const bool is_all = fold_->checkpoint().offset >= reader_->durable_end();
  const auto is_shown = fold_->show(is_all, at_once);
  if (!is_shown)
    return fold_->wants_to_begin_again() ? begin_again() : Result<void>(is_shown.error());
  if (*is_shown && !shown_) {
    MILLRACE_ASSIGN_OR_RETURN(shown_, generations_.lock_shown(context_.holder("run")));
  }
  in_transaction_ = false;
  committed_ = std::chrono::steady_clock::now();
  goes_well();
  if (!mirror_) return {};
  mirror_->committed();
  return mirror_->failure();
}

/// At the end of the log, where all transactions are whole: shows what was folded. A mere position
/// is written now and then, or `at_once`.
Result<void> Worker::settle(Offset read_to, bool at_once) {
  fold_->advance_to(read_to);
  if (fold_->has_written()) return commit(at_once);
  const bool due = at_once || std::chrono::steady_clock::now() - committed_ >= kPositionInterval;
  if (!(due && fold_->has_moved()) && !fold_->wants_show(at_once)) {
    if (in_transaction_) MILLRACE_RETURN_IF_ERROR(fold_->release());
    in_transaction_ = false;
    goes_well();
    return {};
  }
  if (!in_transaction_) {
    MILLRACE_ASSIGN_OR_RETURN(const bool begun, begin());
    if (!begun) return {};
  }
  return commit(at_once);
}

/// So that `status` can tell; the error itself goes to the caller or the log in any case.
void Worker::remember_failure(const Error& error) noexcept {
  if (is_fenced_off_) return;
  if (fold_ != nullptr) fold_->give_up();
  const auto write = [&]() -> Result<void> {
    if (database_) return write_failure(*database_, error.message());
    MILLRACE_ASSIGN_OR_RETURN(const auto live, generations_.live());
    if (!live) return generations_.write_first_failure(error.message());
    const auto database =
        sqlite::Database::open(generations_.file(*live), sqlite::Mode::kLive, context_.stop);
    // One that can't be opened tells that itself.
    return database ? write_failure(**database, error.message()) : Result<void>{};
  };
  // Where the disk is full this may well fail too: once is enough to say so.
  if (auto written = write(); !written && pause_.count() == 0)
    spdlog::warn("view {}: {}", view_.name(), written.error().to_string());
}

/// Logs the first failure of a row of them, and waits before the next attempt.
void Worker::pause_after(const Error& error) {
  if (pause_.count() == 0)
    spdlog::error("{}\n  View {} is tried again until this has passed.", error.to_string(),
                  view_.name());
  else
    spdlog::debug("view {}: still: {}", view_.name(), error.message());
  pause_ = pause_.count() == 0 ? options_.retry_first : std::min(2 * pause_, options_.retry_max);
  const auto end = std::chrono::steady_clock::now() + pause_;
  for (auto left = pause_; left.count() > 0 && !stopping() && !is_to_end();) {
    std::this_thread::sleep_for(std::min(left, kWaitMax));
    left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
  }
}

void Worker::goes_well() {
  if (pause_.count() == 0) return;
  spdlog::info("view {}: it has passed; the view goes on", view_.name());
  pause_ = {};
}

}  // namespace millrace::projections
