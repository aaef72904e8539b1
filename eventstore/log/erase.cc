#include "eventstore/log/erase.h"

#include <algorithm>
#include <optional>

#include "eventstore/log/liveness.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_rewriter.h"

namespace millrace::log {
namespace {

/// The bytes of a segment that may hold events of the entity: it does not only if its index says
/// so.
Result<std::optional<std::uint64_t>> find_holder(const StoreContext& store, std::uint64_t segment,
                                                 const EraseRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            SegmentReader::open(*store.files, store.paths, store.store, segment));
  const auto index = SegmentIndex::open(*store.files, store.paths, reader);
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t bytes, reader.file_size());
  if (!index) return std::optional(bytes);
  std::vector<std::uint64_t> positions;
  const auto found = index->find(stream_hash(request.category, request.key), positions);
  return found && positions.empty() ? std::nullopt : std::optional(bytes);
}

}  // namespace

Result<EraseReport> erase_events(const StoreContext& store, const LogExtent& log,
                                 const EraseRequest& request, Offset tombstone,
                                 const EraseOptions& options, const AroundSwap& around_swap) {
  Pace pace(0, options.progress, options.stop, *store.clock);
  EraseReport report{.tombstone = tombstone, .segments = log.sealed(), .first = {}, .last = {}};
  const Judge judge = [&](const EventView& event, const Batch&) -> Result<Verdict> {
    if (event.offset >= tombstone || event.key != request.key || event.category != request.category)
      return Verdict{};
    if (report.events++ == 0) report.first = event.offset;
    report.last = event.offset;
    report.bytes += event.key.size() + event.payload.size() + event.metadata.size();
    return Verdict{.kind = Verdict::Kind::kRemoved, .removal = RemovalKind::kErased};
  };
  for (std::size_t i = 0; i < log.sealed(); ++i) {
    MILLRACE_ASSIGN_OR_RETURN(const auto bytes, find_holder(store, log.segments[i], request));
    MILLRACE_RETURN_IF_ERROR(pace(0));
    if (!bytes) continue;
    pace.expect(*bytes);
    MILLRACE_ASSIGN_OR_RETURN(
        const RewriteReport rewritten,
        rewrite_segment(store.paths, store.store, log.segments[i], log.segments[i + 1], judge,
                        {.files = store.files,
                         .clock = store.clock,
                         .compression = store.compression,
                         .pace = [&](std::uint64_t more) { return pace(more); },
                         .around_swap = around_swap}));
    if (rewritten.events_removed == 0) continue;
    ++report.segments_rewritten;
    if (options.so_far) options.so_far(report);
  }
  return report;
}

}  // namespace millrace::log
