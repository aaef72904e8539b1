#include "eventstore/log/flush_groups.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <thread>

namespace millrace::log {
namespace {

/// So often a caller among others lets those run that can, before it sleeps: they append meanwhile,
/// and a flush may be over. (Alone it sleeps at once: the flusher is what it waits for.)
constexpr int kYields = 16;

/// Numbers go on from 0 after the largest one.
bool is_over(std::uint32_t flush, std::uint32_t ended) {
  return static_cast<std::int32_t>(flush - ended) <= 0;
}

// Not std::atomic's wait: that one spins first, also for a caller that is alone.
static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));

void sleep_while(const std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

void wake(const std::atomic<std::uint32_t>& word, int threads) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
}

}  // namespace

void FlushGroups::wait(std::uint32_t flush) {
  Group& group = group_of(flush);
  int yields = group.waiting.fetch_add(1) == 0 ? 0 : kYields;
  for (std::uint32_t ended; !is_over(flush, ended = group.ended.load());) {
    if (yields-- > 0)
      std::this_thread::yield();
    else
      sleep_while(group.ended, ended);
  }
  // Whoever sees the flag sees the number that it was set after: nobody is woken for nothing.
  const bool wakes_others = group.wake_others.exchange(false);
  if (group.waiting.fetch_sub(1) != 1 && wakes_others) wake(group.ended, INT_MAX);
}

void FlushGroups::end(std::uint32_t flush) {
  Group& group = group_of(flush);
  group.ended.store(flush);
  group.wake_others.store(true);
  if (group.waiting.load() != 0) wake(group.ended, 1);
}

void FlushGroups::end_all(std::uint32_t last) {
  for (const std::uint32_t flush : {last + 1, last + 2}) {
    Group& group = group_of(flush);
    group.ended.store(flush);
    wake(group.ended, INT_MAX);
  }
}

}  // namespace millrace::log
