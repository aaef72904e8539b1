#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <thread>

#include "base/checksum.h"
#include "eventstore/inspect.h"
#include "eventstore/log/store_files.h"
#include "eventstore/policy.h"
#include "tests/support/manual_clock.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;
using std::chrono::hours;
using std::chrono::seconds;

namespace {

const Path kStore = "/store";
constexpr std::string_view kCompacted = "compacted", kTruncated = "truncated", kKept = "kept",
                           kExpiring = "expiring";

// A payload is "a" with a number and, unless the event is partial, "b" with one.
Result<std::optional<std::string>> merge(std::string_view, std::string_view older,
                                         std::string_view newer) {
  const std::size_t b = older.find('b');
  if (b == std::string_view::npos || newer.find('b') != std::string_view::npos)
    return std::optional<std::string>();
  return std::optional(std::string(newer) + std::string(older.substr(b)));
}

/// What a view of the compacted categories holds.
struct Fold {
  std::map<std::string, std::map<std::string, std::string>> rows;
  bool operator==(const Fold&) const = default;

  void apply(const EventView& event) {
    if (event.category != kCompacted && event.category != kTruncated) return;
    auto& table = rows[std::string(event.category)];
    const std::string key(event.key);
    if (has(event.flags, EventFlags::kCategoryTombstone))
      table.clear();
    else if (has(event.flags, EventFlags::kTombstone))
      table.erase(key);
    else if (!has(event.flags, EventFlags::kPartial))
      table[key] = event.payload;
    else if (table.contains(key))
      table[key] = must(merge({}, table[key], event.payload)).value();
  }
};

struct Content {
  std::string category, key, payload;
  EventFlags flags = EventFlags::kNone;
  bool operator==(const Content&) const = default;
};

struct Reading {
  Fold fold;
  std::map<std::uint64_t, Content> events;
  std::uint64_t end = 0;
};

/// Reads on from `reading`, to the end or up to `until`.
Result<Reading> read_on(FileSystem& files, Reading reading = {},
                        std::uint64_t until = ~std::uint64_t{0}) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto reader,
      LogReader::open(kStore, {.from = {reading.end}, .categories = {}, .files = &files}));
  for (bool at_border = true; !at_border || reading.end < until;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, reader->next());
    if (batch == nullptr) break;
    while (const EventView* event = batch->next()) {
      reading.fold.apply(*event);
      reading.events[event->offset.value] = {std::string(event->category), std::string(event->key),
                                             std::string(event->payload), event->flags};
    }
    MILLRACE_RETURN_IF_ERROR(batch->status());
    at_border = batch->last_of_transaction;
    reading.end = reader->position().value;
  }
  return reading;
}

void append_all(EventStore& store, std::span<const NewEvent> events) {
  must(store.append({}, events));
  store.request_flush();
  REQUIRE(must(store.wait_durable(store.appended_end(), 0, std::chrono::minutes(1))));
}

void append_one(EventStore& store, std::string_view category, std::string_view key,
                std::string_view payload, EventFlags flags = EventFlags::kNone) {
  const NewEvent event{.category = category,
                       .key = key,
                       .type = {},
                       .payload = payload,
                       .metadata = {},
                       .flags = flags};
  append_all(store, {&event, 1});
}

void set_policy(EventStore& store, std::string_view category, const CategoryPolicy& policy) {
  const PolicyEvent event = must(policy_event(category, policy));
  const NewEvent view = event.view();
  append_all(store, {&view, 1});
}

void set_policies(EventStore& store) {
  for (const std::string_view category : {kCompacted, kTruncated})
    set_policy(store, category, {.retention = Retention::kCompact, .tombstone_grace = hours(1)});
  set_policy(store, kExpiring, {.retention = Retention::kExpire, .max_age = hours(2)});
}

StoreOptions options_with(FileSystem& files, Clock& clock) {
  StoreOptions options = small_options(files);
  options.segment_bytes = 8 << 10;
  options.clock = &clock;
  return options;
}

