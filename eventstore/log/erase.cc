#include "eventstore/log/erase.h"

#include <algorithm>

#include "eventstore/log/liveness.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_rewriter.h"

namespace millrace::log {
namespace {

/// False only if the segment's index says that it holds no event of the entity.
Result<bool> may_hold(const StoreContext& store, std::uint64_t segment,
                      const EraseRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            SegmentReader::open(*store.files, store.paths, store.store, segment));
  const auto index = SegmentIndex::open(*store.files, store.paths, reader);
  if (!index) return true;
  std::vector<std::uint64_t> positions;
  const auto found = index->find(stream_hash(request.category, request.key), positions);
  return !found || !positions.empty();
}

}  // namespace

Result<EraseReport> erase_events(const StoreContext& store, const LogExtent& log,
                                 const EraseRequest& request, Offset tombstone,
                                 const AroundSwap& around_swap) {
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
    MILLRACE_ASSIGN_OR_RETURN(const bool needed, may_hold(store, log.segments[i], request));
    if (!needed) continue;
    MILLRACE_ASSIGN_OR_RETURN(
        const RewriteReport rewritten,
        rewrite_segment(store.paths, store.store, log.segments[i], log.segments[i + 1], judge,
                        {.files = store.files,
                         .clock = store.clock,
                         .compression = store.compression,
                         .around_swap = around_swap}));
    report.segments_rewritten += rewritten.events_removed != 0;
  }
  return report;
}

}  // namespace millrace::log
