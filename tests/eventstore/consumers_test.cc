#include "eventstore/consumers.h"

#include "eventstore/policy.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

class ManualClock final : public Clock {
 public:
  Monotonic monotonic() override { return std::chrono::steady_clock::now(); }
  UnixMicros wall() override { return {now}; }
  std::int64_t now = 1'767'225'600'000'000;
};

struct Fixture {
  FaultFs files;
  ManualClock clock;
  std::unique_ptr<EventStore> store = open();

  std::unique_ptr<EventStore> open() {
    StoreOptions options = small_options(files);
    options.segment_bytes = 8 << 10;
    options.clock = &clock;
    return must(EventStore::open(kStore, options));
  }
  void append(const NewEvent& event) {
    must(store->append({}, {&event, 1}));
    store->request_flush();
    REQUIRE(must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1))));
  }
  void fill(int events) {
    for (int i = 0; i < events; ++i)
      append({.category = "readings",
              .key = "sensor",
              .type = {},
              .payload = std::string(500, static_cast<char>('a' + i % 26)),
              .metadata = {}});
  }
  /// Everything that is there now is too old afterwards.
  void expire_all() {
    const PolicyEvent policy =
        must(policy_event("readings", CategoryPolicy{.retention = Retention::kExpire,
                                                     .max_age = std::chrono::hours(1)}));
    append(policy.view());
    clock.now += std::chrono::microseconds(std::chrono::hours(2)).count();
    fill(30);
  }
  std::uint64_t first_reading() {
    const auto reader =
        must(LogReader::open(kStore, {.from = {}, .categories = {"readings"}, .files = &files}));
    while (Batch* batch = must(reader->next()))
      while (const EventView* event = batch->next())
        if (event->category == "readings") return event->offset.value;
    FAIL("no reading is left");
    return 0;
  }
};

}  // namespace

TEST_CASE("F122: retention waits for a consumer that holds, and no longer than it has to",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(60);
  auto& maintenance = one.store->maintenance();
  must(maintenance.register_consumer("view", Offset{20}, ConsumerPolicy::kHold));
  must(maintenance.register_consumer("quick", Offset{50}, ConsumerPolicy::kHold));
  one.expire_all();
  must(maintenance.compact({.dead_share_min = 0}));
  CHECK(one.first_reading() == 20);
  const auto reader = must(open_consumer(kStore, "view", one.files));
  CHECK(must(reader->next())->next()->offset.value == 20);
  must(maintenance.advance_consumer("view", Offset{40}));
  must(maintenance.compact({.dead_share_min = 0}));
  CHECK(one.first_reading() == 40);
  must(maintenance.remove_consumer("view"));
  must(maintenance.compact({.dead_share_min = 0}));
  CHECK(one.first_reading() == 50);
  for (const Consumer& consumer : must(list_consumers(kStore, one.files)))
    CHECK(consumer.lost.empty());
}

TEST_CASE("F122: a consumer that may lose is told OFFSET_GONE with what it lost and the way back",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(60);
  auto* maintenance = &one.store->maintenance();
  must(maintenance->register_consumer("late", Offset{20}, ConsumerPolicy::kLose));
  must(maintenance->register_consumer("new", Offset{0}, ConsumerPolicy::kLose));
  one.expire_all();
  must(maintenance->register_consumer("ahead", Offset{85}, ConsumerPolicy::kLose));
  must(maintenance->compact({.dead_share_min = 0}));
  one.store.reset();
  one.store = one.open();
  maintenance = &one.store->maintenance();
  for (const char* name : {"late", "new"}) {
    const auto gone = open_consumer(kStore, name, one.files);
    REQUIRE_FALSE(gone);
    CHECK(gone.error().code() == ErrorCode::kGone);
    CHECK(gone.error().message().find("OFFSET_GONE") != std::string::npos);
    CHECK(gone.error().message().find("readings") != std::string::npos);
    CHECK(gone.error().hint().find("offset 0") != std::string::npos);
    CHECK(maintenance->advance_consumer(name, Offset{80}).error().code() == ErrorCode::kGone);
    CHECK(must(find_consumer(kStore, name, one.files)).lost.front().count > 30);
  }
  CHECK(open_consumer(kStore, "ahead", one.files));
  // The way back.
  must(maintenance->remove_consumer("late"));
  must(maintenance->register_consumer("late", Offset{0}, ConsumerPolicy::kLose));
  CHECK(open_consumer(kStore, "late", one.files));
}

