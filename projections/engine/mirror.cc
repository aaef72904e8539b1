#include "projections/engine/mirror.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/bytes.h"
#include "eventstore/inspect.h"

namespace millrace::projections {
namespace {

/// Somebody else may have written to the view's file, or made another generation the live one.
constexpr auto kLook = std::chrono::milliseconds(250);
/// How often an idle sink is asked where it is.
constexpr auto kProbeInterval = std::chrono::seconds(5);

std::string random_name() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 4; ++i) append_be<std::uint32_t>(bytes, random());
  return to_hex(bytes);
}

}  // namespace

Mirror::Mirror(const View& view, const Context& context, Pauses pauses)
    : view_(view),
      context_(context),
      pauses_(pauses),
      generations_(context.generations(view)),
      shape_(view.sink_shape()),
      where_(view.sink()->describe(shape_)),
      writer_{random_name(), {}} {
  // What is known of another place must not be taken for this one.
  const auto known = read_sink_status(generations_.sink_status());
  if (known && known->where != where_) tell({});
  const std::lock_guard lock(mutex_);  // the thread, which takes it first, reads thread_
  thread_ = std::jthread([this](const std::stop_token& stop) { follow(stop); });
}

Mirror::~Mirror() {
  thread_.request_stop();
  changed_.notify_all();
  const std::lock_guard lock(mutex_);
  if (sink_) sink_->interrupt();
}

/// The thread alone changes it; who interrupts it must not find it half gone.
void Mirror::take_sink(std::unique_ptr<Sink> sink) {
  const std::lock_guard lock(mutex_);
  sink_.swap(sink);
  if (sink_ && thread_.get_stop_token().stop_requested()) sink_->interrupt();
}

void Mirror::committed() {
  {
    const std::lock_guard lock(mutex_);
    ++asked_;
  }
  changed_.notify_all();
}

Result<void> Mirror::failure() const {
  const std::lock_guard lock(mutex_);
  return failed_ ? Result<void>(*last_error_) : Result<void>{};
}

Result<void> Mirror::wait_until_equal() {
  std::unique_lock lock(mutex_);
  if (failed_) return *last_error_;
  const std::uint64_t target = ++asked_;
  last_error_.reset();
  changed_.notify_all();
  const bool told = changed_.wait(lock, context_.stop,
                                  [&] { return done_ >= target || last_error_.has_value(); });
  if (!told)
    return Error(ErrorCode::kCancelled, "stopped while bringing " + where_ + " up to date");
  return done_ >= target ? Result<void>{} : Result<void>(*last_error_);
}

void Mirror::follow(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::uint64_t target = 0;
    {
      const std::lock_guard lock(mutex_);
      target = asked_;
    }
    auto done = bring_up_to_date();
    if (live_) live_->rollback();
    if (done && has_more(target)) {
      settle({});
      continue;
    }
    if (done) done = confirm();
    if (done) {
      settle({});
      std::unique_lock lock(mutex_);
      done_ = target;
      changed_.notify_all();
      changed_.wait_for(lock, stop, kLook, [&] { return asked_ != target; });
      continue;
    }
    take_sink(nullptr);
    sent_ = shown_;                     // until open() tells
    if (stop.stop_requested()) return;  // it was interrupted
    const bool passes = may_pass(done.error().code());
    settle(std::move(done));
    if (!passes || !pause(stop)) return;
  }
}

/// False if there is no live generation that is recorded yet; committed() tells when there is.
Result<bool> Mirror::open_live() {
  MILLRACE_ASSIGN_OR_RETURN(const auto generation, generations_.live());
  if (!generation) return false;
  if (generation != generation_) {
    rows_.reset();
    MILLRACE_ASSIGN_OR_RETURN(
        live_, sqlite::Database::open(generations_.file(*generation), sqlite::Mode::kReadOnly,
                                      context_.stop));
    generation_ = generation;
  }
  MILLRACE_RETURN_IF_ERROR(live_->begin());  // from here on as of one commit
  if (!rows_) {
    MILLRACE_ASSIGN_OR_RETURN(rows_, ViewRows::open(*live_, shape_));
  }
  return true;
}

Result<void> Mirror::bring_up_to_date() {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, open_live());
  if (!there) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto head, sqlite::read_change_log_head(*live_));
  if (!head) return {};
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint live, read_checkpoint(*live_));
  if (!sink_) MILLRACE_RETURN_IF_ERROR(open_sink(live));
  auto updated = update(*head, live);
  rows_->reset();
  return updated;
}

Result<void> Mirror::open_sink(const Checkpoint& live) {
  take_sink(view_.sink()->make(shape_));
  // Before it is taken from whoever writes there rightly.
  MILLRACE_ASSIGN_OR_RETURN(const auto found, sink_->position());
  if (found) MILLRACE_RETURN_IF_ERROR(check_origin(*found, live));
  writer_.store_id = live.store_id;
  MILLRACE_ASSIGN_OR_RETURN(shown_, sink_->open(writer_));
  sent_ = shown_;
  writer_.again = true;
  probed_ = std::chrono::steady_clock::now();
  tell({});
  return {};
}

