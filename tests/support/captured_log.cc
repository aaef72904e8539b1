#include "tests/support/captured_log.h"

#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>

#include "eventstore/log_reader.h"
#include "millrace/v1/change.pb.h"
#include "schemas/json.h"

namespace millrace::test {
namespace {

template <typename T>
T require(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  return *std::move(result);
}

/// What tells of snapshots and of tables' shapes.
bool is_note(std::string_view type) {
  return type.starts_with("snapshot_") || type == "schema_changed";
}

class Fold {
 public:
  Fold(CapturedLog& log, const std::set<std::string>& made_anew)
      : log_(log), made_anew_(made_anew) {}

  void note(const nlohmann::json& event) {
    const std::string table = event["data"].value("table", "");
    if (event["type"] == "snapshot_began")
      being_read_.insert(table);
    else if (event["type"] == "snapshot_completed" || event["type"] == "snapshot_abandoned")
      being_read_.erase(table);
  }

  void apply(const nlohmann::json& event, const std::string& key, const v1::Change& change) {
    CapturedLog::Table& table = log_.tables[event["category"].get<std::string>()];
    const std::string op = event["op"];
    if (op == "t") {
      table.clear();
    } else if (op == "d") {
      if (!table.contains(key)) unexpected(event, "deletes a row that is not there");
      moved_ = table[key];
      table.erase(key);
    } else if (op == "c" || op == "r") {
      if (op == "c" && table.contains(key)) unexpected(event, "creates a row that is there");
      table[key] = completed(event, change.has_moved_from() ? moved_ : nlohmann::json());
    } else if (op == "u") {
      if (!table.contains(key)) unexpected(event, "updates a row that is not there");
      table[key] = completed(event, table[key]);
    }
  }

 private:
  nlohmann::json completed(const nlohmann::json& event, const nlohmann::json& before) {
    nlohmann::json row = event["after"];
    for (const auto& column : event["unchanged"]) {
      const std::string name = column;
      if (!before.contains(name))
        unexpected(event, "leaves " + name + " unchanged, which no event has told");
      else
        row[name] = before[name];
    }
    return row;
  }
  /// No fault while the table is being read beside the stream, which is ahead of the reading then.
  void unexpected(const nlohmann::json& event, const std::string& what) {
    const auto category = event["category"].get<std::string>();
    if (being_read_.contains(category) || made_anew_.contains(category)) return;
    log_.faults.push_back("offset " + event["offset"].dump() + " " + what + ": " + event.dump());
  }

  CapturedLog& log_;
  nlohmann::json moved_;
  std::set<std::string> being_read_;
  const std::set<std::string>& made_anew_;
};

}  // namespace

std::vector<nlohmann::json> CapturedLog::of(const std::string& category,
                                            const std::string& op) const {
  std::vector<nlohmann::json> found;
  for (const nlohmann::json& event : events)
    if (event["category"] == category && event["op"] == op) found.push_back(event);
  return found;
}

std::uint64_t count_changes(const Path& store) {
  const auto reader = LogReader::open(store);
  if (!reader) return 0;
  std::uint64_t count = 0;
  while (Batch* batch = require((*reader)->next()))
    while (const EventView* event = batch->next()) count += is_note(event->type) ? 0 : 1;
  return count;
}

CapturedLog read_captured_log(const Path& store, const std::set<std::string>& made_anew) {
  CapturedLog log;
  Fold fold(log, made_anew);
  const auto reader = require(LogReader::open(store));
  const auto schemas = require(SchemaRegistry::open_read_only(store));
  std::uint64_t expected_offset = 0;
  std::optional<SourcePosition> last;
  bool open = false;
  while (Batch* batch = require(reader->next())) {
    if (batch->first_of_transaction == open)
      log.faults.emplace_back("a transaction begins inside another, or has no beginning");
    if (batch->first_of_transaction && batch->info.source.epoch == 0) {
      ++log.transactions;  // what capture has to say; it stood nowhere in the source
    } else if (batch->first_of_transaction) {
      const SourcePosition& position = batch->info.source;
      const bool captured = position.epoch != 0;  // else appended, by capture itself or others
      if (captured && last &&
          std::tie(position.epoch, position.commit) <= std::tie(last->epoch, last->commit))
        log.faults.push_back("commit positions do not increase at offset " +
                             std::to_string(batch->first.value));
      if (captured) last = position;
      ++log.transactions;
    }
    open = !batch->last_of_transaction;
    while (const EventView* event = batch->next()) {
      if (event->offset.value != expected_offset++)
        log.faults.push_back("offset " + std::to_string(event->offset.value) + " where " +
                             std::to_string(expected_offset - 1) + " was due");
      std::string text;
      const auto rendered = append_event_json({.offset = event->offset.value,
                                               .category = event->category,
                                               .key = event->key,
                                               .type = event->type,
                                               .payload = event->payload,
                                               .captured = true,
                                               .commit_lsn = batch->info.source.commit,
                                               .xid = batch->info.source_xid,
                                               .commit_time = batch->info.commit_time},
                                              *schemas, text);
      if (!rendered) throw std::runtime_error(rendered.error().to_string());
      if (!event->type.empty()) {  // what capture itself has to say
        if (!is_note(event->type))
          log.events.push_back(nlohmann::json::parse(text));
        else
          fold.note(log.notes.emplace_back(nlohmann::json::parse(text)));
        continue;
      }
      if (batch->info.snapshot) ++log.snapshot_events;
      v1::Change change;
      if (!change.ParseFromArray(event->payload.data(), static_cast<int>(event->payload.size())))
        throw std::runtime_error("payload is no Change");
      fold.apply(log.events.emplace_back(nlohmann::json::parse(text)), std::string(event->key),
                 change);
    }
    if (const auto status = batch->status(); !status)
      throw std::runtime_error(status.error().to_string());
  }
  if (open) log.faults.emplace_back("the log ends inside a transaction");
  return log;
}

}  // namespace millrace::test
