#include "projections/engine/sink_status.h"

#include <nlohmann/json.hpp>

namespace millrace::projections {
namespace {

constexpr std::uint64_t kBytesMax = 64 << 10;

}  // namespace

Result<void> write_sink_status(const Path& file, const SinkStatus& status) {
  nlohmann::ordered_json json = {{"where", status.where}, {"failure", status.failure}};
  if (status.shown)
    json["shown"] = {{"store_id", status.shown->store_id},
                     {"lineage", status.shown->lineage},
                     {"commit", status.shown->commit},
                     {"offset", status.shown->offset.value}};
  const std::string text =
      json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  FileSystem& files = FileSystem::real();
  const Path temporary = file.string() + ".tmp";
  MILLRACE_ASSIGN_OR_RETURN(const bool leftover, files.exists(temporary));
  if (leftover) MILLRACE_RETURN_IF_ERROR(files.remove(temporary));
  {
    MILLRACE_ASSIGN_OR_RETURN(const auto written, files.open(temporary, OpenMode::kCreate));
    MILLRACE_RETURN_IF_ERROR(written->write_at(0, text));
  }
  return files.rename(temporary, file);
}

std::optional<SinkStatus> read_sink_status(const Path& file) {
  const auto text = read_file(FileSystem::real(), file, kBytesMax);
  if (!text) return std::nullopt;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    SinkStatus status{json.at("where"), std::nullopt, json.at("failure")};
    if (json.contains("shown")) {
      const auto& shown = json["shown"];
      status.shown = SinkCheckpoint{shown.at("store_id"), shown.at("lineage"), shown.at("commit"),
                                    Offset{shown.at("offset").get<std::uint64_t>()}};
    }
    return status;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

}  // namespace millrace::projections
