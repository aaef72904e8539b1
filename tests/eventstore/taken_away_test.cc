// Those who stay while something is taken out of the log: long-lived readers, consumers, streams.
#include <atomic>
#include <set>

#include "eventstore/consumers.h"
#include "eventstore/policy.h"
#include "eventstore/stream_reader.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

class Store {
 public:
  Store() { reopen(); }
  void reopen() {
    store_.reset();
    store_ = must(EventStore::open(kStore, small_options(files)));
  }
  EventStore& operator*() { return *store_; }
  EventStore* operator->() { return store_.get(); }

  void put(std::string_view category, std::string_view key, std::string_view payload,
           EventFlags flags = EventFlags::kNone) {
    const NewEvent event{.category = category,
                         .key = key,
                         .type = {},
                         .payload = payload,
                         .metadata = {},
                         .flags = flags};
    must(store_->append({}, {&event, 1}));
    store_->request_flush();
    REQUIRE(must(store_->wait_durable(store_->appended_end(), 0, std::chrono::minutes(1))));
  }
  void happen(std::string_view key, std::string_view payload) {
    const NewStreamEvent event{.type = "Happened", .payload = payload, .metadata = {}};
    const StreamAppend part{.stream = {"cart", key}, .expected = {}, .events = {&event, 1}};
    must(store_->append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
  }
  void set(const PolicyEvent& policy) { put(kPolicyCategory, policy.key, policy.payload); }
  /// All that is there lies in sealed segments then.
  void roll() {
    for (int i = 0; i < 3; ++i) put("filler", "f", std::string(6000, 'f'));
  }
  CompactionReport compact(CompactionOptions options = {}) {
    options.dead_share_min = 0;
    return must(store_->maintenance().compact(options));
  }
  void erase(std::string_view key) {
    const EntityToErase entity{.key = key, .tombstone_type = "Gone"};
    must(store_->maintenance().erase({.category = "cart", .entities = {&entity, 1}}));
  }

  FaultFs files;

 private:
  std::unique_ptr<EventStore> store_;
};

std::vector<std::uint64_t> versions(StreamReader& reader, std::string_view key) {
  std::vector<std::uint64_t> seen;
  must(reader.read({"cart", key}, {}, [&](const EventView& event, const TransactionInfo&) {
    seen.push_back(event.version.value());
    return true;
  }));
  return seen;
}

std::vector<std::uint64_t> up_to(std::uint64_t count) {
  std::vector<std::uint64_t> list;
  for (std::uint64_t i = 0; i < count; ++i) list.push_back(i);
  return list;
}

PolicyEvent compacting(std::string_view category) {
  return must(policy_event(
      category, {.retention = Retention::kCompact, .tombstone_grace = std::chrono::seconds(0)}));
}

}  // namespace

TEST_CASE("a stream's reader that stays open misses nothing where segments are rewritten",
          "[eventstore][compaction]") {
  Store store;
  const bool same_sizes = GENERATE(true, false);
  const bool read_before = GENERATE(true, false);
  const auto reader = must(StreamReader::open(kStore, store.files));
  std::uint64_t count = 0;
  for (int i = 0; i < 10; ++i) {
    store.happen("a", "payload of a");
    store.happen("b", same_sizes ? "payload of b" : std::string(40, 'b'));
    ++count;
  }
  if (read_before) CHECK(versions(*reader, "a") == up_to(count));
  store.erase("b");
  CHECK(versions(*reader, "a") == up_to(count));
  store.happen("a", "one more");
  CHECK(versions(*reader, "a") == up_to(++count));
  // The writer's own look for versions, too.
  store.erase("c");
  store.happen("a", "one more");
  CHECK(versions(*reader, "a") == up_to(++count));
  CHECK(versions(*reader, "b").size() == 1);
}

