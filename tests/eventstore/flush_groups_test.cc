#include "eventstore/log/flush_groups.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/catch.h"

using millrace::log::FlushGroups;

TEST_CASE("who waits for a flush goes on when it is over, also where its number begins anew",
          "[eventstore][append]") {
  FlushGroups groups;
  std::atomic<bool> is_over[3] = {};
  const std::uint32_t numbers[] = {0xFFFFFFFE, 0xFFFFFFFF, 0};
  groups.end(0x7FFFFFFE);
  groups.end(0x7FFFFFFF);
  groups.end(0xFFFFFFFC);
  groups.end(0xFFFFFFFD);
  std::vector<std::jthread> waiting[3];
  std::atomic<int> early = 0;
  const auto begin_to_wait = [&](int i) {
    for (int k = 0; k < 4; ++k)
      waiting[i].emplace_back([&, i] {
        groups.wait(numbers[i]);
        if (!is_over[i]) ++early;
      });
  };
  begin_to_wait(0);
  for (int i = 0; i < 3; ++i) {
    if (i + 1 < 3) begin_to_wait(i + 1);
    is_over[i] = true;
    groups.end(numbers[i]);
    waiting[i].clear();
  }
  CHECK(early == 0);
  groups.wait(0xFFFFFFFE);  // long over
  std::jthread last([&] { groups.wait(1); });
  std::jthread after([&] { groups.wait(2); });
  groups.end_all(0);
}

// A caller that is left asleep appends no more, so that in the end nobody asks for a flush.
TEST_CASE("many callers that wait for one flush after the other are all woken",
          "[eventstore][append]") {
  constexpr int kCallers = 32, kFlushesEach = 2'000;
  FlushGroups groups;
  std::mutex mutex;
  std::condition_variable asked;
  std::uint32_t begun = 0;
  bool is_asked = false;
  int callers = kCallers;
  std::vector<std::jthread> threads;
  for (int caller = 0; caller < kCallers; ++caller)
    threads.emplace_back([&] {
      for (int i = 0; i < kFlushesEach; ++i) {
        std::uint32_t flush = 0;
        {
          const std::lock_guard lock(mutex);
          flush = begun + 1;
          is_asked = true;
          asked.notify_one();
        }
        groups.wait(flush);
      }
      const std::lock_guard lock(mutex);
      --callers;
      asked.notify_one();
    });
  std::unique_lock lock(mutex);
  while (callers != 0) {
    asked.wait(lock, [&] { return is_asked || callers == 0; });
    if (!is_asked) break;
    is_asked = false;
    const std::uint32_t flush = ++begun;
    lock.unlock();
    groups.end(flush);
    lock.lock();
  }
  lock.unlock();
  threads.clear();
  CHECK(begun >= static_cast<std::uint32_t>(kFlushesEach));
}
