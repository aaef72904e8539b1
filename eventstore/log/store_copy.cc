#include "eventstore/log/store_copy.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "eventstore/store_snapshot.h"

namespace millrace::log {
namespace {

constexpr std::size_t kCopyBytes = 1 << 20;
/// Beside the log and store.json; those that are there are copied.
constexpr const char* const kSmallFiles[] = {"schemas", "source.json"};
/// Not snapshots of streams: those that are taken meanwhile may be of what is not in the copy, and
/// all of them can be had again.
constexpr const char* const kSmallFolders[] = {"consumers"};

Result<void> make_empty_directory(FileSystem& files, const Path& to) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(to));
  if (there) {
    MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(to));
    if (names.empty()) return {};
    return Error(ErrorCode::kFailedPrecondition, to.string() + " is there and not empty")
        .hint("Name a folder that is not there yet.");
  }
  MILLRACE_RETURN_IF_ERROR(files.make_directory(to));
  const Path parent = to.has_filename() ? to.parent_path() : to.parent_path().parent_path();
  return files.sync_directory(parent.empty() ? Path(".") : parent);
}

/// One run of copying.
class Copier {
 public:
  Copier(const StoreContext& store, Path to, std::uint64_t link_below)
      : files_(*store.files), store_(store), to_(std::move(to)), link_below_(link_below) {}

  Result<void> copy_log(const LogExtent& log);
  Result<void> copy_small_files();
  StoreCopyReport report;

 private:
  Result<void> place(std::uint64_t segment, const Path& from, const Path& to);
  Result<void> copy(const Path& from, const Path& to, std::optional<std::uint64_t> bytes = {});
  Result<void> copy_if_there(const Path& from, const Path& to);

  FileSystem& files_;
  const StoreContext& store_;
  const StorePaths to_;
  std::uint64_t link_below_;
};

Result<void> Copier::place(std::uint64_t segment, const Path& from, const Path& to) {
  if (segment >= link_below_) return copy(from, to);
  const auto linked = files_.link(from, to);
  if (linked) {
    ++report.linked;
    return {};
  }
  if (linked.error().code() != ErrorCode::kUnsupported) return linked;
  link_below_ = 0;
  return copy(from, to);
}

Result<void> Copier::copy(const Path& from, const Path& to, std::optional<std::uint64_t> bytes) {
  MILLRACE_ASSIGN_OR_RETURN(const auto source, files_.open(from, OpenMode::kRead));
  MILLRACE_ASSIGN_OR_RETURN(const auto target, files_.open(to, OpenMode::kCreate));
  std::string buffer;
  for (std::uint64_t position = 0; !bytes || position < *bytes;) {
    const std::uint64_t left = bytes ? *bytes - position : kCopyBytes;
    buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(left, kCopyBytes)));
    MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, source->read_at(position, buffer));
    if (count == 0 && !bytes) break;
    if (count == 0)
      return Error(ErrorCode::kCorruption, from.string() + " is shorter than it has to be");
    MILLRACE_RETURN_IF_ERROR(target->write_at(position, std::string_view(buffer).substr(0, count)));
    position += count;
    report.copied_bytes += count;
  }
  return target->sync();
}

Result<void> Copier::copy_if_there(const Path& from, const Path& to) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(from));
  return there ? copy(from, to) : Result<void>{};
}

Result<void> Copier::copy_log(const LogExtent& log) {
  MILLRACE_RETURN_IF_ERROR(files_.make_directory(to_.log()));
  for (const std::uint64_t segment : log.segments) {
    if (segment > log.durable.segment) break;  // begun by a transaction that is not at its end
    ++report.segments;
    const Path from = store_.paths.segment(segment), to = to_.segment(segment);
    if (segment == log.durable.segment) {
      MILLRACE_RETURN_IF_ERROR(copy(from, to, log.durable.position));
      break;
    }
    MILLRACE_RETURN_IF_ERROR(place(segment, from, to));
    const Path index = store_.paths.index(segment);
    MILLRACE_ASSIGN_OR_RETURN(const bool indexed, files_.exists(index));
    if (indexed) MILLRACE_RETURN_IF_ERROR(place(segment, index, to_.index(segment)));
  }
  return files_.sync_directory(to_.log());
}

/// After the log: what that refers to was there before it.
Result<void> Copier::copy_small_files() {
  for (const char* name : kSmallFiles)
    MILLRACE_RETURN_IF_ERROR(copy_if_there(store_.paths.directory / name, to_.directory / name));
  for (const char* folder : kSmallFolders) {
    const Path from = store_.paths.directory / folder, to = to_.directory / folder;
    MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(from));
    if (!there) continue;
    MILLRACE_RETURN_IF_ERROR(files_.make_directory(to));
    MILLRACE_ASSIGN_OR_RETURN(const auto names, files_.list(from));
    for (const std::string& name : names)
      if (!name.ends_with(".tmp")) MILLRACE_RETURN_IF_ERROR(copy_if_there(from / name, to / name));
    MILLRACE_RETURN_IF_ERROR(files_.sync_directory(to));
  }
  return {};
}

Result<void> write_copy_file(FileSystem& files, const Path& directory, const StoreCopy& copy) {
  const nlohmann::ordered_json json{
      {"store", to_string(copy.store)}, {"end", copy.end.value}, {"made", copy.made.value}};
  return write_file_atomically(files, directory / kCopyFileName, json.dump(2) + "\n");
}

}  // namespace

Result<StoreCopyReport> copy_store(const StoreContext& store, const LogExtent& log, const Path& to,
                                   std::uint64_t link_below, bool mark_as_copy) {
  FileSystem& files = *store.files;
  MILLRACE_RETURN_IF_ERROR(make_empty_directory(files, to));
  Copier copier(store, to, link_below);
  MILLRACE_RETURN_IF_ERROR(copier.copy_log(log));
  MILLRACE_RETURN_IF_ERROR(copier.copy_small_files());
  if (mark_as_copy)
    MILLRACE_RETURN_IF_ERROR(write_copy_file(
        files, to, {.store = store.store, .end = log.durable.end, .made = store.clock->wall()}));
  // Last: without it a folder is no store.
  MILLRACE_ASSIGN_OR_RETURN(const auto description, read_description(files, store.paths));
  MILLRACE_RETURN_IF_ERROR(write_description(files, StorePaths(to), description));
  copier.report.end = log.durable.end;
  return copier.report;
}

}  // namespace millrace::log