TEST_CASE("F122: a consumer that loses is told also by a compaction that was ended in the middle",
          "[eventstore][compaction]") {
  Store store;
  store.set(must(policy_event("readings", {.retention = Retention::kExpire, .max_bytes = 1})));
  for (int i = 0; i < 60; ++i) store.put("readings", "r", std::string(1500, 'r'));
  store.roll();
  must(store->maintenance().register_consumer("late", Offset{0}, ConsumerPolicy::kLose));
  std::stop_source stop;
  CompactionOptions options{.dead_share_min = 0, .stop = stop.get_token()};
  std::size_t lost = 0;
  options.progress = [&](const MaintenanceProgress&) {
    lost = must(find_consumer(kStore, "late", store.files)).lost.size();
    if (lost != 0) stop.request_stop();  // one segment is done
  };
  const auto ended = store->maintenance().compact(options);
  REQUIRE_FALSE(ended);
  CHECK(ended.error().code() == ErrorCode::kCancelled);
  CHECK(lost == 1);
  const auto gone = open_consumer(kStore, "late", store.files);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code() == ErrorCode::kGone);
}

TEST_CASE("a reader from the start that has read a row is told when its deletion went meanwhile",
          "[eventstore][compaction]") {
  Store store;
  store.set(compacting("rows"));
  store.put("rows", "x", "here it is");
  store.roll();
  const auto early = must(LogReader::open(kStore, {.files = &store.files}));
  const auto read_on = [](LogReader& reader) -> Result<int> {
    int rows = 0;
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader.next());
      if (batch == nullptr) return rows;
      while (const EventView* event = batch->next()) rows += event->category == "rows";
    }
  };
  CHECK(must(read_on(*early)) == 1);
  store.put("rows", "x", "", EventFlags::kTombstone);
  store.roll();
  for (int run = 0; run < 3; ++run) store.compact();
  const auto told = read_on(*early);
  REQUIRE_FALSE(told);
  CHECK(told.error().code() == ErrorCode::kGone);
  // Who comes now misses nothing.
  CHECK(must(read_on(*must(LogReader::open(kStore, {.files = &store.files})))) == 0);
}

TEST_CASE("F17: after a swap whose outcome is not known nothing more is taken away",
          "[eventstore][compaction]") {
  bool was_in_doubt = false;
  for (std::uint64_t step = 1; step < 40; ++step) {
    Store store;
    store.set(compacting("rows"));
    for (int i = 0; i < 12; ++i) store.put("rows", "x", std::string(1500, 'r'));
    store.roll();
    store.files.fail_at(step, ErrorCode::kIo);
    const auto run = store->maintenance().compact({.dead_share_min = 0});
    store.files.clear_faults();
    const auto again = store->maintenance().compact({.dead_share_min = 0});
    if (again) continue;
    was_in_doubt = true;
    CHECK_FALSE(run);
    CHECK(again.error().message().find("could not be put in place") != std::string::npos);
    const EntityToErase x{.key = "x"};
    CHECK(store->maintenance().erase({.category = "rows", .entities = {&x, 1}}).error().code() ==
          ErrorCode::kIo);
    store.put("rows", "y", "the store goes on");
    store.reopen();
    store.compact();
  }
  CHECK(was_in_doubt);
}

TEST_CASE("a stream's limits leave what its latest partial event is completed from",
          "[eventstore][compaction]") {
  Store store;
  store.set(must(policy_event("rows", "x", StreamPolicy{.max_count = 1})));
  store.put("rows", "x", "old");
  store.put("rows", "x", "whole");
  store.put("rows", "x", "a part", EventFlags::kPartial);
  store.roll();
  store.compact();
  const auto payloads = [&] {
    std::vector<std::string> seen;
    const auto reader =
        must(LogReader::open(kStore, {.accepts_gaps = true, .files = &store.files}));
    while (Batch* batch = must(reader->next()))
      while (const EventView* event = batch->next())
        if (event->category == "rows") seen.emplace_back(event->payload);
    return seen;
  };
  CHECK(payloads() == std::vector<std::string>{"whole", "a part"});
  store.put("rows", "x", "whole again");
  store.roll();
  store.compact();
  CHECK(payloads() == std::vector<std::string>{"whole again"});
}

TEST_CASE("a consumer that stands beyond the log's end is told, and reads nothing in its place",
          "[eventstore][compaction]") {
  Store store;
  store.put("rows", "x", "1");
  ConsumerFiles files(store.files, kStore);
  must(files.write({.name = "ahead",
                    .offset = Offset{5},
                    .policy = ConsumerPolicy::kHold,
                    .updated = {},
                    .lost = {}}));
  const auto gone = open_consumer(kStore, "ahead", store.files);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code() == ErrorCode::kGone);
  CHECK(gone.error().message().find("stands at offset 5, and the store ends at 1") !=
        std::string::npos);
}
