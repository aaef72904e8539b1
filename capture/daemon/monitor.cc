#include "capture/daemon/monitor.h"

#include <unistd.h>

#include <algorithm>
#include <random>

#include "base/bytes.h"

namespace millrace {
namespace {

using std::chrono::duration;

constexpr std::chrono::seconds kRateSpan{10};
/// A loop that has said nothing for so long while it streams does not go round.
constexpr double kBeatSecondsMax = 10;

double seconds(std::chrono::steady_clock::duration time) { return duration<double>(time).count(); }

bool is_streaming(CapturePhase phase) {
  return phase == CapturePhase::kStreaming || phase == CapturePhase::kCatchingUp;
}

/// The value below which the share `part` of `sorted` lies.
double quantile(const std::vector<double>& sorted, double part) {
  return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5)];
}

}  // namespace

Monitor::Monitor(Identity identity, Clock& clock) : clock_(clock) {
  nonce_ = to_hex(std::to_string(std::random_device{}()));
  fixed_.pid = ::getpid();
  fixed_.started = phase_since_ = clock_.wall();
  fixed_.source = std::move(identity.source);
  fixed_.slot = std::move(identity.slot);
  fixed_.publication = std::move(identity.publication);
  caught_up_ = clock_.monotonic();
  durable_moved_ = beat_ = caught_up_;
}

void Monitor::enter(CapturePhase phase, std::string reason, std::string halt) {
  const std::lock_guard lock(mutex_);
  if (phase != phase_) phase_since_ = clock_.wall();
  phase_ = phase;
  reason_ = std::move(reason);
  halt_ = std::move(halt);
  if (!is_streaming(phase)) probe_.clear();
}

void Monitor::connected(Lsn server_end) {
  enter(CapturePhase::kCatchingUp);
  const std::lock_guard lock(mutex_);
  if (was_connected_) ++reconnects_;
  was_connected_ = true;
  beat_ = clock_.monotonic();
  saw(server_end, beat_);
  goal_ = server_end.value;
}

void Monitor::appended(std::uint64_t changes, Lsn end, UnixMicros commit_time) {
  transactions_.fetch_add(1, std::memory_order_relaxed);
  changes_.fetch_add(changes, std::memory_order_relaxed);
  appended_.store(end.value, std::memory_order_relaxed);
  if (commit_end_ != Lsn{}) return;
  commit_end_ = end;
  commit_time_ = commit_time;
}

void Monitor::progress(const Progress& now) {
  const Time time = clock_.monotonic();
  beat_ = time;
  if (durable_ != now.durable.value || appended_ <= now.durable.value) durable_moved_ = time;
  durable_ = now.durable.value;
  confirmed_ = now.confirmed.value;
  store_end_ = now.store_end;
  repeated_ = now.repeated;
  if (appended_ < now.durable.value) appended_ = now.durable.value;
  if (commit_end_ != Lsn{} && commit_end_ <= now.durable) {
    durable_commit_time_ = commit_time_.value;
    commit_end_ = Lsn{};
  }
  if (goal_ != 0 && now.durable.value >= goal_) {
    goal_ = 0;
    enter(CapturePhase::kStreaming);
  }
  if (probe_end_ != 0 && now.durable.value >= probe_end_) {
    probe_end_ = 0;
    const std::lock_guard lock(mutex_);
    if (probe_.empty()) return;
    probe_.clear();
    add_latency(seconds(time - probe_sent_));
  }
}

Monitor::Count& Monitor::table(std::string_view category) {
  const std::lock_guard lock(mutex_);
  const auto found = tables_.find(category);
  if (found != tables_.end()) return found->second;
  return tables_[tables_.size() < kTablesMax ? std::string(category) : "(other)"];
}

bool Monitor::probe_arrived(std::string_view text, Lsn end) {
  const std::lock_guard lock(mutex_);
  if (text.empty() || text != probe_) return false;
  probe_end_ = end.value;
  return true;
}

std::optional<std::string> Monitor::begin_probe() {
  const std::lock_guard lock(mutex_);
  if (!probe_.empty() || !is_streaming(phase_)) return std::nullopt;
  probe_ = "probe " + nonce_ + " " + std::to_string(++probes_);
  probe_sent_ = clock_.monotonic();
  return probe_;
}

void Monitor::drop_probe() {
  const std::lock_guard lock(mutex_);
  probe_.clear();
}

void Monitor::looked(const SourceLook& look) {
  const std::lock_guard lock(mutex_);
  look_ = look;
  saw(look.server_end, clock_.monotonic());
}

void Monitor::saw(Lsn server_end, Time now) {
  look_.server_end = std::max(look_.server_end, server_end);
  if (!looks_.empty() && looks_.back().end >= server_end) return;
  // The oldest tells for how long; of the others a coarse picture does.
  if (looks_.size() == kLooksMax) looks_.pop_back();
  looks_.push_back({server_end, now});
}

