#include "capture/daemon/stream_session.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/check.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;

/// Messages between two looks at the clock while data keeps coming.
constexpr int kBurst = 512;
/// So many since the last wait mean that more will be here at once. Then the server is left alone
/// for a nap: who waits in poll() is woken by every message, and that costs the server more than
/// the message.
constexpr int kBusy = 64;
constexpr std::chrono::microseconds kNap{200};
/// How often what came in is flushed while it keeps coming, and how soon after it has ceased.
constexpr milliseconds kBusyFlushInterval{2};
/// How often an idle source's position is written to the log at most.
constexpr milliseconds kIdleInterval{10'000};
/// And when the server asks, as it does when it shuts down and waits for us.
constexpr milliseconds kIdleIntervalAsked{200};
constexpr milliseconds kRoomWait{50};
/// While something is not confirmed yet, or a goal is waited for.
constexpr milliseconds kSoon{20};
/// While nothing may be confirmed yet.
constexpr milliseconds kAskAgain{100};
constexpr milliseconds kFinishTimeout{10'000};

}  // namespace

StreamSession::StreamSession(PostgresConnection& connection, EventStore& store, StoreOut& out,
                             StreamApplier& applier, const Options& options)
    : connection_(connection), store_(store), out_(out), applier_(applier), options_(options) {
  idle_ = begun_at_ = out_.end();
  seen_before_ = applier_.seen_end();
  checked_to_ = options_.checked_to;
  now_ = heard_at_ = status_at_ = looked_at_ = Clock::system().monotonic();
  // The first position of an idle source at once: it tells that there is nothing to catch up with.
  idle_recorded_at_ = now_ - kIdleInterval;
}

Lsn StreamSession::durable() const {
  const auto source = store_.durable_source();
  return source && source->epoch == options_.epoch ? Lsn{source->end} : Lsn{};
}

bool StreamSession::reached_goal() const {
  return options_.until && durable() >= *options_.until && !snapshots_busy() && may_confirm();
}

Result<void> StreamSession::run(const std::stop_token& stop) {
  MILLRACE_RETURN_IF_ERROR(send_status(options_.until.has_value() || !may_confirm()));
  int since_wait = 0;
  Time flush_asked = now_;
  while (!stop.stop_requested() && !reached_goal() && !far_behind_) {
    MILLRACE_RETURN_IF_ERROR(store_.status());
    bool drained = false, held = false;
    int taken = 0;
    const bool looks = wants_to_look();
    for (; taken < kBurst && store_.has_room(); ++taken) {
      // Bursts may all end within transactions, if those are large.
      if (looks && taken != 0 && !applier_.in_transaction()) break;
      if (snapshots_busy()) {
        MILLRACE_ASSIGN_OR_RETURN(held, options_.snapshots->hold());
        if (held) break;
      }
      MILLRACE_ASSIGN_OR_RETURN(const bool took, take_one());
      if (drained = !took; drained) break;
    }
    now_ = Clock::system().monotonic();
    since_wait += taken;
    if (drained) {
      const bool busy = std::exchange(since_wait, 0) >= kBusy;
      const bool flush = !busy || now_ - flush_asked >= kBusyFlushInterval;
      if (flush) {
        store_.request_flush();
        flush_asked = now_;
      }
      MILLRACE_RETURN_IF_ERROR(keep_in_touch());
      if (busy) std::this_thread::sleep_for(kNap);
      const bool soon = reply_wanted_ || confirm_wanted_ || options_.until ||
                        confirmed_ < out_.end() || snapshots_busy();
      const milliseconds limit = soon ? kSoon : options_.status_interval;
      auto heard = connection_.wait(flush ? limit : kBusyFlushInterval, never_);
      if (!heard && !stop.stop_requested()) return std::move(heard).error();
      if (heard && *heard) note_heard();  // over a slow line a message takes its time
    } else {
      if (!store_.has_room()) {
        store_.request_flush();
        store_.wait_room(kRoomWait);
        heard_at_ = Clock::system().monotonic();  // the silence is ours
      } else if (held) {
        options_.snapshots->wait_held(kRoomWait);
        heard_at_ = Clock::system().monotonic();
      }
      MILLRACE_RETURN_IF_ERROR(keep_in_touch());
    }
  }
  return finish();
}

/// Handles one message; false when none is here. A streamed transaction that has committed is
/// appended whole before the next one from the server: as many messages as the store has room for,
/// with a look at the clock in between.
Result<bool> StreamSession::take_one() {
  if (applier_.replaying()) {
    heard_at_ = now_;  // the silence is ours
    MILLRACE_RETURN_IF_ERROR(applier_.replay_one());
    if (!applier_.in_transaction()) note_seen();
    return true;
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto bytes, connection_.receive());
  if (!bytes) return false;
  note_heard();
  MILLRACE_ASSIGN_OR_RETURN(const auto frame, pgoutput::decode_frame(*bytes));
  if (const auto* data = std::get_if<pgoutput::WalData>(&frame)) {
    MILLRACE_RETURN_IF_ERROR(applier_.apply(data->payload, data->start));
    if (!applier_.in_transaction()) note_seen();
  } else {
    MILLRACE_RETURN_IF_ERROR(on_keepalive(std::get<pgoutput::Keepalive>(frame)));
  }
  return true;
}

bool StreamSession::wants_to_look() const {
  return options_.look_around && now_ - looked_at_ >= options_.look_interval;
}

void StreamSession::note_heard() {
  heard_at_ = now_;
  asked_ = false;
}

void StreamSession::note_seen() {
  const Lsn seen = applier_.seen_end();
  idle_ = std::max(idle_, seen);
  if (seen > seen_before_) checked_to_ = std::max(checked_to_, seen);
}

/// Not before the server has sent everything up to where the log was when we came: until then
/// nobody knows whether it still has the log's history, and what we confirm it takes for its own.
bool StreamSession::may_confirm() const { return checked_to_ >= begun_at_; }

Result<void> StreamSession::on_keepalive(const pgoutput::Keepalive& keepalive) {
  // In the middle of a transaction the position may be beyond its commit, which is not here yet.
  if (!applier_.in_transaction()) {
    MILLRACE_RETURN_IF_ERROR(applier_.history().sent_all_before(keepalive.end));
    idle_ = std::max(idle_, keepalive.end);
    checked_to_ = std::max(checked_to_, keepalive.end);
  }
  reply_wanted_ = reply_wanted_ || keepalive.reply_requested;
  return {};
}

/// A probe has no events: that it came is made durable as the position of an idle source is.
Result<void> StreamSession::tell_monitor() {
  if (options_.monitor == nullptr) return {};
  if (const auto own = applier_.take_own_message())
    if (options_.monitor->probe_arrived(own->content, own->end) && !applier_.in_transaction() &&
        idle_ > out_.end() && store_.has_room())
      MILLRACE_RETURN_IF_ERROR(record_idle_position());
  tell_progress();
  return {};
}

void StreamSession::tell_progress() {
  if (options_.monitor == nullptr) return;
  options_.monitor->progress({.durable = durable(),
                              .confirmed = confirmed_,
                              .store_end = store_.durable_end().value,
                              .repeated = applier_.repeated()});
}

/// Whatever the clock asks for: position of an idle source, status, a sign of life, a look around.
Result<void> StreamSession::keep_in_touch() {
  MILLRACE_RETURN_IF_ERROR(tell_monitor());
  if (!applier_.in_transaction() && applier_.take_confirm_wanted()) confirm_wanted_ = true;
  const milliseconds idle_interval =
      reply_wanted_ || confirm_wanted_ || options_.until ? kIdleIntervalAsked : kIdleInterval;
  const bool goal_near = options_.until && out_.end() < *options_.until && idle_ >= *options_.until;
  if (!applier_.in_transaction() && idle_ > out_.end() && store_.has_room() &&
      (goal_near || now_ - idle_recorded_at_ >= idle_interval))
    MILLRACE_RETURN_IF_ERROR(record_idle_position());

  if (options_.snapshots != nullptr && !applier_.in_transaction())
    MILLRACE_RETURN_IF_ERROR(options_.snapshots->tend());
  if (wants_to_look() && !applier_.in_transaction()) {
    looked_at_ = now_;
    MILLRACE_ASSIGN_OR_RETURN(far_behind_, options_.look_around());
  }
  if (now_ - heard_at_ > 2 * options_.silence_max)
    return Error(ErrorCode::kUnavailable,
                 "the server has been silent for " +
                     std::to_string((2 * options_.silence_max).count() / 1000) + " s");
  const bool ask = now_ - heard_at_ > options_.silence_max && !asked_;
  const milliseconds interval = reply_wanted_ || options_.until ? kSoon : options_.status_interval;
  const bool progress_late =
      confirmed_ < durable() && now_ - status_at_ >= std::min(interval, milliseconds(100));
  const bool unchecked = !may_confirm();
  if (ask || progress_late || (unchecked && now_ - status_at_ >= kAskAgain) ||
      (reply_wanted_ && now_ - status_at_ >= kSoon) ||
      now_ - status_at_ >= options_.status_interval) {
    asked_ = asked_ || ask;
    return send_status(ask || unchecked || options_.until.has_value());
  }
  return {};
}

Result<void> StreamSession::send_status(bool reply_requested) {
  const Lsn flushed = may_confirm() ? durable() : Lsn{};  // 0: nothing is said of it
  MILLRACE_CHECK(confirmed_ <= flushed && flushed <= out_.end());
  confirmed_ = flushed;
  status_at_ = now_;
  reply_wanted_ = false;
  return connection_.send(pgoutput::encode_status(
      {.written = out_.end(), .flushed = flushed, .reply_requested = reply_requested},
      Clock::system().wall()));
}

Result<void> StreamSession::record_idle_position() {
  idle_recorded_at_ = now_;
  confirm_wanted_ = false;
  MILLRACE_RETURN_IF_ERROR(out_.record_position(options_.epoch, idle_));
  store_.request_flush();
  return {};
}

/// What is appended becomes durable and the server is told before we go.
Result<void> StreamSession::finish() {
  MILLRACE_RETURN_IF_ERROR(applier_.reset());
  store_.request_flush();
  MILLRACE_RETURN_IF_ERROR(
      store_.wait_durable(store_.appended_end(), out_.end().value, kFinishTimeout));
  now_ = Clock::system().monotonic();
  MILLRACE_RETURN_IF_ERROR(send_status(false));
  tell_progress();
  connection_.end_copy_both();
  return {};
}

}  // namespace millrace
