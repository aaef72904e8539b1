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

CompactionReport joined(CompactionReport first, const CompactionReport& second) {
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

EraseReport joined(const EraseReport& first, EraseReport second) {
  if (first.events != 0) {
    second.last = second.events == 0 ? first.last : std::max(first.last, second.last);
    second.first = second.events == 0 ? first.first : std::min(first.first, second.first);
  }
  second.segments_rewritten += first.segments_rewritten;
  second.events += first.events;
  second.bytes += first.bytes;
  return second;
}

}  // namespace millrace