/// Transactions of random events in all categories; the same keys come again and again.
void append_random(EventStore& store, std::mt19937_64& random, std::size_t transactions) {
  for (std::size_t i = 0; i < transactions; ++i) {
    std::vector<StoredEvent> events(1 + random() % (random() % 8 == 0 ? 80 : 6));
    for (StoredEvent& event : events) {
      const std::string_view categories[] = {kCompacted, kCompacted, kTruncated, kKept, kExpiring};
      event.category = categories[random() % 5];
      event.key = "key" + std::to_string(random() % 40);
      event.payload = "a" + std::to_string(random());
      const auto dice = random() % 100;
      if (dice < 20)
        event.flags = EventFlags::kPartial;
      else if (dice < 35)
        event.flags = EventFlags::kTombstone, event.payload.clear();
      else if (dice == 35 && event.category == kTruncated)
        event.flags = EventFlags::kCategoryTombstone, event.key.clear(), event.payload.clear();
      else
        event.payload += "b" + std::to_string(random());
    }
    std::vector<NewEvent> views;
    for (const StoredEvent& event : events) views.push_back(event.view());
    append_all(store, views);
  }
}

/// What stays of a store after compaction is what was there, but for what its policies let go.
void check_compacted(const Reading& before, const Reading& after) {
  REQUIRE(after.fold == before.fold);
  std::size_t kept = 0;
  for (const auto& [offset, event] : after.events) {
    CAPTURE(offset);
    const auto old = before.events.find(offset);
    REQUIRE(old != before.events.end());
    if (has(old->second.flags, EventFlags::kPartial) && !has(event.flags, EventFlags::kPartial))
      REQUIRE(event.payload.starts_with(old->second.payload));  // completed
    else
      REQUIRE(event == old->second);
    if (event.category == kKept || event.category == kPolicyCategory) ++kept;
  }
  for (const auto& [offset, event] : before.events)
    if (event.category == kKept || event.category == kPolicyCategory) --kept;
  REQUIRE(kept == 0);
}

void check_whole(FileSystem& files) {
  for (const Fault& fault : must(verify_store(kStore, {}, files)).faults)
    FAIL(fault.file + " at " + std::to_string(fault.position) + ": " + fault.kind + " " +
         fault.detail);
}

CompactionReport compact(EventStore& store, CompactionOptions options = {}) {
  options.is_moved = [](std::string_view, std::string_view payload) {
    return payload.ends_with("moved");
  };
  return must(store.maintenance().compact(options));
}

bool never_moved(std::string_view, std::string_view) { return false; }

/// Enough of another category that what was appended before lies in sealed segments.
void roll(EventStore& store) {
  for (int i = 0; i < 3; ++i) append_one(store, kKept, "filler", std::string(6000, 'b'));
}

}  // namespace

