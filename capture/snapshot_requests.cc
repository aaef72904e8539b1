#include "capture/snapshot_requests.h"

#include <nlohmann/json.hpp>
#include <random>

#include "base/bytes.h"

namespace millrace {
namespace {

constexpr std::uint64_t kBytesMax = 1 << 20;
constexpr std::string_view kEnding = ".json";

Path folder_of(const Path& store) { return store / "requests"; }
Path file_of(const Path& store, const std::string& id) {
  return folder_of(store) / (id + std::string(kEnding));
}

std::string new_id() {
  std::random_device random;
  std::string bytes;
  for (int i = 0; i < 2; ++i) append_be<std::uint32_t>(bytes, random());
  return to_hex(bytes);
}

}  // namespace

Result<std::string> save_snapshot_request(const Path& store, SnapshotRequest request,
                                          FileSystem& files) {
  if (request.id.empty()) request.id = new_id();
  nlohmann::ordered_json json{{"tables", nlohmann::ordered_json::array()}};
  for (const SnapshotRequest::Table& table : request.tables)
    json["tables"].push_back({{"oid", table.oid}, {"table", to_hex(table.category)}});
  if (!request.where.empty()) json["where"] = to_hex(request.where);  // of any encoding
  MILLRACE_RETURN_IF_ERROR(files.make_directory(folder_of(store)));
  MILLRACE_RETURN_IF_ERROR(files.sync_directory(store));
  MILLRACE_RETURN_IF_ERROR(
      write_file_atomically(files, file_of(store, request.id), json.dump() + "\n"));
  return request.id;
}

Result<std::vector<SnapshotRequest>> list_snapshot_requests(const Path& store, FileSystem& files) {
  std::vector<SnapshotRequest> requests;
  MILLRACE_ASSIGN_OR_RETURN(const bool any, files.exists(folder_of(store)));
  if (!any) return requests;
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(folder_of(store)));
  for (const std::string& name : names) {
    if (!name.ends_with(kEnding)) continue;  // one that is being written
    const Path path = folder_of(store) / name;
    MILLRACE_ASSIGN_OR_RETURN(const std::string bytes, read_file(files, path, kBytesMax));
    try {
      const nlohmann::json json = nlohmann::json::parse(bytes);
      SnapshotRequest request;
      request.id = name.substr(0, name.size() - kEnding.size());
      const auto text = [&](const nlohmann::json& hex) {
        const auto decoded = from_hex(hex.get<std::string>());
        if (!decoded) throw std::runtime_error("a text that is not hexadecimal");
        return *decoded;
      };
      for (const auto& table : json.at("tables"))
        request.tables.push_back(
            {.oid = table.at("oid").get<std::uint32_t>(), .category = text(table.at("table"))});
      if (json.contains("where")) request.where = text(json.at("where"));
      requests.push_back(std::move(request));
    } catch (const std::exception& e) {
      return Error(ErrorCode::kCorruption, path.string() + ": " + e.what())
          .hint("Remove the file and ask for the snapshot again.");
    }
  }
  return requests;
}

Result<void> remove_snapshot_request(const Path& store, const std::string& id, FileSystem& files) {
  MILLRACE_RETURN_IF_ERROR(files.remove(file_of(store, id)));
  return files.sync_directory(folder_of(store));
}

}  // namespace millrace
