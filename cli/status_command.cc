#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "capture/capture_status.h"
#include "capture/source_state.h"
#include "capture/table_patterns.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/text.h"
#include "eventstore/inspect.h"
#include "eventstore/scrub_report.h"
#include "schemas/lsn.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

constexpr CommandText kStatus{
    "status", "tell what a store holds, where from, and how its capture is doing",
    "--store DIR [--watch] [--json]",
    "Tells a store's identity, how much it holds, which source it is fed from and up to where,\n"
    "which process writes it now, what its writers found when they read the full segments again,\n"
    "which --tables and --outbox are in force, and the tables: the version of each one's schema,\n"
    "and whether it is captured now, was formerly, or is an outbox.\n"
    "\n"
    "Of a running capture it tells the state, how far it is behind, its rate, how long a commit\n"
    "takes to become durable here, how much WAL the server keeps for the slot, and the changes of\n"
    "each table since the capture began; of one that has ended, how."};

/// A running capture writes its status once a second.
constexpr std::int64_t kSilentMicros = 10'000'000;

/// A table of which the store has changes, or which is captured now.
struct TableStatus {
  std::uint32_t schema = 0;   ///< Latest version; 0: no change of it was seen yet.
  std::string_view captured;  ///< "now", "formerly" or "outbox"; empty: nobody knows.
};

/// What is known of a store without reading its events.
struct StoreStatus {
  StoreSummary store;
  std::optional<SourceState> source;
  std::optional<ScrubReport> scrub;
  std::optional<CaptureStatus> capture;
  std::map<std::string, TableStatus> tables;

  /// The capture that wrote `capture` is the process that holds the store.
  bool capture_runs() const {
    return capture && store.writer.starts_with("pid " + std::to_string(capture->pid) + ",") &&
           capture->phase < CapturePhase::kStopped;
  }
  bool knows_captured() const { return source && !source->tables.empty(); }
  /// Nothing has come from it for long although it is there.
  bool capture_silent() const {
    return Clock::system().wall().value - capture->written.value > kSilentMicros;
  }

  std::uint64_t log_bytes() const {
    std::uint64_t bytes = 0;
    for (const SegmentSummary& segment : store.segments) bytes += segment.used_bytes;
    return bytes;
  }
};

void find_captured(StoreStatus& status) {
  if (!status.knows_captured()) return;
  for (auto& [name, table] : status.tables) table.captured = "formerly";
  for (const std::string& name : status.source->tables)
    status.tables[name].captured = is_named(status.source->outbox, name) ? "outbox" : "now";
}

Result<StoreStatus> load_status(const std::string& directory) {
  StoreStatus status;
  MILLRACE_ASSIGN_OR_RETURN(status.store, summarize_store(directory));
  MILLRACE_ASSIGN_OR_RETURN(status.source, load_source_state(directory));
  MILLRACE_ASSIGN_OR_RETURN(status.scrub, read_scrub_report(directory));
  MILLRACE_ASSIGN_OR_RETURN(status.capture, load_capture_status(directory));
  MILLRACE_ASSIGN_OR_RETURN(auto registry, SchemaRegistry::open_read_only(directory));
  MILLRACE_ASSIGN_OR_RETURN(const auto schemas, registry->all());
  for (const auto& schema : schemas)  // sorted by version
    status.tables[schema->category].schema = schema->version;
  find_captured(status);
  return status;
}

std::string durability_text(Durability durability) {
  const std::string name(name_of(durability));
  switch (durability) {
    case Durability::kGroup: return name + ": synced, several commits at a time";
    case Durability::kAlways: return name + ": synced, each commit at once";
    case Durability::kOs: return name + ": written, not synced; a power loss takes the last back";
  }
  return name;
}