TEST_CASE("I15: compaction changes no fold, in any order of appends, policies, budgets and runs",
          "[eventstore][compaction]") {
  std::size_t removed = 0, completed = 0, passes_max = 0, gone = 0, resumed = 0;
  for (std::uint64_t seed = 0; seed < 25; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    FaultFs files;
    ManualClock clock;
    auto store = must(EventStore::open(kStore, options_with(files, clock)));
    set_policies(*store);
    Reading before = must(read_on(files));
    std::vector<Reading> late;  // readers that stopped somewhere
    for (int round = 0; round < 8; ++round) {
      append_random(*store, random, 10 + random() % 30);
      clock.advance(seconds(random() % 3000));
      before = must(read_on(files, std::move(before)));
      late.push_back(must(read_on(files, {}, random() % before.end)));
      CompactionOptions options{.dead_share_min = random() % 2 == 0 ? 0.0 : 0.3,
                                .memory_bytes = std::size_t{4096} << (random() % 8)};
      if (random() % 2 == 0) options.merge = merge;
      const CompactionReport report = compact(*store, options);
      for (const auto& segment : report.rewritten) {
        removed += segment.events_removed;
        completed += segment.events_completed;
      }
      passes_max = std::max(passes_max, report.passes);
      check_compacted(before, must(read_on(files)));
      check_whole(files);
      for (const Reading& one : late) {
        const auto on = read_on(files, one);
        if (!on) REQUIRE(on.error().code() == ErrorCode::kGone);
        if (on) REQUIRE(on->fold == before.fold);
        ++(on ? resumed : gone);
      }
      if (random() % 4 == 0) {
        store.reset();
        if (random() % 2 == 0) files.lose_power(random());
        store = must(EventStore::open(kStore, options_with(files, clock)));
      }
    }
    // Once all is past its grace, and after as many runs as it takes, nothing superfluous is left.
    roll(*store);
    clock.advance(hours(3));
    while (!compact(*store, {.dead_share_min = 0, .merge = merge}).rewritten.empty()) {
    }
    Reading last = must(read_on(files));
    for (const auto& [category, rows] : before.fold.rows) {
      CAPTURE(category);
      CHECK(last.fold.rows[category] == rows);
    }
    std::map<std::pair<std::string, std::string>, std::vector<EventFlags>> keys;
    for (const auto& [offset, event] : last.events)
      if (event.category == kCompacted || event.category == kTruncated)
        keys[{event.category, event.key}].push_back(event.flags);
    for (const auto& [stream, flags] : keys) {
      // Changes of a row that is not there: nobody knows what they lack.
      if (has(flags.back(), EventFlags::kPartial)) continue;
      CHECK(flags == std::vector<EventFlags>{EventFlags::kNone});
    }
    check_whole(files);
  }
  CHECK(removed > 1000);
  CHECK(completed > 10);
  CHECK(passes_max > 3);
  CHECK(gone > 10);
  CHECK(resumed > 10);
}

TEST_CASE("a tombstone goes only after its grace, and never before what it deletes",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  append_one(*store, kCompacted, "x", "a1b1");
  roll(*store);
  append_one(*store, kCompacted, "x", "", EventFlags::kTombstone);
  roll(*store);
  const auto events_of_x = [&] {
    std::vector<bool> tombstones;
    for (const auto& [offset, event] : must(read_on(files)).events)
      if (event.key == "x") tombstones.push_back(has(event.flags, EventFlags::kTombstone));
    return tombstones;
  };
  clock.advance(hours(2));
  compact(*store);  // the row is too small a part of its segment
  CHECK(events_of_x() == std::vector<bool>{false, true});
  compact(*store, {.dead_share_min = 0});
  CHECK(events_of_x() == std::vector<bool>{true});
  const Reading late = must(read_on(files, {}, 5));
  compact(*store, {.dead_share_min = 0});
  CHECK(events_of_x().empty());
  CHECK(read_on(files, late).error().code() == ErrorCode::kGone);

  append_one(*store, kCompacted, "y", "a1b1");
  append_one(*store, kCompacted, "y", "", EventFlags::kTombstone);
  roll(*store);
  compact(*store, {.dead_share_min = 0});
  clock.advance(seconds(3500));
  compact(*store, {.dead_share_min = 0});
  CHECK(read_on(files, must(read_on(files, {}, 20))));  // within the grace nobody misses it
}

TEST_CASE("a dry run tells what would go and changes nothing; without policies nothing goes",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  std::mt19937_64 random(7);
  append_random(*store, random, 100);
  CHECK(compact(*store, {.dead_share_min = 0}).rewritten.empty());
  set_policies(*store);
  const auto bytes = [&] {
    std::map<std::string, std::string> content;
    for (const auto& name : files.names(kStore / "log"))
      content[name] = files.content(kStore / "log" / name);
    return content;
  };
  const auto before = bytes();
  const CompactionReport dry = compact(*store, {.dry_run = true});
  CHECK(bytes() == before);
  const CompactionReport done = compact(*store);
  REQUIRE_FALSE(done.rewritten.empty());
  REQUIRE(dry.rewritten.size() == done.rewritten.size());
  for (std::size_t i = 0; i < done.rewritten.size(); ++i) {
    CHECK(dry.rewritten[i].file == done.rewritten[i].file);
    CHECK(done.rewritten[i].bytes_after < done.rewritten[i].bytes_before);
  }
  CHECK(dry.segments == done.segments);
  CHECK(bytes() != before);
  CHECK(compact(*store).rewritten.empty());  // nothing is left that is worth it
}

