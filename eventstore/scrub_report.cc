#include "eventstore/scrub_report.h"

#include <nlohmann/json.hpp>

#include "eventstore/log/checked_json.h"

namespace millrace {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kReportBytesMax = 16 << 20;

Path path_of(const Path& store) { return store / "scrub.json"; }

std::optional<ScrubReport> parse(const std::string& text) {
  if (!log::has_right_checksum(text)) return std::nullopt;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  try {
    ScrubReport report{
        .pass_began = {json.at("pass_began").get_ref<const Json::number_integer_t&>()},
        .next = {json.at("next").get_ref<const Json::number_unsigned_t&>()},
        .completed = {},
        .faults = {}};
    if (!json.at("completed").is_null())
      report.completed = UnixMicros{json.at("completed").get_ref<const Json::number_integer_t&>()};
    for (const Json& fault : json.at("faults"))
      report.faults.push_back(
          {.file = fault.at("file").get<std::string>(),
           .position = fault.at("position").get_ref<const Json::number_unsigned_t&>(),
           .what = fault.at("what").get<std::string>(),
           .found = {fault.at("found").get_ref<const Json::number_integer_t&>()}});
    return report;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Result<std::optional<ScrubReport>> read_scrub_report(const Path& store, FileSystem& files) {
  const auto text = read_file(files, path_of(store), kReportBytesMax);
  if (text) return parse(*text);
  const ErrorCode code = text.error().code();
  if (code == ErrorCode::kNotFound || code == ErrorCode::kCorruption)
    return std::optional<ScrubReport>();
  return text.error();
}

Result<void> write_scrub_report(const Path& store, const ScrubReport& report, FileSystem& files) {
  Json faults = Json::array();
  for (const ScrubFault& fault : report.faults)
    faults.push_back({{"file", fault.file},
                      {"position", fault.position},
                      {"what", fault.what},
                      {"found", fault.found.value}});
  const Json json{{"pass_began", report.pass_began.value},
                  {"next", report.next.value},
                  {"completed", report.completed ? Json(report.completed->value) : Json()},
                  {"faults", std::move(faults)}};
  return write_file_atomically(
      files, path_of(store),
      log::with_checksum(json.dump(2, ' ', false, Json::error_handler_t::replace)));
}

Result<void> remove_scrub_report(const Path& store, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(path_of(store)));
  if (!there) return {};
  MILLRACE_RETURN_IF_ERROR(files.remove(path_of(store)));
  return files.sync_directory(store);
}

}  // namespace millrace
