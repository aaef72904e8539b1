#include "eventstore/store_snapshot.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "eventstore/log/head.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_copy.h"

namespace millrace {
namespace {

constexpr std::uint64_t kCopyFileBytesMax = 4096;

Error not_whole(const Path& directory, const std::string& what) {
  return Error(ErrorCode::kCorruption,
               "the snapshot in " + directory.string() + " is not whole: " + what)
      .hint("Take another snapshot; nothing was restored.");
}

/// Tells of the bytes of three rounds, of which each reads as many: the copy checked, copied, and
/// the result checked.
class Rounds {
 public:
  explicit Rounds(const ProgressFunction& progress) : progress_(progress) {}

  void begin(int round) { round_ = static_cast<std::uint64_t>(round); }
  void update(std::uint64_t done, std::uint64_t total) {
    total_ = std::max(total_, total);
    if (progress_)
      progress_(
          {.done_bytes = round_ * total_ + std::min(done, total_), .total_bytes = 3 * total_});
  }

 private:
  const ProgressFunction& progress_;
  std::uint64_t round_ = 0, total_ = 0;
};

/// Gives the segments whose indexes are not what they have to be: those are made again.
Result<std::set<std::uint64_t>> check_bytes(const Path& directory, FileSystem& files,
                                            Rounds& rounds) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto report,
      verify_store(
          directory, [&](std::uint64_t done, std::uint64_t total) { rounds.update(done, total); },
          files));
  std::set<std::uint64_t> bad_indexes;
  std::vector<Fault> faults;
  for (const Fault& fault : report.faults) {
    const auto index = log::StorePaths::parse_index_name(Path(fault.file).filename().string());
    if (index)
      bad_indexes.insert(*index);
    else
      faults.push_back(fault);
  }
  if (faults.empty() && report.torn_tail_bytes == 0) return bad_indexes;
  if (faults.empty()) return not_whole(directory, "its log ends within a transaction");
  const Fault& fault = faults.front();
  return not_whole(directory, fault.file + " at byte " + std::to_string(fault.position) + ": " +
                                  fault.kind + (faults.size() > 1 ? ", and more" : ""));
}

/// Gives the names of those that it made. An index that can't be made is none that a store needs.
Result<std::vector<std::string>> make_indexes(const log::StoreContext& store,
                                              const log::StorePaths& paths,
                                              const log::LogExtent& log) {
  std::vector<std::string> made;
  FileSystem& files = *store.files;
  for (std::size_t i = 0; i < log.sealed(); ++i) {
    const std::uint64_t segment = log.segments[i];
    MILLRACE_ASSIGN_OR_RETURN(auto reader,
                              log::SegmentReader::open(files, paths, store.store, segment));
    if (log::SegmentIndex::open(files, paths, reader)) continue;
    const auto index = log::SegmentIndex::build(reader);
    if (!index && index.error().code() == ErrorCode::kUnsupported) continue;
    if (!index) return index.error();
    MILLRACE_RETURN_IF_ERROR(write_file_atomically(files, paths.index(segment), *index));
    made.push_back(log::StorePaths::index_name(segment));
  }
  return made;
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

Result<RestoreReport> restore_store(const Path& from, const Path& to, FileSystem& files,
                                    const ProgressFunction& progress) {
  Rounds rounds(progress);
  MILLRACE_ASSIGN_OR_RETURN(const StoreCopy copy, read_store_copy(from, files));
  const log::StorePaths paths(from);
  MILLRACE_ASSIGN_OR_RETURN(const auto description, log::read_description(files, paths));
  if (description.id != copy.store)
    return not_whole(from, "store.json is of another store than snapshot.json");
  MILLRACE_ASSIGN_OR_RETURN(auto bad_indexes, check_bytes(from, files, rounds));
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
  RestoreReport report;
  rounds.begin(1);
  CopyOptions copying;
  copying.progress = [&](const MaintenanceProgress& now) {
    rounds.update(now.done_bytes, now.total_bytes);
  };
  MILLRACE_ASSIGN_OR_RETURN(report.copy, log::copy_store(store, extent, to,
                                                         {.without_index = std::move(bad_indexes),
                                                          .watched = std::move(copying)}));
  const log::StorePaths restored(to);
  const auto finish = [&]() -> Result<void> {
    MILLRACE_ASSIGN_OR_RETURN(report.indexes_made, make_indexes(store, restored, extent));
    rounds.begin(2);
    MILLRACE_ASSIGN_OR_RETURN(const auto still_bad, check_bytes(to, files, rounds));
    if (still_bad.empty()) return {};
    return Error(ErrorCode::kCorruption, "the store in " + to.string() +
                                             " is not what was written to it: log/" +
                                             log::StorePaths::index_name(*still_bad.begin()))
        .hint("The disk gives other bytes than it got: restore to another one.");
  };
  if (auto finished = finish(); !finished) {
    static_cast<void>(files.remove(restored.description()));  // it is no store then
    static_cast<void>(files.sync_directory(to));
    return std::move(finished).error();
  }
  return report;
}

}  // namespace millrace