void Monitor::listens_at(std::string address) {
  const std::lock_guard lock(mutex_);
  listen_ = std::move(address);
}

bool Monitor::streams() const {
  const std::lock_guard lock(mutex_);
  return is_streaming(phase_);
}

void Monitor::add_latency(double time) {
  const auto* bound =
      std::lower_bound(ProbeLatency::kBounds.begin(), ProbeLatency::kBounds.end(), time);
  ++latency_.buckets.at(static_cast<std::size_t>(bound - ProbeLatency::kBounds.begin()));
  ++latency_.count;
  latency_.seconds_sum += time;
  latency_.last = time;
  if (latencies_.size() == kLatenciesMax) latencies_.pop_front();
  latencies_.push_back(time);
  std::vector<double> sorted(latencies_.begin(), latencies_.end());
  std::sort(sorted.begin(), sorted.end());
  latency_.p50 = quantile(sorted, 0.5);
  latency_.p99 = quantile(sorted, 0.99);
}

double Monitor::lag_seconds(Lsn durable, Time now) const {
  while (!looks_.empty() && looks_.front().end <= durable) {
    caught_up_ = looks_.front().at;
    looks_.pop_front();
  }
  if (!is_streaming(phase_)) return seconds(now - caught_up_);
  if (looks_.empty()) return 0;
  const double unseen = seconds(now - looks_.front().at);
  const std::int64_t commit = durable_commit_time_;
  if (phase_ != CapturePhase::kCatchingUp || commit == 0) return unseen;
  // The server's clock may be another one than ours.
  return std::max(unseen, static_cast<double>(clock_.wall().value - commit) / 1e6);
}

void Monitor::fill_rates(CaptureStatus& status, Time now) const {
  if (samples_.empty() || now - samples_.back().at >= kRateSpan / 20)
    samples_.push_back({now, status.transactions, status.changes});
  while (samples_.size() > 2 && now - samples_[1].at >= kRateSpan) samples_.pop_front();
  const Sample& first = samples_.front();
  const double span = seconds(now - first.at);
  if (span <= 0) return;
  status.transactions_per_second =
      static_cast<double>(status.transactions - first.transactions) / span;
  status.changes_per_second = static_cast<double>(status.changes - first.changes) / span;
}

CaptureStatus Monitor::status() const {
  const std::lock_guard lock(mutex_);
  const Time now = clock_.monotonic();
  CaptureStatus status = fixed_;
  status.phase = phase_;
  status.halt = halt_;
  status.reason = reason_;
  status.phase_since = phase_since_;
  status.written = clock_.wall();
  status.listen = listen_;
  status.durable = Lsn{durable_};
  status.appended = Lsn{appended_};
  status.confirmed = Lsn{confirmed_};
  status.server_end = std::max(look_.server_end, status.appended);
  status.store_end = store_end_;
  status.lag_bytes = status.server_end.value - std::min(status.durable, status.server_end).value;
  status.lag_seconds = lag_seconds(status.durable, now);
  if (status.appended > status.durable)
    status.stalled_seconds = seconds(now - durable_moved_.load());
  else if (is_streaming(phase_) && seconds(now - beat_.load()) > kBeatSecondsMax)
    status.stalled_seconds = seconds(now - beat_.load());
  status.transactions = transactions_;
  status.changes = changes_;
  fill_rates(status, now);
  status.reconnects = reconnects_;
  status.repeated = repeated_;
  for (const auto& [table, changes] : tables_) status.tables.emplace_back(table, changes.load());
  status.latency = latency_;
  status.wal_status = look_.wal_status;
  status.retained_bytes = look_.retained_bytes;
  status.safe_wal_bytes = look_.safe_wal_bytes;
  return status;
}

ChangeTally::Table& ChangeTally::find(std::string_view category) {
  Monitor::Count& total = monitor_.table(category);
  Table& table = tables_[&total];
  table.total = &total;
  return table;
}

void ChangeTally::add(std::string_view category) {
  const auto place = reinterpret_cast<std::uintptr_t>(category.data());
  Recent& recent = recent_[((place >> 4) ^ (place >> 14)) & (recent_.size() - 1)];
  if (recent.table == nullptr || recent.category != category) [[unlikely]]
    recent = {std::string(category), &find(category)};
  if (recent.table->pending++ == 0) touched_.push_back(recent.table);
  ++pending_;
}

void ChangeTally::commit(Lsn end, UnixMicros commit_time) {
  if (pending_ != 0) monitor_.appended(pending_, end, commit_time);
  for (Table* table : touched_) {
    table->total->fetch_add(table->pending, std::memory_order_relaxed);
    table->pending = 0;
  }
  touched_.clear();
  pending_ = 0;
}

void ChangeTally::rollback() {
  for (Table* table : touched_) table->pending = 0;
  touched_.clear();
  pending_ = 0;
}

}  // namespace millrace