std::string scrub_text(const ScrubReport& scrub) {
  if (!scrub.faults.empty()) {
    const ScrubFault& first = scrub.faults.front();
    return std::to_string(scrub.faults.size()) + " damaged: " + first.file + " at byte " +
           std::to_string(first.position) + ": " + printable(first.what, 1000) + ", found " +
           to_iso8601(first.found) + "; see `millrace log verify`";
  }
  if (scrub.completed) return "no fault, all read again until " + to_iso8601(*scrub.completed);
  return "no fault so far, read again up to offset " + std::to_string(scrub.next.value);
}

std::string seconds_text(double seconds) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), seconds < 1 ? "%.1f ms" : "%.1f s",
                seconds < 1 ? seconds * 1000 : seconds);
  return text.data();
}

std::uint64_t changes_of(const CaptureStatus& capture, const std::string& table) {
  const auto found = std::find_if(capture.tables.begin(), capture.tables.end(),
                                  [&](const auto& entry) { return entry.first == table; });
  return found == capture.tables.end() ? 0 : found->second;
}

std::string rate_text(double rate) { return human_count(rate) + "/s"; }

/// Lines of a capture that runs.
std::vector<std::string> capture_lines(const StoreStatus& status) {
  const CaptureStatus& capture = *status.capture;
  std::vector<std::string> lines;
  lines.push_back(capture.state() + " since " + to_iso8601(capture.phase_since) + ", pid " +
                  std::to_string(capture.pid) +
                  (status.capture_silent()
                       ? "; IT DOES NOT RESPOND: what follows is of " + to_iso8601(capture.written)
                       : ""));
  if (!capture.reason.empty()) lines.push_back(printable(capture.reason, 2000));
  lines.push_back(human_bytes(static_cast<double>(capture.lag_bytes)) + " and " +
                  seconds_text(capture.lag_seconds) + " behind; " +
                  rate_text(capture.changes_per_second) + " changes, " +
                  rate_text(capture.transactions_per_second) + " transactions");
  lines.push_back(counted(capture.changes, "change") + " in " +
                  counted(capture.transactions, "transaction") + " since " +
                  to_iso8601(capture.started) + ", " + counted(capture.reconnects, "reconnect"));
  if (capture.latency.p50 && capture.latency.p99)
    lines.push_back("commit to durable " + seconds_text(*capture.latency.p50) + " (median), " +
                    seconds_text(*capture.latency.p99) + " (p99)");
  if (capture.retained_bytes)
    lines.push_back(
        "the server keeps " + human_bytes(static_cast<double>(*capture.retained_bytes)) +
        " of WAL for the slot (" + printable(capture.wal_status) + ")" +
        (capture.safe_wal_bytes ? ", " +
                                      human_bytes(static_cast<double>(
                                          std::max<std::int64_t>(*capture.safe_wal_bytes, 0))) +
                                      " more before it is in danger"
                                : ""));
  if (!capture.listen.empty()) lines.push_back("metrics at http://" + capture.listen + "/metrics");
  return lines;
}

std::vector<std::string> last_capture_lines(const CaptureStatus& capture) {
  if (capture.phase < CapturePhase::kStopped)
    return {"not running: it was killed, last seen " + capture.state() + " at " +
            to_iso8601(capture.written)};
  std::vector<std::string> lines{"not running: " + capture.state() + " at " +
                                 to_iso8601(capture.phase_since)};
  if (!capture.reason.empty()) lines.push_back(printable(capture.reason, 2000));
  return lines;
}

std::string captured_text(const SourceState& source) {
  std::string text = source.patterns.empty() ? "all tables of the publication"
                                             : "--tables " + printable(source.patterns, 2000);
  std::string outboxes;
  for (const std::string& outbox : source.outbox)
    outboxes += (outboxes.empty() ? ", --outbox " : ",") + printable(outbox);
  return text + outboxes;
}