TEST_CASE("F42: a crash, ENOSPC or EIO anywhere in compaction changes no fold",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  {
    const auto store = must(EventStore::open(kStore, options_with(files, clock)));
    set_policies(*store);
    std::mt19937_64 random(3);
    append_random(*store, random, 60);
    clock.advance(hours(3));
  }
  const Reading before = must(read_on(files));
  bool rewrote_some = false;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    bool hit = false;
    for (const int way : {0, 1, 2, 3}) {
      const auto disk = files.clone();
      auto store = must(EventStore::open(kStore, options_with(*disk, clock)));
      if (way < 2)
        disk->fail_at(step, way == 0 ? ErrorCode::kNoSpace : ErrorCode::kIo);
      else
        disk->die_at(step);
      const auto report = store->maintenance().compact(
          {.dead_share_min = 0, .merge = merge, .is_moved = never_moved});
      hit = disk->fault_was_hit();
      if (report) rewrote_some = rewrote_some || !report->rewritten.empty();
      if (way < 2) {
        disk->clear_faults();
        if (hit && !report)
          CHECK(report.error().code() == (way == 0 ? ErrorCode::kNoSpace : ErrorCode::kIo));
        CHECK(store->status());  // maintenance never poisons
        for (const std::string& name : disk->names(kStore / "log"))
          CHECK_FALSE(name.ends_with(".log.tmp"));
        append_one(*store, kKept, "goes on", "b");
      }
      store.reset();
      if (way == 2) disk->kill_processes();
      if (way == 3) disk->lose_power(step);
      disk->clear_faults();
      store = must(EventStore::open(kStore, options_with(*disk, clock)));
      for (const std::string& name : disk->names(kStore / "log"))
        CHECK_FALSE(name.ends_with(".tmp"));
      CHECK(must(read_on(*disk)).fold == before.fold);
      check_whole(*disk);
      compact(*store, {.dead_share_min = 0, .merge = merge});
      CHECK(must(read_on(*disk)).fold == before.fold);
    }
    if (!hit) break;
  }
  CHECK(rewrote_some);
}

TEST_CASE("readers that run beside compaction, appending and each other see one consistent log",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  std::mt19937_64 random(11);
  append_random(*store, random, 100);
  std::atomic<bool> done = false;
  std::atomic<int> rounds = 0;
  std::jthread compactor([&] {
    while (!done) {
      static_cast<void>(store->maintenance().compact(
          {.dead_share_min = 0, .merge = merge, .is_moved = never_moved}));
      ++rounds;
    }
  });
  for (int round = 0; round < 10 || rounds < 3; ++round) {
    append_random(*store, random, 20);
    const Reading seen = must(read_on(files));
    REQUIRE(must(read_on(files)).fold == seen.fold);
  }
  done = true;
  compactor.join();
  check_whole(files);
}

TEST_CASE("a reader goes on where the segment that was the newest has been rewritten meanwhile",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  std::mt19937_64 random(5);
  append_random(*store, random, 40);
  append_one(*store, kCompacted, "key1", std::string("a0b").append(2000, '0'));
  // It knows an end in what is the newest segment now, and reads later.
  const auto reader = must(LogReader::open(kStore, {.files = &files}));
  roll(*store);
  append_random(*store, random, 40);
  CHECK(compact(*store, {.dead_share_min = 0}).rewritten.size() > 2);
  Fold fold;
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next()) fold.apply(*event);
  CHECK(reader->position() == store->durable_end());
  CHECK(fold == must(read_on(files)).fold);
}

