#include "eventstore/log/flush_groups.h"

namespace millrace::log {
namespace {

/// Numbers go on from 0 after the largest one.
bool is_over(std::uint32_t flush, std::uint32_t ended) {
  return static_cast<std::int32_t>(flush - ended) <= 0;
}

}  // namespace

void FlushGroups::wait(std::uint32_t flush) {
  Group& group = group_of(flush);
  for (std::uint32_t ended; !is_over(flush, ended = group.ended.load(std::memory_order_acquire));)
    group.ended.wait(ended, std::memory_order_acquire);
  // Whoever sees the flag sees the number that it was set after: nobody is woken for nothing.
  if (group.wake_others.exchange(false)) group.ended.notify_all();
}

void FlushGroups::end(std::uint32_t flush) {
  Group& group = group_of(flush);
  group.ended.store(flush);  // sequentially consistent: waking looks for sleepers after it
  group.wake_others.store(true);
  group.ended.notify_one();
}

void FlushGroups::end_all(std::uint32_t last) {
  for (const std::uint32_t flush : {last + 1, last + 2}) {
    Group& group = group_of(flush);
    group.ended.store(flush);
    group.ended.notify_all();
  }
}

}  // namespace millrace::log
