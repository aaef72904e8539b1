#include "eventstore/store_snapshot.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "eventstore/log/head.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/store_copy.h"

namespace millrace {
namespace {

constexpr std::uint64_t kCopyFileBytesMax = 4096;

Error not_whole(const Path& directory, const std::string& what) {
  return Error(ErrorCode::kCorruption,
               "the snapshot in " + directory.string() + " is not whole: " + what)
      .hint("Take another snapshot; nothing was restored.");
}

Result<void> check_bytes(const Path& directory, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const auto report, verify_store(directory, {}, files));
  if (report.faults.empty() && report.torn_tail_bytes == 0) return {};
  if (report.faults.empty()) return not_whole(directory, "its log ends within a transaction");
  const Fault& fault = report.faults.front();
  return not_whole(directory, fault.file + " at byte " + std::to_string(fault.position) + ": " +
                                  fault.kind + (report.faults.size() > 1 ? ", and more" : ""));
}

}  // namespace

Result<StoreCopy> read_store_copy(const Path& directory, FileSystem& files) {
  const Path file = directory / log::kCopyFileName;
  auto text = read_file(files, file, kCopyFileBytesMax);
  if (!text && text.error().code() == ErrorCode::kNotFound)
    return Error(ErrorCode::kNotFound, "there is no snapshot in " + directory.string())
        .hint("`millrace log snapshot --to DIR` makes one.");
  if (!text) return std::move(text).error();
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  StoreCopy copy;
  const auto is_number = [&](const char* name) {
    return json.contains(name) && json[name].is_number_unsigned();
  };
  if (!json.is_object() || !json.contains("store") || !json["store"].is_string() ||
      !is_number("end") || !is_number("made"))
    return not_whole(directory, file.string() + " is damaged");
  const auto id = from_hex(json["store"].get<std::string>());
  if (!id || id->size() != copy.store.bytes.size())
    return not_whole(directory, file.string() + " is damaged");
  std::copy(id->begin(), id->end(), copy.store.bytes.begin());
  copy.end = {json["end"].get<std::uint64_t>()};
  copy.made = {json["made"].get<std::int64_t>()};
  return copy;
}

Result<StoreCopyReport> restore_store(const Path& from, const Path& to, FileSystem& files) {
  MILLRACE_ASSIGN_OR_RETURN(const StoreCopy copy, read_store_copy(from, files));
  const log::StorePaths paths(from);
  MILLRACE_ASSIGN_OR_RETURN(const auto description, log::read_description(files, paths));
  if (description.id != copy.store)
    return not_whole(from, "store.json is of another store than snapshot.json");
  MILLRACE_RETURN_IF_ERROR(check_bytes(from, files));
  MILLRACE_ASSIGN_OR_RETURN(const auto head, log::HeadReader(files, paths, copy.store).read());
  if (head.durable || head.at_least)
    return not_whole(from, "somebody wrote to it").hint("It is a store of its own now; use it so.");
  MILLRACE_ASSIGN_OR_RETURN(const auto end, log::find_end(files, paths, copy.store, std::nullopt));
  if (end.end != copy.end)
    return not_whole(from, "its log ends at offset " + std::to_string(end.end.value) + " and not " +
                               std::to_string(copy.end.value));
  log::LogExtent extent{.segments = {}, .durable = end};
  MILLRACE_ASSIGN_OR_RETURN(extent.segments, log::list_segments(files, paths));
  const log::StoreContext store{
      .files = &files, .clock = &Clock::system(), .paths = paths, .store = copy.store};
  MILLRACE_ASSIGN_OR_RETURN(auto report, log::copy_store(store, extent, to, 0, false));
  MILLRACE_RETURN_IF_ERROR(check_bytes(to, files));
  return report;
}

}  // namespace millrace
