#include "eventstore/event_store.h"

#include <errno.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "eventstore/log/head.h"
#include "eventstore/log/index_format.h"
#include "eventstore/log/log_writer.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log/store_writer.h"

namespace millrace {
namespace {

using log::HeadReader;
using log::HeadWriter;
using log::LogState;
using log::LogWriter;
using log::StoreDescription;
using log::StorePaths;

constexpr std::uint64_t kSegmentBytesMin = 8 << 10, kSegmentBytesMax = log::kIndexedSegmentBytesMax;

Result<void> check_options(const StoreOptions& options) {
  if (options.segment_bytes < kSegmentBytesMin || options.segment_bytes > kSegmentBytesMax)
    return Error(ErrorCode::kInvalidArgument, "segment_bytes is from " +
                                                  std::to_string(kSegmentBytesMin) + " to " +
                                                  std::to_string(kSegmentBytesMax));
  if (options.segment_events == 0)
    return Error(ErrorCode::kInvalidArgument, "segment_events is above 0");
  if (options.pending_bytes_max == 0 || options.flush_bytes == 0 ||
      options.flush_interval.count() < 0 || options.os_sync_interval.count() < 0)
    return Error(ErrorCode::kInvalidArgument,
                 "pending_bytes_max and flush_bytes are above 0, flush_interval and "
                 "os_sync_interval are not below");
  return {};
}

/// A store gets its store.json last. What can lie there without one, if its making was interrupted.
Result<bool> is_unfinished(FileSystem& files, const StorePaths& paths) {
  const std::set<std::string> own{"LOCK", "HEAD", "log", "store.json.tmp"};
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(paths.directory));
  if (!std::all_of(names.begin(), names.end(),
                   [&](const auto& name) { return own.contains(name); }))
    return false;
  if (std::find(names.begin(), names.end(), "log") == names.end()) return true;
  const std::string first = StorePaths::segment_name(0);
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, files.list(paths.log()));
  for (const std::string& name : segments) {
    if (name == first + ".tmp") continue;
    if (name != first) return false;
    MILLRACE_ASSIGN_OR_RETURN(const auto file, files.open(paths.log() / name, OpenMode::kRead));
    char bytes[log::kBatchHeaderBytes] = {};
    MILLRACE_RETURN_IF_ERROR(file->read_at(log::kSegmentHeaderBytes, bytes));
    if (!std::all_of(std::begin(bytes), std::end(bytes), [](char byte) { return byte == 0; }))
      return false;
  }
  return true;
}

/// Nothing if a store is to be made here.
Result<std::optional<StoreDescription>> find_store(FileSystem& files, const StorePaths& paths) {
  auto description = log::read_description(files, paths);
  if (description) return std::optional(*description);
  if (description.error().code() == ErrorCode::kNotFound) return std::optional<StoreDescription>();
  if (description.error().code() == ErrorCode::kFailedPrecondition) {
    MILLRACE_ASSIGN_OR_RETURN(const bool unfinished, is_unfinished(files, paths));
    if (unfinished) return std::optional<StoreDescription>();
  }
  return std::move(description).error();
}

Path parent_of(const Path& directory) {
  const Path parent =
      directory.has_filename() ? directory.parent_path() : directory.parent_path().parent_path();
  return parent.empty() ? Path(".") : parent;
}

/// Files that a crash left under a temporary name, and indexes of segments that are gone or are
/// written to again; nothing refers to them.
Result<void> remove_leftovers(FileSystem& files, const StorePaths& paths) {
  MILLRACE_ASSIGN_OR_RETURN(const auto names, files.list(paths.log()));
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, log::list_segments(files, paths));
  const auto is_sealed = [&](std::uint64_t segment) {
    return std::binary_search(segments.begin(), segments.end(), segment) &&
           segment != segments.back();
  };
  for (const std::string& name : names) {
    const std::string stem = name.ends_with(".tmp") ? name.substr(0, name.size() - 4) : "";
    const bool temporary =
        StorePaths::parse_segment_name(stem) || StorePaths::parse_index_name(stem);
    const auto index = StorePaths::parse_index_name(name);
    if (temporary || (index && !is_sealed(*index)))
      MILLRACE_RETURN_IF_ERROR(files.remove(paths.log() / name));
    else if (!index && !StorePaths::parse_segment_name(name))
      spdlog::warn("store {}: log/{} is none of its files", paths.directory.string(),
                   printable(name));
  }
  return {};
}

