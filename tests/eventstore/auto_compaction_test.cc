#include "eventstore/log/auto_compaction.h"

#include <atomic>
#include <latch>

#include "eventstore/log/store_files.h"
#include "eventstore/policy.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using log::AutoCompaction;

namespace {

constexpr std::chrono::seconds kPatience{30};

/// Counts what happens; waiting for it has an end.
class Counter {
 public:
  void add() {
    MutexLock lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool wait_for(int count) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    MutexLock lock(mutex_);
    while (count_ < count)
      if (!changed_.wait_until(mutex_, deadline)) return false;
    return true;
  }
  int count() {
    MutexLock lock(mutex_);
    return count_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  int count_ MILLRACE_GUARDED_BY(mutex_) = 0;
};

void append_one(EventStore& store, std::string_view key, std::string_view payload) {
  const NewEvent event{.category = "c", .key = key, .type = {}, .payload = payload, .metadata = {}};
  must(store.append({}, {&event, 1}));
  store.request_flush();
  REQUIRE(must(store.wait_durable(store.appended_end(), 0, kPatience)));
}

}  // namespace

TEST_CASE("compaction runs by itself after its rest, and again when a segment is sealed",
          "[eventstore][compaction]") {
  Counter runs;
  AutoCompaction compaction(
      [&](std::stop_token) -> Result<void> {
        runs.add();
        return {};
      },
      std::chrono::milliseconds(1));
  REQUIRE(runs.wait_for(1));  // what was sealed before is not known
  compaction.note_sealed();
  REQUIRE(runs.wait_for(2));
  compaction.stop();
  compaction.note_sealed();
  CHECK(runs.count() == 2);
}

TEST_CASE("a run rests twenty times as long as it took", "[eventstore][compaction]") {
  Counter runs;
  std::chrono::steady_clock::time_point ended, begun;
  constexpr std::chrono::milliseconds kTook{20};
  AutoCompaction compaction(
      [&](std::stop_token) -> Result<void> {
        begun = std::chrono::steady_clock::now();
        if (runs.count() == 0) std::this_thread::sleep_for(kTook);  // the work
        if (runs.count() == 0) ended = std::chrono::steady_clock::now();
        runs.add();
        return {};
      },
      std::chrono::milliseconds(1));
  compaction.note_sealed();
  REQUIRE(runs.wait_for(1));
  compaction.note_sealed();
  REQUIRE(runs.wait_for(2));
  compaction.stop();
  CHECK(begun - ended >= 20 * kTook);
}

TEST_CASE("a run that is interrupted, or failed, is made up for later",
          "[eventstore][compaction]") {
  Counter begun, ended;
  AutoCompaction compaction(
      [&](const std::stop_token& stop) -> Result<void> {
        begun.add();
        if (begun.count() == 1) {
          Counter stopped;
          const std::stop_callback callback(stop, [&] { stopped.add(); });
          CHECK(stopped.wait_for(1));
        }
        ended.add();
        if (begun.count() == 1) return Error(ErrorCode::kCancelled, "asked to stop");
        if (begun.count() == 2) return Error(ErrorCode::kIo, "the disk has a bad day");
        return {};
      },
      std::chrono::milliseconds(1));
  REQUIRE(begun.wait_for(1));
  CHECK(ended.count() == 0);
  compaction.interrupt();
  REQUIRE(ended.wait_for(3));
}

TEST_CASE("stopping ends the run that is under way", "[eventstore][compaction]") {
  Counter begun;
  std::atomic<bool> ended = false;
  AutoCompaction compaction(
      [&](const std::stop_token& stop) -> Result<void> {
        begun.add();
        Counter stopped;
        const std::stop_callback callback(stop, [&] { stopped.add(); });
        CHECK(stopped.wait_for(1));
        ended = true;
        return Error(ErrorCode::kCancelled, "asked to stop");
      },
      std::chrono::milliseconds(1));
  REQUIRE(begun.wait_for(1));
  compaction.stop();
  CHECK(ended);
}

TEST_CASE("a store compacts itself when a segment is full", "[eventstore][compaction]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  StoreOptions options = small_options(FileSystem::real());
  options.background_maintenance = true;
  options.compaction_rest = std::chrono::milliseconds(1);
  const auto store = must(EventStore::open(path, options));
  const PolicyEvent policy = must(policy_event("c", {.retention = Retention::kCompact}));
  const NewEvent view = policy.view();
  must(store->append({}, {&view, 1}));
  const auto events_of = [&](std::string_view key) {
    const auto reader = must(LogReader::open(path));
    int count = 0;
    while (Batch* batch = must(reader->next()))
      while (const EventView* event = batch->next()) count += event->key == key;
    return count;
  };
  for (int i = 0; i < 20; ++i) append_one(*store, "a", std::string(500, 'x'));
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  // Each segment that gets full makes it look again.
  while (events_of("a") > 1 && std::chrono::steady_clock::now() < deadline)
    append_one(*store, "b", std::string(500, 'x'));
  CHECK(events_of("a") == 1);
}