TEST_CASE("consumers are named, moved forwards only, and never beyond the log",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(5);
  auto& maintenance = one.store->maintenance();
  const auto code = [](const Result<void>& result) { return result.error().code(); };
  for (const char* bad :
       {"", ".", "..", "../x", "a/b", "-x", "x.tmp", "a b", "\xc3\xa9", ".hidden"})
    CHECK(code(maintenance.register_consumer(bad, {}, ConsumerPolicy::kHold)) ==
          ErrorCode::kInvalidArgument);
  CHECK(code(maintenance.register_consumer(std::string(101, 'a'), {}, ConsumerPolicy::kHold)) ==
        ErrorCode::kInvalidArgument);
  must(maintenance.register_consumer("orders.view-1_a", Offset{2}, ConsumerPolicy::kLose));
  CHECK(code(maintenance.register_consumer("orders.view-1_a", {}, ConsumerPolicy::kLose)) ==
        ErrorCode::kConflict);
  CHECK(code(maintenance.register_consumer("b", Offset{6}, ConsumerPolicy::kHold)) ==
        ErrorCode::kInvalidArgument);
  CHECK(code(maintenance.advance_consumer("orders.view-1_a", Offset{6})) ==
        ErrorCode::kInvalidArgument);
  CHECK(code(maintenance.advance_consumer("orders.view-1_a", Offset{1})) ==
        ErrorCode::kInvalidArgument);
  CHECK(code(maintenance.advance_consumer("nobody", Offset{1})) == ErrorCode::kNotFound);
  CHECK(code(maintenance.remove_consumer("nobody")) == ErrorCode::kNotFound);
  must(maintenance.advance_consumer("orders.view-1_a", Offset{5}));
  const auto consumers = must(list_consumers(kStore, one.files));
  REQUIRE(consumers.size() == 1);
  CHECK(consumers[0].offset.value == 5);
  CHECK(consumers[0].policy == ConsumerPolicy::kLose);
}

TEST_CASE("a damaged consumer file is named, stops retention, and can be removed",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(60);
  auto& maintenance = one.store->maintenance();
  must(maintenance.register_consumer("view", Offset{20}, ConsumerPolicy::kHold));
  const Path file = kStore / "consumers" / "view";
  const std::string good = one.files.content(file);
  one.expire_all();
  for (const std::string& bad : {std::string(), std::string("{}"), good.substr(0, good.size() / 2),
                                 std::string("[1]"), std::string(R"({"offset":-1})")}) {
    one.files.set_content(file, bad);
    CHECK(list_consumers(kStore, one.files).error().code() == ErrorCode::kCorruption);
    CHECK(maintenance.compact({}).error().code() == ErrorCode::kCorruption);
    CHECK(one.first_reading() == 0);
  }
  must(maintenance.remove_consumer("view"));
  must(maintenance.compact({}));
  CHECK(one.first_reading() > 0);
}

TEST_CASE("a consumer is durable also where the first attempt to register one failed",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(3);
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    const auto disk = one.files.clone();
    auto store = must(EventStore::open(kStore, small_options(*disk)));
    disk->fail_at(step, ErrorCode::kIo);
    const auto first =
        store->maintenance().register_consumer("first", Offset{1}, ConsumerPolicy::kHold);
    const bool hit = disk->fault_was_hit();
    disk->clear_faults();
    must(store->maintenance().register_consumer("second", Offset{2}, ConsumerPolicy::kHold));
    disk->die_at(1);
    store.reset();
    disk->lose_power();
    CHECK(must(find_consumer(kStore, "second", *disk)).offset.value == 2);
    if (first) CHECK(find_consumer(kStore, "first", *disk));
    if (!hit) break;
  }
}

TEST_CASE("what a consumer acknowledged survives a power loss at any moment",
          "[eventstore][consumers]") {
  Fixture one;
  one.fill(30);
  must(one.store->maintenance().register_consumer("view", Offset{1}, ConsumerPolicy::kHold));
  one.store.reset();
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    const auto disk = one.files.clone();
    auto store = must(EventStore::open(kStore, small_options(*disk)));
    disk->die_at(step);
    const auto moved = store->maintenance().advance_consumer("view", Offset{9});
    const bool hit = disk->fault_was_hit();
    store.reset();
    disk->lose_power(step);
    const Consumer consumer = must(find_consumer(kStore, "view", *disk));
    CHECK((consumer.offset.value == 1 || consumer.offset.value == 9));
    if (moved) CHECK(consumer.offset.value == 9);
    CHECK(must(list_consumers(kStore, *disk)).size() == 1);
    if (!hit) break;
  }
}