TEST_CASE("an append is repeated where events that came after it have expired",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  const NewStreamEvent event{.type = "Added", .payload = "a", .metadata = {}};
  const StreamAppend stream{
      .stream = {.category = kKept, .key = "cart"}, .expected = {}, .events = {&event, 1}};
  const AppendRequest request{.streams = {&stream, 1}, .idempotency_key = "once"};
  const AppendResult first = must(store->append_durably(request));
  for (int i = 0; i < 3; ++i) append_one(*store, kExpiring, "k", std::string(5000, 'b'));
  clock.advance(hours(3));
  CHECK_FALSE(compact(*store, {.dead_share_min = 0}).removed.empty());
  store.reset();
  store = must(EventStore::open(kStore, options_with(files, clock)));
  const AppendResult again = must(store->append_durably(request));
  CHECK(again.repeated);
  CHECK(again.first == first.first);
  CHECK(again.end == first.end);
}

TEST_CASE("a partial event is completed from older ones, which go in the next run",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  append_one(*store, kCompacted, "x", "a1b1");
  roll(*store);
  for (int i = 2; i < 5; ++i)
    append_one(*store, kCompacted, "x", "a" + std::to_string(i), EventFlags::kPartial);
  roll(*store);
  append_one(*store, kCompacted, "only partial", "a9", EventFlags::kPartial);
  roll(*store);
  const auto payloads = [&](std::string_view key) {
    std::vector<std::string> found;
    for (const auto& [offset, event] : must(read_on(files)).events)
      if (event.key == key) found.push_back(event.payload);
    return found;
  };
  compact(*store, {.dead_share_min = 0});  // without a merge everything stays
  CHECK(payloads("x") == std::vector<std::string>{"a1b1", "a2", "a3", "a4"});
  compact(*store, {.dead_share_min = 0, .merge = merge});
  CHECK(payloads("x") == std::vector<std::string>{"a1b1", "a2", "a3", "a4b1"});
  compact(*store, {.dead_share_min = 0, .merge = merge});
  CHECK(payloads("x") == std::vector<std::string>{"a4b1"});
  CHECK(payloads("only partial") == std::vector<std::string>{"a9"});

  // One that can't be merged stays as it is.
  append_one(*store, kCompacted, "x", "a5", EventFlags::kPartial);
  roll(*store);
  const MergeFunction never = [](auto...) -> Result<std::optional<std::string>> {
    return std::optional<std::string>();
  };
  compact(*store, {.dead_share_min = 0, .merge = never});
  CHECK(payloads("x") == std::vector<std::string>{"a4b1", "a5"});
}

TEST_CASE("what a moved row is completed from is not dropped while the row needs it",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  append_one(*store, kCompacted, "old key", "a1b1");
  append_one(*store, kCompacted, "another", "a1b1");
  append_one(*store, kCompacted, "another", "a2b2");
  append_one(*store, kCompacted, "old key", "", EventFlags::kTombstone);
  append_one(*store, kCompacted, "new key", "a2 moved", EventFlags::kPartial);
  append_one(*store, kCompacted, "new key", "a3", EventFlags::kPartial);
  roll(*store);
  clock.advance(hours(2));
  const auto events = [&] {
    std::size_t count = 0;
    for (const auto& [offset, event] : must(read_on(files)).events)
      count += event.category == kCompacted;
    return count;
  };
  compact(*store, {.dead_share_min = 0, .merge = merge});
  CHECK(events() == 6);
  append_one(*store, kCompacted, "new key", "a4b4");
  roll(*store);
  for (int run = 0; run < 3; ++run) compact(*store, {.dead_share_min = 0, .merge = merge});
  CHECK(events() == 2);
  // Who can't tell must take every partial event without an older one for moved.
  append_one(*store, kCompacted, "another", "a3b3");
  append_one(*store, kCompacted, "unknown", "a5", EventFlags::kPartial);
  roll(*store);
  must(store->maintenance().compact({.dead_share_min = 0, .merge = merge}));
  CHECK(events() == 4);
  compact(*store, {.dead_share_min = 0, .merge = merge});
  CHECK(events() == 3);
}

