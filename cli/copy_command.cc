#include <boost/program_options.hpp>
#include <map>

#include "base/bytes.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/maintenance.h"
#include "eventstore/log_reader.h"
#include "eventstore/store_snapshot.h"
#include "schemas/merge_change.h"
#include "schemas/registry.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

/// On the terminal.
ProgressFunction show(Progress& line) {
  return [&line](const MaintenanceProgress& now) { line.update(now.done_bytes, now.total_bytes); };
}

constexpr CommandText kErase{
    "log erase", "remove every event of some rows or entities, physically",
    "--store DIR --category C --key K [--key K ...] [--yes] [--json]",
    "Removes from the log's files all events of one or more keys in one category, and appends a\n"
    "tombstone for each, so that readers and views forget them too. All other events keep their\n"
    "offsets. Without --yes it only tells what there is. If it is interrupted, call it again: it\n"
    "goes on. Each call ends a segment of the log, so give it all the keys that you have.\n"
    "\n"
    "The idempotency keys of the appends that wrote those events go as well. Where such an append\n"
    "wrote to other streams, too, a hash of its key stays with that: repeated it is refused, with\n"
    "what was left of it in place. Otherwise nothing is known of it any more: repeated it is a "
    "new\n"
    "append.\n"
    "\n"
    "What it does not reach: snapshots and backups that were made before; views, until they have\n"
    "read the tombstone; events of other keys that tell of the same person; a row's events under\n"
    "the key that it had before its key was changed. The tombstone holds the key."};

