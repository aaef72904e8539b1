#include "eventstore/log/upkeep.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/bytes.h"
#include "eventstore/log/erase.h"
#include "eventstore/log/store_copy.h"
#include "eventstore/stream_snapshots.h"

namespace millrace::log {
namespace {

Result<void> check(const EraseRequest& request) {
  const auto invalid = [](std::string what) {
    return Error(ErrorCode::kInvalidArgument, std::move(what));
  };
  if (request.category.starts_with('$')) return invalid("the store's own events are never erased");
  if (request.entities.empty() || request.entities.size() > kErasedAtOnceMax)
    return invalid("1 to " + std::to_string(kErasedAtOnceMax) + " keys are erased at once, not " +
                   std::to_string(request.entities.size()));
  std::vector<std::string_view> keys;
  for (const EntityToErase& entity : request.entities) keys.push_back(entity.key);
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end()) return invalid("the key " + printable(*twice) + " is named twice");
  return {};
}

}  // namespace

Upkeep::Upkeep(UpkeepHost& host, StoreContext store, const Background& background)
    : host_(host),
      store_(std::move(store)),
      consumer_files_(*store_.files, store_.paths.directory),
      background_(
          background.bytes_per_second == 0
              ? AutoCompaction::Run()
              : [this, rate = background.bytes_per_second](
                    std::stop_token stop) { return compact_gently(rate, stop); },
          background.rest) {}

/// The mark first: what lies before it lies in segments that are there now.
Result<LogExtent> Upkeep::extent_to(Result<LogMark> end) {
  LogExtent log;
  MILLRACE_ASSIGN_OR_RETURN(log.durable, std::move(end));
  MILLRACE_ASSIGN_OR_RETURN(log.segments, list_segments(*store_.files, store_.paths));
  return log;
}

/// Consumers are told before anything goes: a crash in between tells too much, never too little.
Result<void> Upkeep::swap(const std::vector<Removal>& removed,
                          const std::function<Result<void>()>& swap) {
  MILLRACE_RETURN_IF_ERROR(tell_losers(removed));
  const auto swap_alone = [&] {
    MutexLock lock(files_);
    return swap();
  };
  auto swapped = swap_alone();
  // The name may be the new file's in memory and the old one's on the disk: nobody may conclude
  // anything from it.
  if (!swapped) swap_failed_ = swapped.error();
  auto told = host_.note_swap();
  return swapped ? told : swapped;
}

Result<CompactionReport> Upkeep::compact(const CompactionOptions& options) {
  background_.interrupt();
  MutexLock lock(running_);
  MILLRACE_RETURN_IF_ERROR(check_swaps());
  return compact_now(options);
}

Result<CompactionReport> Upkeep::compact_now(CompactionOptions options) {
  if (!options.merge) options.merge = store_.partials.merge;
  if (!options.is_moved) options.is_moved = store_.partials.is_moved;
  const auto run = [&]() -> Result<CompactionReport> {
    // No event may go for one that a power loss would take back, nor by a policy that it would.
    // And what policies say now counts, not what they said before.
    MILLRACE_ASSIGN_OR_RETURN(const LogExtent log,
                              extent_to(options.dry_run ? host_.durable_mark() : host_.sync()));
    MILLRACE_ASSIGN_OR_RETURN(const Offset hold, held_offset());
    MILLRACE_ASSIGN_OR_RETURN(
        auto report,
        compact_log(store_, log, hold, options,
                    [this](const auto& removed, const auto& step) { return swap(removed, step); }));
    return report;
  };
  auto report = run();
  if (!report)
    return std::move(report).error().context("compact store " + store_.paths.directory.string());
  return report;
}

Result<void> Upkeep::compact_gently(std::uint64_t bytes_per_second, const std::stop_token& stop) {
  MutexLock lock(running_);
  MILLRACE_RETURN_IF_ERROR(check_swaps());
  MILLRACE_ASSIGN_OR_RETURN(const auto report,
                            compact_now({.bytes_per_second = bytes_per_second, .stop = stop}));
  if (report.rewritten.empty()) return {};
  std::uint64_t before = 0, after = 0;
  for (const RewrittenSegment& segment : report.rewritten)
    before += segment.bytes_before, after += segment.bytes_after;
  spdlog::info("store {}: compacted {} of {} full segments, {} bytes to {}",
               store_.paths.directory.string(), report.rewritten.size(), report.segments, before,
               after);
  return {};
}

/// Below the lowest offset that a consumer holds.
Result<Offset> Upkeep::held_offset() {
  MILLRACE_ASSIGN_OR_RETURN(const auto consumers,
                            list_consumers(store_.paths.directory, *store_.files));
  Offset hold{~std::uint64_t{0}};
  for (const Consumer& consumer : consumers)
    if (consumer.policy == ConsumerPolicy::kHold) hold = std::min(hold, consumer.offset);
  return hold;
}

Result<void> Upkeep::check_swaps() const {
  if (!swap_failed_) return {};
  return Error(swap_failed_->code(),
               "a segment could not be put in place before: " + swap_failed_->message())
      .hint("Close the store and open it again: only then is it known what is on the disk.");
}

/// A reader that comes back is told by the log itself. This is for consumers that have read nothing
/// yet, and for people.
Result<void> Upkeep::tell_losers(const std::vector<Removal>& removed) {
  std::vector<RemovedEvents> lost;
  add_removals(removed, lost);
  // What was erased nobody shall have, and what depends on no consumer fails for none.
  std::erase_if(
      lost, [](const RemovedEvents& one) { return one.reason == name_of(RemovalKind::kErased); });
  if (lost.empty()) return {};
  MutexLock lock(consumers_);
  MILLRACE_ASSIGN_OR_RETURN(auto consumers, list_consumers(store_.paths.directory, *store_.files));
  for (Consumer& consumer : consumers) {
    const auto before = consumer.lost;
    for (const RemovedEvents& one : lost)
      if (one.last >= consumer.offset) add_removed(one, consumer.lost);
    if (consumer.lost != before) MILLRACE_RETURN_IF_ERROR(consumer_files_.write(consumer));
  }
  return {};
}