TEST_CASE(
    "a row that is moved to a key whose row was truncated still needs what it is completed from",
    "[eventstore][compaction]") {
  for (const bool changed_before : {false, true}) {
    CAPTURE(changed_before);
    FaultFs files;
    ManualClock clock;
    const auto store = must(EventStore::open(kStore, options_with(files, clock)));
    set_policies(*store);
    append_one(*store, kTruncated, "new key", "a1b1");
    if (changed_before) append_one(*store, kTruncated, "new key", "a2", EventFlags::kPartial);
    append_one(*store, kTruncated, "", "", EventFlags::kCategoryTombstone);
    append_one(*store, kTruncated, "old key", "a3b3");
    append_one(*store, kTruncated, "old key", "", EventFlags::kTombstone);
    append_one(*store, kTruncated, "new key", "a4 moved", EventFlags::kPartial);
    append_one(*store, kTruncated, "new key", "a5", EventFlags::kPartial);
    roll(*store);
    clock.advance(hours(2));
    for (int run = 0; run < 3; ++run) compact(*store, {.dead_share_min = 0, .merge = merge});
    const Reading after = must(read_on(files));
    std::size_t base = 0;
    for (const auto& [offset, event] : after.events) base += event.payload == "a3b3";
    CHECK(base == 1);
  }
}

TEST_CASE("a row with more partial changes than are remembered loses nothing",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  append_one(*store, kCompacted, "x", "a0b0");
  std::vector<std::string> payloads;
  for (int i = 1; i <= 1000; ++i) payloads.push_back("a" + std::to_string(i));
  std::vector<NewEvent> events;
  for (const auto& payload : payloads)
    events.push_back({.category = kCompacted,
                      .key = "x",
                      .type = {},
                      .payload = payload,
                      .metadata = {},
                      .flags = EventFlags::kPartial});
  append_all(*store, events);
  roll(*store);
  for (int run = 0; run < 8; ++run) {
    compact(*store, {.dead_share_min = 0, .merge = merge});
    REQUIRE(must(read_on(files)).fold.rows["compacted"]["x"] == "a1000b0");
  }
  std::size_t left = 0;
  for (const auto& [offset, event] : must(read_on(files)).events) left += event.key == "x";
  CHECK(left == 1);
}