TextTable tables_table(const StoreStatus& status) {
  const bool runs = status.capture_runs();
  const bool known = status.knows_captured();
  std::vector<std::string> header{"table", "schema version"};
  if (known) header.emplace_back("captured");
  if (runs) header.emplace_back("changes");
  TextTable text(std::move(header));
  for (const auto& [category, table] : status.tables) {
    std::vector<std::string> row{printable(category),
                                 table.schema == 0 ? "-" : std::to_string(table.schema)};
    if (known) row.emplace_back(table.captured);
    if (runs) row.push_back(grouped(changes_of(*status.capture, category)));
    text.add(std::move(row));
  }
  return text;
}

std::string text_of(const StoreStatus& status) {
  const StoreSummary& store = status.store;
  std::string text;
  const auto line = [&](std::string_view label, const std::string& value) {
    (text += label) += std::string(10 - label.size(), ' ') + value + "\n";
  };
  line("store", to_string(store.id) + ", format " + std::to_string(store.format_version) +
                    ", made " + to_iso8601(store.created));
  line("events", grouped(store.durable_end.value - store.first.value) + ", offsets " +
                     std::to_string(store.first.value) + " to " +
                     std::to_string(store.durable_end.value));
  line("log", human_bytes(static_cast<double>(status.log_bytes())) + " in " +
                  counted(store.segments.size(), "segment"));
  line("writer", store.writer.empty() ? "none" : printable(store.writer));
  if (store.durability) line("durable", durability_text(*store.durability));
  if (status.scrub) line("scrub", scrub_text(*status.scrub));
  if (status.source) {
    const SourceState& source = *status.source;
    line("source", "database " + printable(source.database) + " on " + printable(source.host));
    line("", "slot " + source.slot + ", publication " + printable(source.publication) + ", epoch " +
                 std::to_string(source.epoch));
    line("", "system " + source.system_id + ", timeline " + std::to_string(source.timeline));
    if (status.knows_captured()) line("", captured_text(source));
  } else {
    line("source", "none: no capture has fed this store yet");
  }
  if (store.source)
    line("commit", to_string(Lsn{store.source->commit}) + " of " +
                       to_iso8601(store.last_commit_time) + ", the last one that is durable");
  if (status.capture) {
    std::string_view label = "capture";
    for (const std::string& told :
         status.capture_runs() ? capture_lines(status) : last_capture_lines(*status.capture))
      line(std::exchange(label, ""), told);
  }
  if (status.tables.empty()) return text;
  text += '\n';
  tables_table(status).append_to(text);
  return text;
}

Json source_json(const StoreStatus& status) {
  if (!status.source) return nullptr;
  const SourceState& source = *status.source;
  Json json{{"database", source.database},   {"host", source.host},
            {"slot", source.slot},           {"publication", source.publication},
            {"system_id", source.system_id}, {"timeline", source.timeline},
            {"epoch", source.epoch},         {"commit_lsn", nullptr},
            {"commit_time", nullptr},        {"tables", nullptr},
            {"outbox", source.outbox}};
  if (!source.patterns.empty()) json["tables"] = source.patterns;
  if (status.store.source) {
    json["commit_lsn"] = to_string(Lsn{status.store.source->commit});
    json["commit_time"] = to_iso8601(status.store.last_commit_time);
  }
  return json;
}

