#include "eventstore/log/erase.h"

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>

#include "eventstore/log/index_format.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_rewriter.h"

// Erasing is two passes over the segments that may hold one of the entities. The first finds what
// has to be known before anything goes: an idempotency key lies in the first batch of its append,
// and an append that has several batches may have its events of an entity in a later one, even in a
// later segment. The second rewrites. Were the keys found only where the events go, a crash in
// between would leave a key of which nothing tells any more that it has to go.
namespace millrace::log {
namespace {

class Erasure {
 public:
  Erasure(const StoreContext& store, const LogExtent& log, const EraseRequest& request,
          Offset tombstones, const EraseOptions& options);

  Result<EraseReport> run(const AroundSwap& around_swap);

 private:
  Result<std::optional<std::uint64_t>> find_holder(std::uint64_t segment) const;
  Result<void> find_appends(std::size_t segment);
  ErasedEntity* find(const EventView& event);
  Verdict judge(const EventView& event, const Batch& batch);
  bool forgets_key(const Batch& batch) const;

  const StoreContext& store_;
  const LogExtent& log_;
  const std::string_view category_;
  const Offset tombstones_;
  const EraseOptions& options_;
  Pace pace_;
  EraseReport report_;
  std::unordered_map<std::string_view, std::size_t> by_key_;  // of report_.entities
  /// Where appends begin that have an entity's event behind their first batch: at most one for each
  /// batch's bytes.
  std::set<std::uint64_t> appends_;
  std::optional<std::uint64_t> erased_at_;  // the last batch of the segment at hand that held one
};

Erasure::Erasure(const StoreContext& store, const LogExtent& log, const EraseRequest& request,
                 Offset tombstones, const EraseOptions& options)
    : store_(store),
      log_(log),
      category_(request.category),
      tombstones_(tombstones),
      options_(options),
      pace_(0, options.progress, options.stop, *store.clock) {
  report_.segments = log.sealed();
  for (const EntityToErase& entity : request.entities) {
    by_key_.emplace(entity.key, report_.entities.size());
    report_.entities.push_back({.key = std::string(entity.key),
                                .tombstone = {tombstones.value + report_.entities.size()},
                                .first = {},
                                .last = {}});
  }
}

/// The bytes of a segment that may hold events of them: it does not only if its index says so.
Result<std::optional<std::uint64_t>> Erasure::find_holder(std::uint64_t segment) const {
  MILLRACE_ASSIGN_OR_RETURN(
      auto reader, SegmentReader::open(*store_.files, store_.paths, store_.store, segment));
  const auto index = SegmentIndex::open(*store_.files, store_.paths, reader);
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t bytes, reader.file_size());
  if (!index) return std::optional(bytes);
  std::vector<std::uint64_t> positions;
  for (const ErasedEntity& entity : report_.entities) {
    const auto found = index->find(stream_hash(category_, entity.key), positions);
    if (!found || !positions.empty()) return std::optional(bytes);
  }
  return std::optional<std::uint64_t>();
}

ErasedEntity* Erasure::find(const EventView& event) {
  if (event.offset >= tombstones_ || event.category != category_) return nullptr;
  const auto known = by_key_.find(event.key);
  return known == by_key_.end() ? nullptr : &report_.entities[known->second];
}

/// Those that begin before the batch that holds an entity's event. What was captured has none.
Result<void> Erasure::find_appends(std::size_t segment) {
  const auto see = [this](const EventView& event, const Batch& batch) -> Result<void> {
    if (batch.ordinal != 0 && batch.info.source.epoch == 0 && find(event) != nullptr)
      appends_.insert(batch.first.value - batch.ordinal);
    return {};
  };
  return walk_log(store_, log_, segment, segment + 1, see,
                  [this](std::uint64_t bytes) { return pace_(bytes); });
}

Verdict Erasure::judge(const EventView& event, const Batch& batch) {
  ErasedEntity* const entity = find(event);
  if (entity == nullptr) return {};
  erased_at_ = batch.position;
  if (entity->events++ == 0) entity->first = event.offset;
  entity->last = event.offset;
  entity->bytes += event.key.size() + event.payload.size() + event.metadata.size();
  return {.kind = Verdict::Kind::kRemoved, .removal = RemovalKind::kErased};
}

/// Asked of the first batch of an append right after its events.
bool Erasure::forgets_key(const Batch& batch) const {
  return erased_at_ == batch.position || appends_.contains(batch.first.value);
}

Result<EraseReport> Erasure::run(const AroundSwap& around_swap) {
  const auto& segments = log_.segments;
  std::set<std::size_t> needed;
  for (std::size_t i = 0; i < log_.sealed(); ++i) {
    MILLRACE_ASSIGN_OR_RETURN(const auto bytes, find_holder(segments[i]));
    MILLRACE_RETURN_IF_ERROR(pace_(0));
    if (!bytes) continue;
    needed.insert(i);
    pace_.expect(2 * *bytes);
  }
  const std::vector<std::size_t> holders(needed.begin(), needed.end());
  for (const std::size_t i : holders) MILLRACE_RETURN_IF_ERROR(find_appends(i));
  for (const std::uint64_t start : appends_) {
    const auto behind = std::upper_bound(segments.begin(), segments.end(), start);
    if (behind != segments.begin())
      needed.insert(static_cast<std::size_t>(behind - segments.begin()) - 1);
  }
  for (const std::size_t i : needed) {
    erased_at_.reset();
    MILLRACE_ASSIGN_OR_RETURN(
        const RewriteReport rewritten,
        rewrite_segment(
            store_.paths, store_.store, segments[i], segments[i + 1],
            [this](const EventView& event, const Batch& batch) { return judge(event, batch); },
            {.files = store_.files,
             .clock = store_.clock,
             .compression = store_.compression,
             .pace = [this](std::uint64_t more) { return pace_(more); },
             .forgets_key = [this](const Batch& batch) { return forgets_key(batch); },
             .around_swap = around_swap}));
    if (!rewritten.changes()) continue;
    ++report_.segments_rewritten;
    if (options_.so_far) options_.so_far(report_);
  }
  return std::move(report_);
}

}  // namespace

Result<EraseReport> erase_events(const StoreContext& store, const LogExtent& log,
                                 const EraseRequest& request, Offset tombstones,
                                 const EraseOptions& options, const AroundSwap& around_swap) {
  return Erasure(store, log, request, tombstones, options).run(around_swap);
}

}  // namespace millrace::log