class LogErase final : public Command {
 public:
  LogErase() : Command(kErase) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                      //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")  //
        ("category", po::value(&category_)->value_name("C")->required(),
         "the table, such as public.orders")  //
        ("key", po::value(&keys_)->value_name("K")->required()->composing(),
         "the key column's text; several are joined by ','. Again for each further key")  //
        ("yes", po::bool_switch(&yes_), "do it")                                          //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    for (const std::string& key : keys_)
      if (!entities_.emplace(key, Entity{}).second)
        return Error(ErrorCode::kInvalidArgument, "--key " + printable(key) + " is given twice");
    MILLRACE_RETURN_IF_ERROR(look());
    for (const auto& [key, entity] : entities_)
      if (entity.events == 0)
        return Error(ErrorCode::kNotFound, "store " + store_ + " holds no event of " +
                                               printable(category_) + " with the key " +
                                               printable(key) + "; nothing was erased")
            .hint("`millrace log tail --category C` shows the keys.");
    if (!yes_) return tell();
    MILLRACE_ASSIGN_OR_RETURN(const auto store, open_existing(store_));
    std::vector<EntityToErase> wanted;
    for (const std::string& key : keys_) {
      const Entity& entity = entities_.at(key);
      wanted.push_back(
          {.key = key, .tombstone_type = entity.type, .tombstone_payload = entity.tombstone});
    }
    const StopSignals signals;
    EraseOptions options;
    options.stop = signals.token();
    MILLRACE_ASSIGN_OR_RETURN(const EraseReport report,
                              store->erase({.category = category_, .entities = wanted}, options));
    return print(json_ ? json(report) : text(report));
  }

 private:
  struct Entity {
    std::uint64_t events = 0, bytes = 0;
    std::string type, tombstone;
  };

  /// Counts the entities' events and composes a tombstone for each after its last one.
  Result<void> look() {
    MILLRACE_ASSIGN_OR_RETURN(
        const auto reader,
        LogReader::open(store_, {.from = {}, .from_time = {}, .categories = {category_}}));
    MILLRACE_ASSIGN_OR_RETURN(const auto schemas, SchemaRegistry::open_read_only(store_));
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader->next());
      if (batch == nullptr) break;
      while (const EventView* event = batch->next()) {
        if (event->category != category_) continue;
        const auto known = entities_.find(event->key);
        if (known == entities_.end()) continue;
        Entity& entity = known->second;
        ++entity.events;
        entity.bytes += event->key.size() + event->payload.size() + event->metadata.size();
        entity.type = event->type;
        entity.tombstone = event->payload;
      }
      MILLRACE_RETURN_IF_ERROR(batch->status());
    }
    for (auto& [key, entity] : entities_)
      if (entity.events != 0) MILLRACE_RETURN_IF_ERROR(compose(*schemas, entity));
    return {};
  }

  /// From the last event: a captured row's is a DELETE with its key, which every view understands.
  Result<void> compose(SchemaRegistry& schemas, Entity& entity) {
    if (!entity.type.empty()) {
      entity.type = "Erased";
      entity.tombstone.clear();
      return {};
    }
    MILLRACE_ASSIGN_OR_RETURN(const std::uint32_t version, schema_of_change(entity.tombstone));
    MILLRACE_ASSIGN_OR_RETURN(const auto schema, schemas.find(category_, version));
    MILLRACE_ASSIGN_OR_RETURN(auto change, forgetting_change(entity.tombstone, *schema));
    if (!change)
      return Error(ErrorCode::kFailedPrecondition,
                   "table " + printable(category_) + " has no key that a deletion could name")
          .hint("Give it a primary key or a replica identity, then capture it anew.");
    entity.tombstone = *std::move(change);
    return {};
  }

  Result<void> tell() const {
    std::string out;
    Json keys = Json::array();
    std::uint64_t events = 0, bytes = 0;
    for (const std::string& key : keys_) {
      const Entity& entity = entities_.at(key);
      out += grouped(entity.events) + " events of " + printable(category_) + " with the key " +
             printable(key) + ", " + grouped(entity.bytes) + " bytes.\n";
      keys.push_back({{"key", printable(key)}, {"events", entity.events}, {"bytes", entity.bytes}});
      events += entity.events;
      bytes += entity.bytes;
    }
    if (json_)
      return print(to_line({{"erased", false},
                            {"category", category_},
                            {"events", events},
                            {"bytes", bytes},
                            {"keys", keys}}));
    if (keys_.size() > 1)
      out += grouped(events) + " events in total, " + grouped(bytes) + " bytes.\n";
    return print(out + "Nothing was erased: --yes does it, and can't be undone.\n");
  }

  std::string text(const EraseReport& report) const {
    std::string out;
    for (const ErasedEntity& entity : report.entities) {
      out += grouped(entity.events) + " events of " + printable(category_) + " with the key " +
             printable(entity.key) + " erased, " + grouped(entity.bytes) + " bytes";
      if (entity.events != 0)
        out += ", offsets " + std::to_string(entity.first.value) + " to " +
               std::to_string(entity.last.value);
      out += "; tombstone at offset " + std::to_string(entity.tombstone.value) + "\n";
    }
    if (report.entities.size() > 1)
      out += grouped(report.events()) + " events in total, " + grouped(report.bytes()) + " bytes\n";
    return out + grouped(report.segments_rewritten) + " of " + grouped(report.segments) +
           " segments rewritten\n";
  }

  std::string json(const EraseReport& report) const {
    Json keys = Json::array();
    for (const ErasedEntity& entity : report.entities) {
      Json first, last;
      if (entity.events != 0) first = entity.first.value, last = entity.last.value;
      keys.push_back({{"key", printable(entity.key)},
                      {"events", entity.events},
                      {"bytes", entity.bytes},
                      {"first", first},
                      {"last", last},
                      {"tombstone", entity.tombstone.value}});
    }
    return to_line({{"erased", true},
                    {"category", category_},
                    {"events", report.events()},
                    {"bytes", report.bytes()},
                    {"segments", report.segments},
                    {"segments_rewritten", report.segments_rewritten},
                    {"keys", keys}});
  }

  std::string store_, category_;
  std::vector<std::string> keys_;
  std::map<std::string, Entity, std::less<>> entities_;
  bool yes_ = false, json_ = false;
};

