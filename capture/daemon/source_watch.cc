#include "capture/daemon/source_watch.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <mutex>

#include "base/bytes.h"
#include "base/progress.h"
#include "capture/pipeline/change_encoder.h"

namespace millrace {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kIdleProbeInterval{300'000};
/// After this long a probe is taken for lost.
constexpr milliseconds kProbePatience{600'000};
constexpr milliseconds kPauseAfterFailure{10'000};
/// WAL that a server writes by itself while nobody uses it.
constexpr std::uint64_t kIdleWalBytes = 4096;

void pause(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  condition.wait_for(lock, stop, time, [] { return false; });
}

template <typename T>
std::optional<T> number(const std::optional<std::string>& text) {
  T value{};
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  return error == std::errc() && end == text->data() + text->size() ? std::optional(value)
                                                                    : std::nullopt;
}

std::optional<Lsn> lsn(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  const auto parsed = parse_lsn(*text);
  return parsed ? std::optional(*parsed) : std::nullopt;
}

}  // namespace

SourceWatch::SourceWatch(const SourceAddress& address, const Options& options, Monitor& monitor)
    : address_(address),
      options_(options),
      monitor_(monitor),
      budget_(options.held_back_bytes),
      probed_at_(steady_clock::now()) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

SourceWatch::~SourceWatch() = default;

void SourceWatch::run(const std::stop_token& stop) {
  const milliseconds interval = options_.probe_interval.count() > 0
                                    ? std::min(options_.interval, options_.probe_interval)
                                    : options_.interval;
  while (!stop.stop_requested()) {
    milliseconds wait = interval;
    if (!monitor_.streams()) {
      connection_.reset();
    } else if (auto done = tick(stop); !done && !stop.stop_requested()) {
      spdlog::debug("looking at the source: {}", printable(done.error().message(), 1000));
      connection_.reset();
      wait = std::max(wait, kPauseAfterFailure);
    }
    pause(wait, stop);
  }
}

Result<void> SourceWatch::tick(const std::stop_token& stop) {
  if (!connection_) {
    MILLRACE_ASSIGN_OR_RETURN(connection_, PostgresConnection::open(address_, false, stop));
  }
  MILLRACE_RETURN_IF_ERROR(look());
  return options_.probe_interval.count() > 0 ? probe() : Result<void>{};
}

Result<void> SourceWatch::look() {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto rows,
      connection_->query(
          "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
          " ELSE pg_current_wal_flush_lsn() END)::text, s.restart_lsn::text,"
          " s.confirmed_flush_lsn::text, to_jsonb(s)->>'wal_status', to_jsonb(s)->>'safe_wal_size',"
          " (SELECT setting::bigint * 1024 * 1024 FROM pg_settings"
          "  WHERE name = 'max_slot_wal_keep_size' AND setting::bigint >= 0)::text"
          " FROM (SELECT) AS one LEFT JOIN pg_replication_slots s ON s.slot_name = '" +
          options_.slot + "'"));
  if (rows.size() != 1 || rows.front().size() != 6)
    return Error(ErrorCode::kUnsupported, "the server's answer has another shape");
  const auto& row = rows.front();
  SlotLook look{.server_end = lsn(row[0]).value_or(Lsn{}),
                .restart = lsn(row[1]),
                .confirmed = lsn(row[2]),
                .wal_status = row[3].value_or(""),
                .safe_bytes = number<std::int64_t>(row[4]),
                .budget_bytes = number<std::uint64_t>(row[5])};
  monitor_.looked(
      {.server_end = look.server_end,
       .wal_status = look.wal_status,
       .retained_bytes = look.restart ? std::optional(look.retained_bytes()) : std::nullopt,
       .safe_wal_bytes = look.safe_bytes});
  server_end_ = look.server_end;
  for (const std::string& warning : budget_.judge(look))
    spdlog::warn("slot {}: {}", options_.slot, warning);
  return budget_.held_back(look) ? tell_who_holds_back(look) : Result<void>{};
}

/// Without an old transaction it is only that the server has not yet looked for a later position.
/// Not told is what it runs: that has values in it.
Result<void> SourceWatch::tell_who_holds_back(const SlotLook& look) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto rows,
      connection_->query(
          "SELECT who, extract(epoch FROM now() - since)::bigint::text FROM ("
          "SELECT 'pid ' || pid || ' (' || coalesce(usename::text, '?') || ', ' ||"
          " coalesce(nullif(application_name, ''), backend_type) || '), ' ||"
          " coalesce(state, '?') || ', its query began at ' || coalesce(query_start::text, '?')"
          " AS who, xact_start AS since"
          " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
          " UNION ALL SELECT 'prepared transaction ' || gid, prepared FROM pg_prepared_xacts)"
          " AS open WHERE since < now() - interval '" +
          std::to_string(options_.long_transaction.count()) + " ms' ORDER BY since LIMIT 1"));
  if (rows.size() != 1 || rows.front().size() != 2) return {};
  budget_.told_held_back(look);
  spdlog::warn(
      "slot {}: the server keeps {} of WAL though all but the last {} is confirmed: a transaction "
      "that has been open for {} s holds it back, {}",
      options_.slot, human_bytes(static_cast<double>(look.retained_bytes())),
      human_bytes(static_cast<double>(look.server_end.value - look.confirmed->value)),
      rows.front()[1].value_or("?"), printable(rows.front()[0].value_or("?"), 300));
  return {};
}

Result<void> SourceWatch::probe() {
  if (connection_->server_version() < 140'000) return {};  // its pgoutput sends no messages
  const auto now = steady_clock::now();
  const bool idle = after_probe_ != Lsn{} && server_end_.value < after_probe_.value + kIdleWalBytes;
  if (now - probed_at_ < (idle ? kIdleProbeInterval : options_.probe_interval)) return {};
  if (now - probed_at_ > kProbePatience) monitor_.drop_probe();
  const auto text = monitor_.begin_probe();
  if (!text) return {};
  probed_at_ = now;
  auto sent = connection_->query("SELECT pg_logical_emit_message(true, '" +
                                 std::string(kOwnMessagePrefix) + "', '" + *text + "')::text");
  if (!sent) {
    monitor_.drop_probe();
    return std::move(sent).error();
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto rows,
                            connection_->query("SELECT pg_current_wal_insert_lsn()::text"));
  if (rows.size() == 1 && rows.front().size() == 1)
    after_probe_ = lsn(rows.front()[0]).value_or(Lsn{});
  return {};
}

}  // namespace millrace