Result<EraseReport> Upkeep::erase(const EraseRequest& request, const EraseOptions& options) {
  MILLRACE_RETURN_IF_ERROR(check(request));
  background_.interrupt();
  MutexLock lock(running_);
  MILLRACE_RETURN_IF_ERROR(check_swaps());
  auto report = erase_from_log(request, options);
  if (!report)
    return std::move(report).error().context(
        "erase " +
        (request.entities.size() == 1 ? printable(request.entities.front().key)
                                      : std::to_string(request.entities.size()) + " keys") +
        " of " + printable(request.category));
  return report;
}

Result<EraseReport> Upkeep::erase_from_log(const EraseRequest& request,
                                           const EraseOptions& options) {
  // Whoever gave up while others had their turn gets no tombstone.
  MILLRACE_RETURN_IF_ERROR(Pace(0, options.progress, options.stop, *store_.clock)(0));
  std::vector<NewEvent> tombstones;
  for (const EntityToErase& entity : request.entities)
    tombstones.push_back({.category = request.category,
                          .key = entity.key,
                          .type = entity.tombstone_type,
                          .payload = entity.tombstone_payload,
                          .metadata = {},
                          .flags = EventFlags::kTombstone});
  // They come first: what is below them then lies in sealed segments, whoever appends meanwhile.
  MILLRACE_ASSIGN_OR_RETURN(const Offset first, host_.append_tombstones(tombstones));
  MILLRACE_RETURN_IF_ERROR(host_.seal());
  MILLRACE_ASSIGN_OR_RETURN(const LogExtent log, extent_to(host_.synced_mark()));
  MILLRACE_RETURN_IF_ERROR(remove_snapshots(request));
  auto report =
      erase_events(store_, log, request, first, options,
                   [this](const auto& removed, const auto& step) { return swap(removed, step); });
  // Again: who had read the state before may have written it meanwhile.
  if (report) MILLRACE_RETURN_IF_ERROR(remove_snapshots(request));
  return report;
}

Result<void> Upkeep::remove_snapshots(const EraseRequest& request) {
  const StreamSnapshots snapshots(store_.paths.directory, store_.store, *store_.files);
  for (const EntityToErase& entity : request.entities)
    MILLRACE_RETURN_IF_ERROR(snapshots.remove({.category = request.category, .key = entity.key}));
  return {};
}

Result<StoreCopyReport> Upkeep::snapshot(const Path& to, const CopyOptions& options) {
  MutexLock lock(files_);
  MutexLock consumers_lock(consumers_);  // none shall stand beyond the copy's end
  // What is durable but was only written, recovery may take back after a power loss, and with it
  // the end of the segment before: so that one must not be the snapshot's, too.
  MILLRACE_ASSIGN_OR_RETURN(const LogMark synced, host_.synced_mark());
  MILLRACE_ASSIGN_OR_RETURN(const LogExtent log, extent_to(host_.durable_mark()));
  auto report = copy_store(
      store_, log, to, {.link_below = synced.segment, .mark_as_copy = true, .watched = options});
  if (!report)
    return std::move(report).error().context("snapshot of store " +
                                             store_.paths.directory.string());
  return report;
}

Result<void> Upkeep::check_offset(Offset offset) {
  MILLRACE_ASSIGN_OR_RETURN(const LogMark durable, host_.durable_mark());
  if (offset <= durable.end) return {};
  return Error(ErrorCode::kInvalidArgument, "offset " + std::to_string(offset.value) +
                                                " is beyond the durable end, " +
                                                std::to_string(durable.end.value));
}

Result<void> Upkeep::register_consumer(std::string_view name, Offset offset,
                                       ConsumerPolicy policy) {
  MILLRACE_RETURN_IF_ERROR(check_offset(offset));
  MutexLock lock(consumers_);
  auto known = find_consumer(store_.paths.directory, name, *store_.files);
  if (known)
    return Error(ErrorCode::kConflict, "consumer " + std::string(name) +
                                           " is registered already, at offset " +
                                           std::to_string(known->offset.value))
        .hint("Remove it first if it shall start anew.");
  if (known.error().code() != ErrorCode::kNotFound) return std::move(known).error();
  return consumer_files_.write({.name = std::string(name),
                                .offset = offset,
                                .policy = policy,
                                .updated = store_.clock->wall(),
                                .lost = {}});
}

Result<void> Upkeep::advance_consumer(std::string_view name, Offset offset) {
  MILLRACE_RETURN_IF_ERROR(check_offset(offset));
  MutexLock lock(consumers_);
  MILLRACE_ASSIGN_OR_RETURN(Consumer consumer,
                            find_consumer(store_.paths.directory, name, *store_.files));
  MILLRACE_RETURN_IF_ERROR(check_has_all(consumer));
  if (offset < consumer.offset)
    return Error(ErrorCode::kInvalidArgument, "consumer " + consumer.name + " is at offset " +
                                                  std::to_string(consumer.offset.value) +
                                                  " and can't go back to " +
                                                  std::to_string(offset.value))
        .hint("Remove it and register it anew to start again.");
  consumer.offset = offset;
  consumer.updated = store_.clock->wall();
  return consumer_files_.write(consumer);
}

Result<void> Upkeep::remove_consumer(std::string_view name) {
  MutexLock lock(consumers_);
  return consumer_files_.remove(name);
}

}  // namespace millrace::log
