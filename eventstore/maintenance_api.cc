#include "eventstore/maintenance_api.h"

#include <algorithm>

namespace millrace {

void add_removed(const RemovedEvents& more, std::vector<RemovedEvents>& to) {
  const auto known = std::find_if(to.begin(), to.end(), [&](const RemovedEvents& one) {
    return one.category == more.category && one.reason == more.reason;
  });
  if (known == to.end()) return to.push_back(more);
  known->first = std::min(known->first, more.first);
  known->last = std::max(known->last, more.last);
  known->count += more.count;
}

CompactionReport together(CompactionReport first, const CompactionReport& second) {
  first.segments = std::max(first.segments, second.segments);
  first.passes += second.passes;
  first.bytes_read += second.bytes_read;
  for (const RewrittenSegment& more : second.rewritten) {
    const auto known =
        std::find_if(first.rewritten.begin(), first.rewritten.end(),
                     [&](const RewrittenSegment& one) { return one.file == more.file; });
    if (known == first.rewritten.end()) {
      first.rewritten.push_back(more);
      continue;
    }
    known->bytes_after = more.bytes_after;
    known->events_removed += more.events_removed;
    known->events_completed += more.events_completed;
  }
  for (const RemovedEvents& more : second.removed) add_removed(more, first.removed);
  return first;
}

EraseReport together(const EraseReport& first, EraseReport second) {
  second.segments_rewritten += first.segments_rewritten;
  // The entities are the same in the same order, but for a run that ended before it had any.
  if (second.entities.size() != first.entities.size()) {
    if (second.entities.empty()) second.entities = first.entities;
    return second;
  }
  for (std::size_t i = 0; i < first.entities.size(); ++i) {
    const ErasedEntity& before = first.entities[i];
    ErasedEntity& entity = second.entities[i];
    if (before.events != 0) {
      entity.last = entity.events == 0 ? before.last : std::max(before.last, entity.last);
      entity.first = entity.events == 0 ? before.first : std::min(before.first, entity.first);
    }
    entity.events += before.events;
    entity.bytes += before.bytes;
  }
  return second;
}

std::uint64_t EraseReport::events() const {
  std::uint64_t sum = 0;
  for (const ErasedEntity& entity : entities) sum += entity.events;
  return sum;
}

std::uint64_t EraseReport::bytes() const {
  std::uint64_t sum = 0;
  for (const ErasedEntity& entity : entities) sum += entity.bytes;
  return sum;
}

}  // namespace millrace
