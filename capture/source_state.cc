#include "capture/source_state.h"

#include <nlohmann/json.hpp>

namespace millrace {
namespace {

constexpr int kFormat = 1;
constexpr std::uint64_t kBytesMax = 16 << 20;

Path path_in(const Path& store) { return store / "source.json"; }

}  // namespace

Result<std::optional<SourceState>> load_source_state(const Path& store, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(path_in(store)));
  if (!there) return std::optional<SourceState>();
  MILLRACE_ASSIGN_OR_RETURN(const std::string bytes, read_file(files, path_in(store), kBytesMax));
  try {
    const nlohmann::json json = nlohmann::json::parse(bytes);
    if (json.at("format").get<int>() > kFormat)
      return Error(ErrorCode::kUnsupported,
                   path_in(store).string() + " was written by a newer millrace")
          .hint("Use the version of millrace that wrote it, or a newer one.");
    const auto slot_start = parse_lsn(json.value("slot_start", "0/0"));
    if (!slot_start)
      return Error(ErrorCode::kCorruption,
                   path_in(store).string() + ": " + slot_start.error().message());
    std::optional<std::uint64_t> unfinished;
    if (json.contains("unfinished_snapshots"))
      unfinished = json.at("unfinished_snapshots").get<std::uint64_t>();
    return SourceState{
        .epoch = json.at("epoch").get<std::uint32_t>(),
        .system_id = json.at("system_id").get<std::string>(),
        .timeline = json.at("timeline").get<std::uint32_t>(),
        .database = json.at("database").get<std::string>(),
        .host = json.at("host").get<std::string>(),
        .slot = json.at("slot").get<std::string>(),
        .slot_start = *slot_start,
        .publication = json.at("publication").get<std::string>(),
        .publication_definition = json.at("publication_definition").get<std::vector<std::string>>(),
        .unfinished_snapshots = unfinished,
        .outbox = json.value("outbox", std::vector<std::string>()),
        .patterns = json.value("patterns", std::string()),
        .tables = json.value("tables", std::vector<std::string>()),
        .resync = json.value("resync", false)};
  } catch (const nlohmann::json::exception& e) {
    return Error(ErrorCode::kCorruption, path_in(store).string() + ": " + e.what())
        .hint(
            "Put the file back from a copy of the store; without it capture can't tell whether "
            "the slot is still the one that this store was fed from.");
  }
}

Result<void> save_source_state(const Path& store, const SourceState& state, FileSystem& files) {
  nlohmann::ordered_json json{{"format", kFormat},
                              {"epoch", state.epoch},
                              {"system_id", state.system_id},
                              {"timeline", state.timeline},
                              {"database", state.database},
                              {"host", state.host},
                              {"slot", state.slot},
                              {"slot_start", to_string(state.slot_start)},
                              {"publication", state.publication},
                              {"publication_definition", state.publication_definition}};
  if (!state.outbox.empty()) json["outbox"] = state.outbox;
  if (!state.patterns.empty()) json["patterns"] = state.patterns;
  if (!state.tables.empty()) json["tables"] = state.tables;
  if (state.resync) json["resync"] = true;
  if (state.unfinished_snapshots) json["unfinished_snapshots"] = *state.unfinished_snapshots;
  // Names in a SQL_ASCII database need not be UTF-8; they are only compared with themselves.
  const std::string text =
      json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  return write_file_atomically(files, path_in(store), text);
}

}  // namespace millrace
