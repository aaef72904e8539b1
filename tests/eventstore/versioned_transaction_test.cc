// Transactions whose events get versions, beside appends to the same streams.
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

Result<std::unique_ptr<EventStore>> open_small(FaultFs& files) {
  StoreOptions options = small_options(files);
  options.pending_bytes_max = 1 << 20;
  return EventStore::open(kStore, options);
}

Result<AppendResult> append_one(EventStore& store, std::string_view key,
                                ExpectedVersion expected = ExpectedVersion::any()) {
  const NewStreamEvent event{.type = "Appended"};
  const StreamAppend part{.stream = {"cart", key}, .expected = expected, .events = {&event, 1}};
  return store.append_durably({.streams = {&part, 1}});
}

Result<void> add(EventStore& store, std::string_view key, std::string_view payload = {}) {
  return store.add({.category = "cart",
                    .key = key,
                    .type = "Added",
                    .payload = payload,
                    .metadata = {},
                    .flags = EventFlags::kNone,
                    .versioned = true});
}

Result<void> begin(EventStore& store, std::uint64_t commit) {
  return store.begin({.source = {.epoch = 1, .commit = commit, .end = 0}, .commit_time = {}});
}

/// The events of all streams as "key type version", in the order of the log.
std::vector<std::string> read_all(FileSystem& files) {
  std::vector<std::string> events;
  const auto reader =
      must(LogReader::open(kStore, {.from = {}, .categories = {}, .files = &files}));
  while (Batch* batch = must(reader->next())) {
    while (const EventView* event = batch->next())
      events.push_back(std::string(event->key) + " " + std::string(event->type) + " " +
                       (event->version ? std::to_string(*event->version) : "-"));
    must(batch->status());
  }
  return events;
}

}  // namespace

TEST_CASE("events that a transaction adds with versions count together with those appended",
          "[eventstore][append]") {
  FaultFs files;
  {
    const auto store = must(open_small(files));
    must(append_one(*store, "a"));
    must(begin(*store, 10));
    must(add(*store, "a"));
    must(add(*store, "b"));
    must(store->add({.category = "cart", .key = "a", .type = {}, .payload = "c", .metadata = {}}));
    must(add(*store, "a"));
    must(store->commit(11));
    CHECK(must(append_one(*store, "a", ExpectedVersion::exact(2))).next_versions.at(0) == 4);
    CHECK(append_one(*store, "b", ExpectedVersion::none()).error().code() == ErrorCode::kConflict);

    must(begin(*store, 20));  // never happened: neither did its versions
    must(add(*store, "a"));
    must(add(*store, "c"));
    must(store->rollback());
    must(begin(*store, 20));
    must(add(*store, "a"));
    must(store->commit(21));
  }
  const auto store = must(open_small(files));
  CHECK(must(append_one(*store, "b")).next_versions.at(0) == 2);
  CHECK(must(append_one(*store, "c", ExpectedVersion::none())).next_versions.at(0) == 1);
  CHECK(read_all(files) == std::vector<std::string>{"a Appended 0", "a Added 1", "b Added 0",
                                                    "a  -", "a Added 2", "a Appended 3",
                                                    "a Added 4", "b Appended 1", "c Appended 0"});
}

TEST_CASE("an append waits for a transaction that has given versions, and sees them",
          "[eventstore][append]") {
  const auto payload = std::string(GENERATE(1, 300'000), 'x');  // the larger ones spill
  FaultFs files;
  const auto store = must(open_small(files));
  must(begin(*store, 10));
  must(store->add({.category = "t", .key = "1", .type = {}, .payload = payload, .metadata = {}}));
  must(store->add({.category = "t", .key = "2", .type = {}, .payload = payload, .metadata = {}}));
  must(add(*store, "a", payload));
  std::atomic<bool> ended = false;
  bool too_early = false;
  std::uint64_t next = 0;
  std::thread other([&] {
    next = must(append_one(*store, "a")).next_versions.at(0);
    too_early = !ended;
  });
  // Time enough for an append that does not wait, most times; one that does can't tell.
  for (int i = 0; i < 2000; ++i) must(add(*store, "b", "x"));
  must(add(*store, "a", payload));
  ended = true;
  must(store->commit(11));
  other.join();
  CHECK_FALSE(too_early);
  CHECK(next == 3);
  CHECK(must(append_one(*store, "a")).next_versions.at(0) == 4);
}

TEST_CASE("transactions with versions and many appends give each version of a stream once",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  constexpr int kStreams = 5;
  std::atomic<int> failures = 0;
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 3; ++thread)
    threads.emplace_back([&, random = std::minstd_rand(thread + 1)]() mutable {
      while (!done)
        if (!append_one(*store, std::to_string(random() % kStreams))) ++failures;
    });
  std::minstd_rand random(42);
  for (std::uint64_t commit = 1; commit <= 150; ++commit) {
    must(begin(*store, commit * 2));
    const std::string payload(random() % 10 == 0 ? 200'000 : 10, 'x');
    for (unsigned n = random() % 12; n > 0; --n) {
      if (random() % 3 == 0)
        must(store->add(
            {.category = "t", .key = "1", .type = {}, .payload = payload, .metadata = {}}));
      must(add(*store, std::to_string(random() % kStreams), payload));
    }
    if (random() % 5 == 0)
      must(store->rollback());
    else
      must(store->commit(commit * 2 + 1));
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  store->request_flush();
  REQUIRE(must(store->wait_durable(store->appended_end(), 0, std::chrono::seconds(30))));
  CHECK(failures == 0);
  std::map<std::string, std::uint64_t> next, appended;
  for (const std::string& event : read_all(files)) {
    const std::string key = event.substr(0, event.find(' '));
    const std::string version = event.substr(event.rfind(' ') + 1);
    if (version == "-") continue;
    REQUIRE(version == std::to_string(next[key]++));
    if (event.find("Appended") != std::string::npos) ++appended[key];
  }
  CHECK(next.size() == kStreams);
  for (const auto& [key, count] : appended) CHECK(count < next[key]);
}