TEST_CASE("expiry by age and by size takes the oldest, says so, and keeps what a late change needs",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  append_one(*store, kExpiring, "changed late", "a1b1");
  append_one(*store, kExpiring, "old", "a1b1");
  roll(*store);
  clock.advance(hours(3));
  append_one(*store, kExpiring, "changed late", "a2", EventFlags::kPartial);
  append_one(*store, kExpiring, "young", "a1b1");
  roll(*store);
  const auto keys = [&](std::string_view category) {
    std::vector<std::string> found;
    for (const auto& [offset, event] : must(read_on(files)).events)
      if (event.category == category) found.push_back(event.key);
    return found;
  };
  const CompactionReport report = compact(*store, {.dead_share_min = 0});
  REQUIRE(report.removed.size() == 1);
  CHECK(report.removed[0].category == kExpiring);
  CHECK(report.removed[0].reason == "expired");
  CHECK(report.removed[0].count == 1);
  CHECK(keys(kExpiring) == std::vector<std::string>{"changed late", "changed late", "young"});
  CHECK(read_on(files, Reading{.fold = {}, .events = {}, .end = 2}).error().code() ==
        ErrorCode::kGone);

  const std::string big(3000, 'b');
  set_policy(*store, "sized", {.retention = Retention::kExpire, .max_bytes = 15'000});
  for (int i = 0; i < 20; ++i) append_one(*store, "sized", std::to_string(i), big);
  compact(*store);
  const auto left = keys("sized");
  REQUIRE(left.size() >= 5);
  CHECK(left.size() <= 5 + 3);  // and no more than a segment's worth
  CHECK(left.back() == "19");
  check_whole(files);
}

TEST_CASE("a stream's own limits take its older events and leave its last one",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  const auto limit = [&](std::string_view key, const StreamPolicy& policy) {
    const PolicyEvent event = must(policy_event("cart", key, policy));
    const NewEvent view = event.view();
    append_all(*store, {&view, 1});
  };
  limit("counted", {.max_count = 3});
  limit("aged", {.max_age = hours(1)});
  limit("truncated", {.truncate_before = 6});
  const auto append_to = [&](std::string_view key) {
    const NewStreamEvent event{.type = "Added", .payload = "b", .metadata = {}};
    const StreamAppend stream{.stream = {"cart", key}, .expected = {}, .events = {&event, 1}};
    must(store->append_durably({.streams = {&stream, 1}, .idempotency_key = {}}));
  };
  for (int i = 0; i < 10; ++i)
    for (const char* key : {"counted", "aged", "truncated", "free"}) append_to(key);
  clock.advance(hours(2));
  roll(*store);
  compact(*store, {.dead_share_min = 0});
  std::map<std::string, std::vector<std::uint64_t>> versions;
  const auto reader =
      must(LogReader::open(kStore, {.from = {}, .categories = {"cart"}, .files = &files}));
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next())
      if (event->version) versions[std::string(event->key)].push_back(*event->version);
  CHECK(versions["counted"] == std::vector<std::uint64_t>{7, 8, 9});
  CHECK(versions["aged"] == std::vector<std::uint64_t>{9});
  CHECK(versions["truncated"] == std::vector<std::uint64_t>{6, 7, 8, 9});
  CHECK(versions["free"].size() == 10);
}

TEST_CASE("an expired category keeps the last event of each stream with versions",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policy(*store, "cart", {.retention = Retention::kExpire, .max_age = hours(1)});
  const auto append_to = [&](ExpectedVersion expected) {
    const NewStreamEvent event{.type = "Added", .payload = "b", .metadata = {}};
    const StreamAppend stream{.stream = {"cart", "9"}, .expected = expected, .events = {&event, 1}};
    return store->append_durably({.streams = {&stream, 1}, .idempotency_key = {}});
  };
  for (int i = 0; i < 5; ++i) must(append_to({}));
  roll(*store);
  clock.advance(hours(2));
  compact(*store, {.dead_share_min = 0});
  store.reset();
  store = must(EventStore::open(kStore, options_with(files, clock)));
  CHECK(append_to(ExpectedVersion::none()).error().code() == ErrorCode::kConflict);
  CHECK(must(append_to(ExpectedVersion::exact(4))).next_versions.front() == 6);
}

TEST_CASE("events without a key replace nothing", "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  for (int i = 0; i < 10; ++i) append_one(*store, kCompacted, "", "a1b1");
  roll(*store);
  CHECK(compact(*store, {.dead_share_min = 0}).rewritten.empty());
}

TEST_CASE("compaction stops when it is asked to, and keeps to its bandwidth",
          "[eventstore][compaction]") {
  FaultFs files;
  ManualClock clock;
  const auto store = must(EventStore::open(kStore, options_with(files, clock)));
  set_policies(*store);
  std::mt19937_64 random(5);
  append_random(*store, random, 60);
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = store->maintenance().compact({.stop = stop.get_token()});
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  const auto start = std::chrono::steady_clock::now();
  const CompactionReport report = compact(*store, {.bytes_per_second = 1 << 20});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(took.count() >= static_cast<double>(report.bytes_read) / (1 << 20) * 0.9);
  for (const double share : {-0.1, 1.1})
    CHECK(store->maintenance().compact({.dead_share_min = share}).error().code() ==
          ErrorCode::kInvalidArgument);
}
