#include "capture/capture_status.h"

#include <nlohmann/json.hpp>

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kBytesMax = 4 << 20;
/// Behind by more than this it is no use to those who want fresh data.
constexpr double kReadySecondsMax = 60;
/// A disk that takes so long is no disk.
constexpr double kStalledSecondsMax = 60;

constexpr std::array<std::string_view, 9> kNames{"starting",  "snapshot",     "catching_up",
                                                 "streaming", "reconnecting", "auth_failed",
                                                 "stopped",   "failed",       "halted"};

Path path_in(const Path& store) { return store / "capture.json"; }

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

template <typename T>
std::optional<T> optional_of(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional<T>(json.get<T>());
}

Lsn lsn_of(const Json& json) {
  const auto lsn = parse_lsn(json.get<std::string>());
  return lsn ? *lsn : Lsn{};
}

Json json_of(const ProbeLatency& latency) {
  return {{"buckets", latency.buckets},  {"count", latency.count},
          {"sum", latency.seconds_sum},  {"last", or_null(latency.last)},
          {"p50", or_null(latency.p50)}, {"p99", or_null(latency.p99)}};
}

ProbeLatency latency_of(const Json& json) {
  ProbeLatency latency;
  json.at("buckets").get_to(latency.buckets);
  json.at("count").get_to(latency.count);
  json.at("sum").get_to(latency.seconds_sum);
  latency.last = optional_of<double>(json.at("last"));
  latency.p50 = optional_of<double>(json.at("p50"));
  latency.p99 = optional_of<double>(json.at("p99"));
  return latency;
}

std::optional<CaptureStatus> parse(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    CaptureStatus status;
    const auto& phase = json.at("phase").get_ref<const std::string&>();
    const auto* name = std::find(kNames.begin(), kNames.end(), phase);
    if (name == kNames.end()) return std::nullopt;
    status.phase = static_cast<CapturePhase>(name - kNames.begin());
    json.at("halt").get_to(status.halt);
    json.at("reason").get_to(status.reason);
    json.at("phase_since").get_to(status.phase_since.value);
    json.at("started").get_to(status.started.value);
    json.at("written").get_to(status.written.value);
    json.at("pid").get_to(status.pid);
    json.at("source").get_to(status.source);
    json.at("slot").get_to(status.slot);
    json.at("publication").get_to(status.publication);
    json.at("listen").get_to(status.listen);
    status.server_end = lsn_of(json.at("server_end"));
    status.appended = lsn_of(json.at("appended"));
    status.durable = lsn_of(json.at("durable"));
    status.confirmed = lsn_of(json.at("confirmed"));
    json.at("store_end").get_to(status.store_end);
    json.at("lag_bytes").get_to(status.lag_bytes);
    json.at("lag_seconds").get_to(status.lag_seconds);
    json.at("stalled_seconds").get_to(status.stalled_seconds);
    json.at("transactions").get_to(status.transactions);
    json.at("changes").get_to(status.changes);
    json.at("transactions_per_second").get_to(status.transactions_per_second);
    json.at("changes_per_second").get_to(status.changes_per_second);
    json.at("reconnects").get_to(status.reconnects);
    json.at("repeated").get_to(status.repeated);
    for (const auto& [table, changes] : json.at("tables").items())
      status.tables.emplace_back(table, changes.get<std::uint64_t>());
    status.latency = latency_of(json.at("latency"));
    json.at("wal_status").get_to(status.wal_status);
    status.retained_bytes = optional_of<std::uint64_t>(json.at("retained_bytes"));
    status.safe_wal_bytes = optional_of<std::int64_t>(json.at("safe_wal_bytes"));
    return status;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

std::string_view name_of(CapturePhase phase) { return kNames.at(static_cast<std::size_t>(phase)); }

std::string CaptureStatus::state() const {
  std::string text(name_of(phase));
  return halt.empty() ? text : text + ":" + halt;
}

bool CaptureStatus::ready() const {
  return (phase == CapturePhase::kStreaming || phase == CapturePhase::kCatchingUp) &&
         lag_seconds <= kReadySecondsMax;
}

bool CaptureStatus::healthy() const {
  return phase != CapturePhase::kFailed && phase != CapturePhase::kHalted &&
         stalled_seconds <= kStalledSecondsMax;
}

std::string to_json(const CaptureStatus& status) {
  Json tables = Json::object();
  for (const auto& [table, changes] : status.tables) tables[table] = changes;
  const Json json{{"phase", name_of(status.phase)},
                  {"halt", status.halt},
                  {"reason", status.reason},
                  {"phase_since", status.phase_since.value},
                  {"started", status.started.value},
                  {"written", status.written.value},
                  {"pid", status.pid},
                  {"source", status.source},
                  {"slot", status.slot},
                  {"publication", status.publication},
                  {"listen", status.listen},
                  {"server_end", to_string(status.server_end)},
                  {"appended", to_string(status.appended)},
                  {"durable", to_string(status.durable)},
                  {"confirmed", to_string(status.confirmed)},
                  {"store_end", status.store_end},
                  {"lag_bytes", status.lag_bytes},
                  {"lag_seconds", status.lag_seconds},
                  {"stalled_seconds", status.stalled_seconds},
                  {"transactions", status.transactions},
                  {"changes", status.changes},
                  {"transactions_per_second", status.transactions_per_second},
                  {"changes_per_second", status.changes_per_second},
                  {"reconnects", status.reconnects},
                  {"repeated", status.repeated},
                  {"tables", std::move(tables)},
                  {"latency", json_of(status.latency)},
                  {"wal_status", status.wal_status},
                  {"retained_bytes", or_null(status.retained_bytes)},
                  {"safe_wal_bytes", or_null(status.safe_wal_bytes)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::optional<CaptureStatus>> load_capture_status(const Path& store, FileSystem& files) {
  const auto text = read_file(files, path_in(store), kBytesMax);
  if (text) return parse(*text);
  const ErrorCode code = text.error().code();
  if (code == ErrorCode::kNotFound || code == ErrorCode::kCorruption)
    return std::optional<CaptureStatus>();
  return text.error();
}

Result<void> save_capture_status(const Path& store, const CaptureStatus& status,
                                 FileSystem& files) {
  const Path temporary = path_in(store).string() + ".tmp";
  MILLRACE_ASSIGN_OR_RETURN(const bool leftover, files.exists(temporary));
  if (leftover) MILLRACE_RETURN_IF_ERROR(files.remove(temporary));
  {
    MILLRACE_ASSIGN_OR_RETURN(const auto file, files.open(temporary, OpenMode::kCreate));
    MILLRACE_RETURN_IF_ERROR(file->write_at(0, to_json(status)));
  }
  return files.rename(temporary, path_in(store));
}

}  // namespace millrace