Json scrub_json(const StoreStatus& status) {
  if (!status.scrub) return nullptr;
  Json faults = Json::array();
  for (const ScrubFault& fault : status.scrub->faults)
    faults.push_back({{"file", fault.file},
                      {"position", fault.position},
                      {"what", printable(fault.what, 1000)},
                      {"found", to_iso8601(fault.found)}});
  const auto& completed = status.scrub->completed;
  return {{"completed", completed ? Json(to_iso8601(*completed)) : Json()},
          {"faults", std::move(faults)}};
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json capture_json(const StoreStatus& status) {
  if (!status.capture) return nullptr;
  const CaptureStatus& capture = *status.capture;
  Json tables = Json::object();
  for (const auto& [table, changes] : capture.tables) tables[table] = changes;
  return {{"running", status.capture_runs()},
          {"responding", status.capture_runs() && !status.capture_silent()},
          {"state", capture.state()},
          {"reason", capture.reason.empty() ? Json() : Json(capture.reason)},
          {"since", to_iso8601(capture.phase_since)},
          {"as_of", to_iso8601(capture.written)},
          {"started", to_iso8601(capture.started)},
          {"pid", capture.pid},
          {"ready", status.capture_runs() && !status.capture_silent() && capture.ready()},
          {"listen", capture.listen.empty() ? Json() : Json(capture.listen)},
          {"server_end", to_string(capture.server_end)},
          {"durable", to_string(capture.durable)},
          {"confirmed", to_string(capture.confirmed)},
          {"lag_bytes", capture.lag_bytes},
          {"lag_seconds", capture.lag_seconds},
          {"changes_per_second", capture.changes_per_second},
          {"transactions_per_second", capture.transactions_per_second},
          {"changes", capture.changes},
          {"transactions", capture.transactions},
          {"repeated_transactions", capture.repeated},
          {"reconnects", capture.reconnects},
          {"commit_to_durable_p50", or_null(capture.latency.p50)},
          {"commit_to_durable_p99", or_null(capture.latency.p99)},
          {"wal_status", capture.wal_status.empty() ? Json() : Json(capture.wal_status)},
          {"retained_wal_bytes", or_null(capture.retained_bytes)},
          {"safe_wal_bytes", or_null(capture.safe_wal_bytes)},
          {"table_changes", std::move(tables)}};
}

std::string json_of(const StoreStatus& status) {
  const StoreSummary& store = status.store;
  Json tables = Json::array();
  for (const auto& [category, table] : status.tables)
    tables.push_back({{"category", category},
                      {"schema", table.schema == 0 ? Json() : Json(table.schema)},
                      {"captured", table.captured.empty() ? Json() : Json(table.captured)}});
  Json writer = nullptr;
  if (!store.writer.empty()) writer = store.writer;
  Json durability = nullptr;
  if (store.durability) durability = name_of(*store.durability);
  return to_line({{"store_id", to_string(store.id)},
                  {"format_version", store.format_version},
                  {"created", to_iso8601(store.created)},
                  {"first_offset", store.first.value},
                  {"durable_end", store.durable_end.value},
                  {"segments", store.segments.size()},
                  {"log_bytes", status.log_bytes()},
                  {"writer", std::move(writer)},
                  {"durability", std::move(durability)},
                  {"scrub", scrub_json(status)},
                  {"source", source_json(status)},
                  {"capture", capture_json(status)},
                  {"tables", std::move(tables)}});
}

class Status final : public Command {
 public:
  Status() : Command(kStatus) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("watch", po::bool_switch(&watch_),
         "tell it again every second, in place on a terminal, until interrupted")  //
        ("json", po::bool_switch(&json_), "one JSON object; with --watch one per line");
  }

  Result<void> run() override {
    if (!watch_) return show("");
    const StopSignals signals;
    const bool in_place = !json_ && ::isatty(STDOUT_FILENO) == 1;
    const std::string before = in_place ? "\x1b[H\x1b[2J" : "";
    std::mutex mutex;
    std::condition_variable_any condition;
    std::unique_lock lock(mutex);
    do {
      MILLRACE_RETURN_IF_ERROR(show(before));
      if (!in_place && !json_) MILLRACE_RETURN_IF_ERROR(print("\n"));
      condition.wait_for(lock, signals.token(), std::chrono::seconds(1), [] { return false; });
    } while (!signals.token().stop_requested());
    return {};
  }

 private:
  Result<void> show(const std::string& before) {
    MILLRACE_ASSIGN_OR_RETURN(const StoreStatus status, load_status(store_));
    return print(before + (json_ ? json_of(status) : text_of(status)));
  }

  static Result<void> print(const std::string& text) {
    Output output;
    output.text() = text;
    return output.flush();
  }

  std::string store_;
  bool watch_ = false, json_ = false;
};

}  // namespace

void add_status_command(Commands& commands) { commands.push_back(std::make_unique<Status>()); }

}  // namespace millrace
