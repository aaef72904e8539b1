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

/// True for a folder in which nothing is but the folders that a copy was begun with.
Result<bool> is_empty(FileSystem& files, const Path& directory) {
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(directory));
  for (const std::string& name : names) {
    if (name != "log" && std::find(std::begin(kSmallFolders), std::end(kSmallFolders), name) ==
                             std::end(kSmallFolders))
      return false;
    const auto inside = files.list(directory / name);
    if (!inside || !inside->empty()) return false;
  }
  return true;
}

Result<void> make_empty_directory(FileSystem& files, const Path& to) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files.exists(to));
  if (there) {
    MILLRACE_ASSIGN_OR_RETURN(const bool empty, is_empty(files, to));
    if (empty) return {};
    return Error(ErrorCode::kFailedPrecondition, to.string() + " is there and not empty")
        .hint("Name a folder that is not there yet.");
  }
  Path parent = to.has_filename() ? to.parent_path() : to.parent_path().parent_path();
  if (parent.empty()) parent = ".";
  if (auto made = files.make_directory(to); !made) {
    if (made.error().code() != ErrorCode::kNotFound) return made;
    return Error(ErrorCode::kNotFound,
                 "can't make " + to.string() + ": there is no folder " + parent.string())
        .hint("Make that one first: mkdir -p " + parent.string());
  }
  return files.sync_directory(parent);
}

/// One run of copying.
class Copier {
 public:
  Copier(const StoreContext& store, Path to, const CopyRules& rules)
      : files_(*store.files),
        store_(store),
        to_(std::move(to)),
        rules_(rules),
        link_below_(rules.link_below),
        pace_(0, rules.watched.progress, rules.watched.stop, *store.clock) {}

  Result<void> run(const LogExtent& log);
  /// Takes away what there is of the copy, as far as that goes.
  void undo();
  StoreCopyReport report;

 private:
  Result<void> expect(const LogExtent& log);
  Result<void> copy_log(const LogExtent& log);
  Result<void> copy_small_files();
  Result<void> place(std::uint64_t segment, const Path& from, const Path& to);
  Result<void> copy(const Path& from, const Path& to, std::optional<std::uint64_t> bytes = {});
  Result<void> copy_if_there(const Path& from, const Path& to);

  FileSystem& files_;
  const StoreContext& store_;
  const StorePaths to_;
  const CopyRules& rules_;
  std::uint64_t link_below_;
  Pace pace_;
};

Result<void> Copier::place(std::uint64_t segment, const Path& from, const Path& to) {
  if (segment >= link_below_) return copy(from, to);
  const auto linked = files_.link(from, to);
  if (linked) {
    ++report.linked;
    return pace_(0);
  }
  if (linked.error().code() != ErrorCode::kUnsupported) return linked;
  link_below_ = 0;
  return copy(from, to);
}

Result<void> Copier::copy(const Path& from, const Path& to, std::optional<std::uint64_t> bytes) {
  return copy_file(files_, from, to, bytes, [this](std::uint64_t piece) {
    report.copied_bytes += piece;
    return pace_(piece);
  });
}

Result<void> Copier::copy_if_there(const Path& from, const Path& to) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, files_.exists(from));
  return there ? copy(from, to) : Result<void>{};
}

/// For those who watch: what is copied if nothing is linked.
Result<void> Copier::expect(const LogExtent& log) {
  for (const std::uint64_t segment : log.segments) {
    if (segment >= log.durable.segment) break;
    if (segment < link_below_) continue;
    MILLRACE_ASSIGN_OR_RETURN(const auto file,
                              files_.open(store_.paths.segment(segment), OpenMode::kRead));
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t bytes, file->size());
    pace_.expect(bytes);
  }
  pace_.expect(log.durable.position);
  return {};
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
    if (rules_.without_index.contains(segment)) continue;
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

Result<void> Copier::run(const LogExtent& log) {
  MILLRACE_RETURN_IF_ERROR(expect(log));
  MILLRACE_RETURN_IF_ERROR(copy_log(log));
  MILLRACE_RETURN_IF_ERROR(copy_small_files());
  if (rules_.mark_as_copy)
    MILLRACE_RETURN_IF_ERROR(write_copy_file(
        files_, to_.directory,
        {.store = store_.store, .end = log.durable.end, .made = store_.clock->wall()}));
  // Last: without it a folder is no store.
  MILLRACE_ASSIGN_OR_RETURN(const auto description, read_description(files_, store_.paths));
  MILLRACE_RETURN_IF_ERROR(write_description(files_, to_, description));
  report.end = log.durable.end;
  return {};
}

/// What makes it a store first. The folders stay, empty; another copy may be made in them.
void Copier::undo() {
  const auto empty = [&](const Path& folder) {
    const auto names = files_.list(folder);
    if (!names) return;
    for (const std::string& name : *names) static_cast<void>(files_.remove(folder / name));
  };
  static_cast<void>(files_.remove(to_.description()));
  static_cast<void>(files_.sync_directory(to_.directory));
  empty(to_.log());
  for (const char* folder : kSmallFolders) empty(to_.directory / folder);
  for (const char* name : kSmallFiles) static_cast<void>(files_.remove(to_.directory / name));
  static_cast<void>(files_.remove(to_.directory / kCopyFileName));
  for (const char* name : {"store.json.tmp", "snapshot.json.tmp"})
    static_cast<void>(files_.remove(to_.directory / name));
}

}  // namespace

Result<StoreCopyReport> copy_store(const StoreContext& store, const LogExtent& log, const Path& to,
                                   const CopyRules& rules) {
  MILLRACE_RETURN_IF_ERROR(make_empty_directory(*store.files, to));
  Copier copier(store, to, rules);
  if (auto copied = copier.run(log); !copied) {
    copier.undo();
    return std::move(copied).error();
  }
  return copier.report;
}

Result<void> copy_file(FileSystem& files, const Path& from, const Path& to,
                       std::optional<std::uint64_t> bytes,
                       const std::function<Result<void>(std::uint64_t)>& pace) {
  MILLRACE_ASSIGN_OR_RETURN(const auto source, files.open(from, OpenMode::kRead));
  MILLRACE_ASSIGN_OR_RETURN(const auto target, files.open(to, OpenMode::kCreate));
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
    if (pace) MILLRACE_RETURN_IF_ERROR(pace(count));
  }
  return target->sync();
}

}  // namespace millrace::log