Json copy_json(const StoreCopyReport& report) {
  return {{"end", report.end.value},
          {"segments", report.segments},
          {"linked_files", report.linked},
          {"copied_bytes", report.copied_bytes}};
}

std::string copy_text(const StoreCopyReport& report) {
  return grouped(report.end.value) + " offsets in " + grouped(report.segments) + " segments; " +
         grouped(report.linked) + " files are links, " + grouped(report.copied_bytes) +
         " bytes copied\n";
}

constexpr CommandText kSnapshot{
    "log snapshot", "copy a whole store, as of now", "--store DIR --to DIR [--json]",
    "Makes a copy of the store in a new folder. Its sealed segments are hard links where the file\n"
    "system has them, so it takes seconds and little space; on another file system they are\n"
    "copied. The copy can be read like a store; `millrace log restore` makes a store of it. One\n"
    "that is stopped leaves nothing but empty folders, in which another one can be made; one that\n"
    "was killed leaves a folder without store.json: remove it."};

class LogSnapshot final : public Command {
 public:
  LogSnapshot() : Command(kSnapshot) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                                         //
        ("store", po::value(&store_)->value_name("DIR")->required(), "the store's directory")     //
        ("to", po::value(&to_)->value_name("DIR")->required(), "a folder that is not there yet")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    MILLRACE_ASSIGN_OR_RETURN(const auto store, open_existing(store_));
    const StopSignals signals;
    Progress progress("log snapshot", 0, ProgressUnit::kBytes);
    CopyOptions options{.progress = show(progress)};
    options.stop = signals.token();
    MILLRACE_ASSIGN_OR_RETURN(const auto report, store->snapshot(to_, options));
    progress.finish();
    return print(json_ ? to_line(copy_json(report)) : copy_text(report));
  }

 private:
  std::string store_, to_;
  bool json_ = false;
};

constexpr CommandText kRestore{
    "log restore", "make a store of a snapshot", "--from DIR --store DIR [--json]",
    "Checks every byte of the snapshot first, copies it to a new folder, and checks the result. A\n"
    "snapshot that is damaged, not whole, or mixed with another one is refused; indexes that are\n"
    "damaged or missing are no reason, they are made anew.\n"
    "\n"
    "The restored store ends where the snapshot was taken. A capture that goes on with it "
    "compares\n"
    "that with its source, and says so if the source has moved on (SOURCE_GAP)."};

class LogRestore final : public Command {
 public:
  LogRestore() : Command(kRestore) {}

  void declare(po::options_description& options) override {
    options.add_options()                                                           //
        ("from", po::value(&from_)->value_name("DIR")->required(), "the snapshot")  //
        ("store", po::value(&store_)->value_name("DIR")->required(),
         "a folder that is not there yet")  //
        ("json", po::bool_switch(&json_), "one JSON object");
  }

  Result<void> run() override {
    Progress progress("log restore", 0, ProgressUnit::kBytes);
    MILLRACE_ASSIGN_OR_RETURN(const auto report,
                              restore_store(from_, store_, FileSystem::real(), show(progress)));
    progress.finish();
    return print(json_ ? json(report) : text(report));
  }

 private:
  static std::string text(const RestoreReport& report) {
    std::string out = copy_text(report.copy);
    for (const std::string& index : report.indexes_made)
      out += "log/" + index + " was damaged or missing, and made anew\n";
    return out;
  }
  static std::string json(const RestoreReport& report) {
    Json json = copy_json(report.copy);
    json["indexes_made"] = report.indexes_made;
    return to_line(json);
  }

  std::string from_, store_;
  bool json_ = false;
};

}  // namespace

void add_copy_commands(Commands& commands) {
  commands.push_back(std::make_unique<LogErase>());
  commands.push_back(std::make_unique<LogSnapshot>());
  commands.push_back(std::make_unique<LogRestore>());
}

}  // namespace millrace