Result<LogWriter> create_log(FileSystem& files, const StorePaths& paths,
                             const LogWriter::Options& options) {
  // Also where the directory is there already: who made it may have died, or failed, just then.
  if (auto named = files.sync_directory(parent_of(paths.directory)); !named)
    return std::move(named).error().context(
        "the folder above a new store has to be readable, for it is synced so that the store does "
        "not vanish with the power");
  MILLRACE_RETURN_IF_ERROR(files.make_directory(paths.log()));
  MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths.directory));
  MILLRACE_RETURN_IF_ERROR(remove_leftovers(files, paths));
  MILLRACE_ASSIGN_OR_RETURN(const bool unfinished, files.exists(paths.segment(0)));
  if (unfinished) MILLRACE_RETURN_IF_ERROR(files.remove(paths.segment(0)));
  MILLRACE_ASSIGN_OR_RETURN(auto writer, LogWriter::create(paths, options));
  MILLRACE_RETURN_IF_ERROR(log::write_description(
      files, paths, {.id = options.store, .created = options.clock->wall()}));
  return writer;
}

Result<LogWriter> recover_log(FileSystem& files, const StorePaths& paths,
                              const LogWriter::Options& options) {
  MILLRACE_ASSIGN_OR_RETURN(const auto head, HeadReader(files, paths, options.store).read());
  MILLRACE_ASSIGN_OR_RETURN(const LogState state,
                            log::recover(files, paths, options.store, head.at_least));
  MILLRACE_RETURN_IF_ERROR(remove_leftovers(files, paths));
  return LogWriter::resume(paths, options, state);
}

Result<void> check_not_in_repair(FileSystem& files, const StorePaths& paths) {
  MILLRACE_ASSIGN_OR_RETURN(const bool in_repair, files.exists(paths.repair_mark()));
  if (!in_repair) return {};
  return Error(ErrorCode::kFailedPrecondition, "a repair of this store was interrupted")
      .hint("Let it end: millrace log repair --store " + paths.directory.string() + " --yes");
}

std::string holder() {
  return "pid " + std::to_string(::getpid()) + ", " + program_invocation_short_name;
}

Result<std::unique_ptr<EventStore>> open_store(const StorePaths& paths, StoreOptions options) {
  FileSystem& files = *options.files;
  MILLRACE_RETURN_IF_ERROR(check_options(options));
  MILLRACE_RETURN_IF_ERROR(files.make_directory(paths.directory));
  // Twice: a folder that is no store gets no LOCK, and another process may just be making the
  // store.
  MILLRACE_RETURN_IF_ERROR(find_store(files, paths));
  auto lock = files.lock(paths.lock());
  if (!lock) {
    if (lock.error().code() != ErrorCode::kLocked) return std::move(lock).error();
    return std::move(lock).error().hint(
        "A store has one writer. Stop that one first; readers need no lock.");
  }
  MILLRACE_RETURN_IF_ERROR((*lock)->describe(holder()));
  MILLRACE_RETURN_IF_ERROR(check_not_in_repair(files, paths));
  MILLRACE_ASSIGN_OR_RETURN(const auto found, find_store(files, paths));

  const StoreId id = found                  ? found->id
                     : options.new_store_id ? *options.new_store_id
                                            : log::random_store_id();
  const LogWriter::Options log_options{.segment_bytes = options.segment_bytes,
                                       .segment_events = options.segment_events,
                                       .store = id,
                                       .files = options.files,
                                       .clock = options.clock};
  MILLRACE_ASSIGN_OR_RETURN(auto writer, found ? recover_log(files, paths, log_options)
                                               : create_log(files, paths, log_options));
  MILLRACE_ASSIGN_OR_RETURN(auto head,
                            HeadWriter::open(files, paths, log_options.store, options.durability));
  MILLRACE_RETURN_IF_ERROR(head.publish(writer.mark(), writer.synced_mark()));
  // From here on recovery knows that what is there now was durable. The names are those of HEAD,
  // and of what a killed process made.
  MILLRACE_RETURN_IF_ERROR(head.sync());
  MILLRACE_RETURN_IF_ERROR(files.sync_directory(paths.directory));
  return std::make_unique<log::StoreWriter>(paths.directory, std::move(options), log_options.store,
                                            *std::move(lock), std::move(head), std::move(writer));
}

}  // namespace

Result<std::unique_ptr<EventStore>> EventStore::open(const Path& directory, StoreOptions options) {
  auto store = open_store(StorePaths(directory), std::move(options));
  if (!store) return std::move(store).error().context("open store " + directory.string());
  return store;
}

Result<Offset> EventStore::append(const TransactionInfo& info, std::span<const NewEvent> events) {
  MILLRACE_RETURN_IF_ERROR(begin(info));
  for (const NewEvent& event : events) {
    if (auto added = add(event); !added) {
      MILLRACE_RETURN_IF_ERROR(rollback());
      return std::move(added).error();
    }
  }
  MILLRACE_ASSIGN_OR_RETURN(const Offset end, commit(info.source.end));
  return Offset{end.value - events.size()};
}

}  // namespace millrace