Result<void> Mirror::check_origin(const SinkCheckpoint& shown, const Checkpoint& live) const {
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::kFailedPrecondition, "view " + view_.name() + ": " + where_ + " " + why)
        .hint(
            "Nothing there was changed. Remove the view there, or give it another place; it is "
            "written anew then.");
  };
  if (shown.store_id != live.store_id)
    return of_another_store(where_, shown.store_id, live.store_id).context("view " + view_.name());
  if (shown.offset <= live.offset) return {};
  MILLRACE_ASSIGN_OR_RETURN(const StoreSummary store, summarize_store(context_.store));
  if (shown.offset > store.durable_end)
    return refuse("is ahead of the store: CHECKPOINT_AHEAD, it shows the log up to offset " +
                  std::to_string(shown.offset.value) + ", but the store ends at " +
                  std::to_string(store.durable_end.value) +
                  "; an older copy of the store must have been put back");
  return {};
}

Result<void> Mirror::update(const sqlite::ChangeLogHead& head, const Checkpoint& live) {
  const SinkCheckpoint reached{live.store_id, head.lineage, head.commit, live.offset};
  if (sent_ == reached) return shown_ == sent_ ? probe() : Result<void>{};
  // The view's file went back, or was made anew: what is shown stays until it is overtaken.
  if (sent_ && sent_->offset > live.offset) return {};
  std::optional<sqlite::ChangedKeys> keys;
  if (sent_ && sent_->lineage == head.lineage && sent_->commit <= head.commit) {
    MILLRACE_ASSIGN_OR_RETURN(
        keys, sqlite::changed_since(*live_, shape_.key.type, sent_->commit, sent_->offset));
  }
  if (keys) {
    MILLRACE_RETURN_IF_ERROR(sink_->begin());
    MILLRACE_RETURN_IF_ERROR(write_rows(*sink_, *rows_, shape_.key.type, *keys));
  } else if (sent_) {
    spdlog::info("view {}: comparing {} with the view", view_.name(), where_);
    MILLRACE_RETURN_IF_ERROR(write_differences());
  } else {
    spdlog::info("view {}: writing all of it to {}", view_.name(), where_);
    MILLRACE_RETURN_IF_ERROR(write_all());
  }
  MILLRACE_RETURN_IF_ERROR(sink_->checkpoint(reached));
  MILLRACE_RETURN_IF_ERROR(sink_->commit());
  const bool was_confirmed = shown_ == sent_;
  shown_ = std::exchange(sent_, reached);
  if (!was_confirmed) tell({});
  return {};
}

/// The last commit may still be under way.
Result<void> Mirror::confirm() {
  if (shown_ == sent_) return {};
  MILLRACE_RETURN_IF_ERROR(sink_->finish());
  shown_ = sent_;
  tell({});
  return {};
}

bool Mirror::has_more(std::uint64_t than) const {
  const std::lock_guard lock(mutex_);
  return asked_ != than;
}

/// While nothing happens: what the sink has lost is noticed all the same.
Result<void> Mirror::probe() {
  if (!told_) tell({});
  const auto now = std::chrono::steady_clock::now();
  if (now - probed_ < kProbeInterval) return {};
  probed_ = now;
  MILLRACE_ASSIGN_OR_RETURN(const auto found, sink_->position());
  if (found == shown_) return {};
  return Error(ErrorCode::kUnavailable,
               where_ + " has lost what it had; it is brought up to date again");
}

Result<void> Mirror::write_all() {
  MILLRACE_RETURN_IF_ERROR(sink_->begin());
  return rows_->for_each([&](const SinkRow& row) { return sink_->write(row); });
}

Result<void> Mirror::write_differences() {
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t compared, find_differences(*sink_, *live_, shape_));
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t different,
                            live_->number("SELECT count(*) FROM temp.different"));
  spdlog::info("view {}: {} rows compared, {} to be written", view_.name(), compared, different);
  MILLRACE_RETURN_IF_ERROR(sink_->begin());
  MILLRACE_ASSIGN_OR_RETURN(sqlite::Statement keys,
                            live_->prepare("SELECT key FROM temp.different ORDER BY key"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool more, keys.step());
    if (!more) return {};
    MILLRACE_ASSIGN_OR_RETURN(const SinkRow row, rows_->find(keys.column(0)));
    MILLRACE_RETURN_IF_ERROR(sink_->write(row));
  }
}

/// For those who ask `status` or `wait`, which a full disk may keep from it.
void Mirror::tell(const std::string& failure) {
  const auto told = write_sink_status(generations_.sink_status(), {where_, shown_, failure});
  told_ = told.has_value();
  if (!told) spdlog::debug("view {}: {}", view_.name(), told.error().to_string());
}

void Mirror::settle(Result<void> done) {
  if (done) {
    if (pause_.count() != 0)
      spdlog::info("view {}: {} is kept up to date again", view_.name(), where_);
    pause_ = {};
    return;
  }
  Error error = std::move(done).error();
  const bool passes = may_pass(error.code());
  if (pause_.count() == 0 && passes)
    spdlog::error("view {}: {}\n  It is tried again until this has passed.", view_.name(),
                  error.to_string());
  tell(error.message());
  const std::lock_guard lock(mutex_);
  failed_ = !passes;
  last_error_ = std::move(error);
  changed_.notify_all();
}

/// False if it is to end.
bool Mirror::pause(const std::stop_token& stop) {
  pause_ = pause_.count() == 0 ? pauses_.first : std::min(2 * pause_, pauses_.max);
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, pause_, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace millrace::projections
