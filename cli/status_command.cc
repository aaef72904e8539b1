#include <boost/program_options.hpp>
#include <map>

#include "base/bytes.h"
#include "base/output.h"
#include "base/progress.h"
#include "capture/source_state.h"
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
    "status", "tell what a store holds, where from, and who writes it", "--store DIR [--json]",
    "Tells a store's identity, how much it holds, which source it is fed from and up to where,\n"
    "which process writes it now, what its writers found when they read the full segments again,\n"
    "and the tables with the versions of their schemas."};

/// What is known of a store without reading its events.
struct StoreStatus {
  StoreSummary store;
  std::optional<SourceState> source;
  std::optional<ScrubReport> scrub;
  std::map<std::string, std::uint32_t> tables;  ///< Latest version of each.

  std::uint64_t log_bytes() const {
    std::uint64_t bytes = 0;
    for (const SegmentSummary& segment : store.segments) bytes += segment.used_bytes;
    return bytes;
  }
};

Result<StoreStatus> load_status(const std::string& directory) {
  StoreStatus status;
  MILLRACE_ASSIGN_OR_RETURN(status.store, summarize_store(directory));
  MILLRACE_ASSIGN_OR_RETURN(status.source, load_source_state(directory));
  MILLRACE_ASSIGN_OR_RETURN(status.scrub, read_scrub_report(directory));
  MILLRACE_ASSIGN_OR_RETURN(auto registry, SchemaRegistry::open_read_only(directory));
  MILLRACE_ASSIGN_OR_RETURN(const auto schemas, registry->all());
  for (const auto& schema : schemas)  // sorted by version
    status.tables[schema->category] = schema->version;
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
                  std::to_string(store.segments.size()) +
                  (store.segments.size() == 1 ? " segment" : " segments"));
  line("writer", store.writer.empty() ? "none" : printable(store.writer));
  if (store.durability) line("durable", durability_text(*store.durability));
  if (status.scrub) line("scrub", scrub_text(*status.scrub));
  if (status.source) {
    const SourceState& source = *status.source;
    line("source", "database " + printable(source.database) + " on " + printable(source.host));
    line("", "slot " + source.slot + ", publication " + printable(source.publication) + ", epoch " +
                 std::to_string(source.epoch));
    line("", "system " + source.system_id + ", timeline " + std::to_string(source.timeline));
  } else {
    line("source", "none: no capture has fed this store yet");
  }
  if (store.source)
    line("commit", to_string(Lsn{store.source->commit}) + " of " +
                       to_iso8601(store.last_commit_time) + ", the last one that is durable");
  if (status.tables.empty()) return text;
  text += '\n';
  TextTable table({"table", "schema version"});
  for (const auto& [category, version] : status.tables)
    table.add({printable(category), std::to_string(version)});
  table.append_to(text);
  return text;
}

Json source_json(const StoreStatus& status) {
  if (!status.source) return nullptr;
  const SourceState& source = *status.source;
  Json json{{"database", source.database},   {"host", source.host},
            {"slot", source.slot},           {"publication", source.publication},
            {"system_id", source.system_id}, {"timeline", source.timeline},
            {"epoch", source.epoch},         {"commit_lsn", nullptr},
            {"commit_time", nullptr}};
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

std::string json_of(const StoreStatus& status) {
  const StoreSummary& store = status.store;
  Json tables = Json::array();
  for (const auto& [category, version] : status.tables)
    tables.push_back({{"category", category}, {"schema", version}});
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
                  {"tables", std::move(tables)}});
}

class Status final : public Command {
 public:
  Status() : Command(kStatus) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const StoreStatus status, load_status(store_));
    Output output;
    output.text() = json_ ? json_of(status) : text_of(status);
    return output.flush();
  }

 private:
  std::string store_;
  bool json_ = false;
};

}  // namespace

void add_status_command(Commands& commands) { commands.push_back(std::make_unique<Status>()); }

}  // namespace millrace
