#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "eventstore/inspect.h"
#include "eventstore/log/store_files.h"
#include "eventstore/policy.h"
#include "eventstore/stream_snapshots.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
constexpr std::string_view kCategory = "public.people", kKey = "the one to forget",
                           kSecret = "a most particular secret";
constexpr EntityToErase kEntity{
    .key = kKey, .tombstone_type = "Forgotten", .tombstone_payload = "nothing is left"};
constexpr EraseRequest kRequest{.category = kCategory, .entities = {&kEntity, 1}};

void append_one(EventStore& store, std::string_view category, std::string_view key,
                std::string_view payload) {
  const NewEvent event{.category = category,
                       .key = key,
                       .type = {},
                       .payload = payload,
                       .metadata = {},
                       .flags = EventFlags::kNone};
  must(store.append({}, {&event, 1}));
  store.request_flush();
  REQUIRE(must(store.wait_durable(store.appended_end(), 0, std::chrono::minutes(1))));
}

/// The entity among many others, in several segments and in the one that is being written.
void fill(EventStore& store) {
  for (int i = 0; i < 60; ++i) {
    append_one(store, kCategory, "another " + std::to_string(i), std::string(600, 'x'));
    if (i % 7 == 0) append_one(store, kCategory, kKey, kSecret);
    if (i % 9 == 0) append_one(store, "elsewhere", kKey, "of another category");
  }
  append_one(store, kCategory, kKey, kSecret);
}

StoreOptions plain_options(FileSystem& files) {
  StoreOptions options = small_options(files);
  options.compression = Compression::kNone;  // so that a test can look for bytes
  return options;
}

std::size_t files_with(FaultFs& files, std::string_view bytes) {
  std::size_t count = 0;
  for (const std::string& name : files.names(kStore / "log"))
    count += files.content(kStore / "log" / name).find(bytes) != std::string::npos;
  return count;
}

struct Seen {
  std::string category, key, payload;
  bool tombstone = false;
  bool operator==(const Seen&) const = default;
};

std::map<std::uint64_t, Seen> read_all(FileSystem& files, Offset from = {}) {
  std::map<std::uint64_t, Seen> seen;
  const auto reader =
      must(LogReader::open(kStore, {.from = from, .categories = {}, .files = &files}));
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next())
      seen[event->offset.value] = {std::string(event->category), std::string(event->key),
                                   std::string(event->payload),
                                   has(event->flags, EventFlags::kTombstone)};
  return seen;
}

bool is_entity(const Seen& seen) { return seen.category == kCategory && seen.key == kKey; }

void check_erased(FaultFs& files, const std::map<std::uint64_t, Seen>& before) {
  CHECK(files_with(files, kSecret) == 0);
  const auto after = read_all(files);
  std::size_t tombstones = 0;
  for (const auto& [offset, seen] : after) {
    if (!is_entity(seen)) {
      REQUIRE(before.at(offset) == seen);
      continue;
    }
    ++tombstones;
    CHECK(seen.tombstone);
    CHECK(seen.payload == "nothing is left");
  }
  CHECK(tombstones == 1);
  for (const auto& [offset, seen] : before)
    if (!is_entity(seen)) REQUIRE(after.contains(offset));
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
}

}  // namespace

TEST_CASE("erasing removes every byte of an entity, keeps all other offsets, and tells readers",
          "[eventstore][erase]") {
  for (const bool indexed : {false, true}) {
    CAPTURE(indexed);
    FaultFs files;
    const auto store = must(EventStore::open(kStore, plain_options(files)));
    fill(*store);
    if (indexed) must(store->run_maintenance());
    const auto before = read_all(files);
    std::uint64_t events = 0, first = 0, last = 0;
    for (const auto& [offset, seen] : before) {
      if (!is_entity(seen)) continue;
      if (events++ == 0) first = offset;
      last = offset;
    }
    CHECK(files_with(files, kSecret) > 2);
    const EraseReport report = must(store->maintenance().erase(kRequest));
    REQUIRE(report.entities.size() == 1);
    const ErasedEntity& erased = report.entities.front();
    CHECK(erased.key == kKey);
    CHECK(erased.events == events);
    CHECK(erased.bytes == events * (kKey.size() + kSecret.size()));
    CHECK(erased.first.value == first);
    CHECK(erased.last.value == last);
    CHECK(erased.tombstone.value == before.rbegin()->first + 1);
    CHECK(report.segments_rewritten > 2);
    check_erased(files, before);
    // Who had read it all learns of it by the tombstone, and nobody is told that something is gone.
    const auto news = read_all(files, {before.rbegin()->first + 1});
    REQUIRE(news.size() == 1);
    CHECK(is_entity(news.begin()->second));
    CHECK_NOTHROW(read_all(files, {first + 1}));
    // Again: nothing is left but the tombstone.
    CHECK(must(store->maintenance().erase(kRequest)).events() == 1);
    append_one(*store, kCategory, "the log", "goes on");
    CHECK(read_all(files).rbegin()->second.key == "the log");
  }
}

TEST_CASE("erasing what is not there leaves a tombstone and the files as they are",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  fill(*store);
  const EntityToErase nobody{.key = "nobody"};
  EraseRequest request{.category = kCategory, .entities = {&nobody, 1}};
  const EraseReport report = must(store->maintenance().erase(request));
  CHECK(report.events() == 0);
  CHECK(report.segments_rewritten == 0);
  CHECK(files_with(files, kSecret) > 2);
  request.category = kPolicyCategory;
  CHECK(store->maintenance().erase(request).error().code() == ErrorCode::kInvalidArgument);
  request.category = "";
  CHECK(store->maintenance().erase(request).error().code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("F42: erasing that was interrupted anywhere is finished by the next call",
          "[eventstore][erase]") {
  FaultFs files;
  fill(*must(EventStore::open(kStore, plain_options(files))));
  const auto before = read_all(files);
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    bool hit = false;
    for (const bool dies : {true, false}) {
      const auto disk = files.clone();
      auto store = must(EventStore::open(kStore, plain_options(*disk)));
      if (dies)
        disk->die_at(step);
      else
        disk->fail_at(step, ErrorCode::kNoSpace);
      const auto report = store->maintenance().erase(kRequest);
      hit = disk->fault_was_hit();
      if (report) CHECK(report->events() != 0);  // whole, or an error
      if (!hit) CHECK(report);
      if (report && !dies) {
        // Then for good, also where the segments' indexes could not be made.
        disk->clear_faults();
        disk->die_at(1);
        store.reset();
        disk->lose_power();
        disk->clear_faults();
        REQUIRE(files_with(*disk, kSecret) == 0);
      }
      store.reset();
      if (dies) disk->lose_power(step);
      disk->clear_faults();
      store = must(EventStore::open(kStore, plain_options(*disk)));
      for (const auto& [offset, seen] : read_all(*disk))
        if (before.contains(offset)) REQUIRE(before.at(offset) == seen);
      must(store->maintenance().erase(kRequest));
      check_erased(*disk, before);
    }
    if (!hit) break;
  }
}

TEST_CASE("an erased stream goes on with its versions", "[eventstore][erase]") {
  FaultFs files;
  auto store = must(EventStore::open(kStore, plain_options(files)));
  const auto append_to = [&](ExpectedVersion expected) {
    const NewStreamEvent event{.type = "Added", .payload = kSecret, .metadata = {}};
    const StreamAppend stream{
        .stream = {kCategory, kKey}, .expected = expected, .events = {&event, 1}};
    return store->append_durably({.streams = {&stream, 1}, .idempotency_key = {}});
  };
  for (int i = 0; i < 5; ++i) must(append_to({}));
  must(store->maintenance().erase(kRequest));
  CHECK(files_with(files, kSecret) == 0);
  CHECK(append_to(ExpectedVersion::exact(4)).error().code() == ErrorCode::kConflict);
  store.reset();
  store = must(EventStore::open(kStore, plain_options(files)));
  CHECK(must(append_to(ExpectedVersion::exact(5))).next_versions.front() == 7);
}

TEST_CASE("erasing beside appends removes its entity and nothing of theirs",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  fill(*store);
  std::atomic<bool> appending = true;
  // Others append all the while: what they write of others stays, in order.
  std::jthread other([&] {
    for (int i = 0; appending; ++i) append_one(*store, "others", std::to_string(i), "payload");
  });
  const EraseReport report = must(store->maintenance().erase(kRequest));
  appending = false;
  other.join();
  CHECK(report.events() > 5);
  CHECK(files_with(files, kSecret) == 0);
  std::uint64_t next = 0;
  for (const auto& [offset, seen] : read_all(files))
    if (seen.category == "others") CHECK(seen.key == std::to_string(next++));
}

namespace {

constexpr std::string_view kRetryKey = "retry of a.person@example.org";

/// An append to the entity and to another stream, which comes first.
Result<AppendResult> append_to_both(EventStore& store, std::size_t others, std::size_t bytes) {
  const std::string payload(bytes, 'o');
  const std::vector<NewStreamEvent> of_other(others, {.type = "Added", .payload = payload});
  const NewStreamEvent of_entity{.type = "Added", .payload = kSecret};
  const std::vector<StreamAppend> parts{
      {.stream = {"carts", "shared"}, .expected = {}, .events = of_other},
      {.stream = {kCategory, kKey}, .expected = {}, .events = {&of_entity, 1}}};
  return store.append_durably({.streams = parts, .idempotency_key = kRetryKey});
}

std::size_t count_of(FaultFs& files, std::string_view category) {
  std::size_t count = 0;
  for (const auto& [offset, seen] : read_all(files)) count += seen.category == category;
  return count;
}

}  // namespace

TEST_CASE("erasing takes the idempotency key of an append along, which is not made again",
          "[eventstore][erase]") {
  FaultFs files;
  auto store = must(EventStore::open(kStore, plain_options(files)));
  // One batch, or several in several segments, where the first does not hold the entity's event.
  const std::size_t others = GENERATE(1, 60);
  CAPTURE(others);
  const auto first = must(append_to_both(*store, others, 700));
  CHECK(must(append_to_both(*store, others, 700)).repeated);
  CHECK(files_with(files, kRetryKey) == 1);
  must(store->maintenance().erase(kRequest));
  CHECK(files_with(files, kRetryKey) == 0);
  CHECK(count_of(files, "carts") == others);
  const auto check_refused = [&] {
    const auto again = append_to_both(*store, others, 700);
    REQUIRE_FALSE(again);
    CHECK(again.error().code() == ErrorCode::kGone);
    CHECK(again.error().message().find("at offset " + std::to_string(first.first.value)) !=
          std::string::npos);
  };
  check_refused();
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());
  store.reset();
  const bool indexed = GENERATE(true, false);
  if (!indexed)
    for (const std::string& name : files.names(kStore / "log"))
      if (name.ends_with(".index")) files.erase(kStore / "log" / name);
  store = must(EventStore::open(kStore, plain_options(files)));
  check_refused();
  CHECK(count_of(files, "carts") == others);
  // Another key is another append.
  const NewStreamEvent event{.type = "Added", .payload = "more"};
  const StreamAppend part{.stream = {"carts", "shared"}, .expected = {}, .events = {&event, 1}};
  CHECK_FALSE(
      must(store->append_durably({.streams = {&part, 1}, .idempotency_key = "another"})).repeated);
}

TEST_CASE("of an append that wrote only what was erased nothing is known any more",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  CHECK_FALSE(must(append_to_both(*store, 0, 0)).repeated);
  must(store->maintenance().erase(kRequest));
  CHECK(files_with(files, kRetryKey) == 0);
  CHECK_FALSE(must(append_to_both(*store, 0, 0)).repeated);
}

TEST_CASE("F42: the idempotency key goes also where erasing was interrupted between its segments",
          "[eventstore][erase]") {
  FaultFs files;
  must(append_to_both(*must(EventStore::open(kStore, plain_options(files))), 60, 700));
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    const auto disk = files.clone();
    auto store = must(EventStore::open(kStore, plain_options(*disk)));
    disk->die_at(step);
    static_cast<void>(store->maintenance().erase(kRequest));
    const bool hit = disk->fault_was_hit();
    store.reset();
    disk->lose_power(step);
    disk->clear_faults();
    store = must(EventStore::open(kStore, plain_options(*disk)));
    must(store->maintenance().erase(kRequest));
    REQUIRE(files_with(*disk, kRetryKey) == 0);
    REQUIRE(files_with(*disk, kSecret) == 0);
    REQUIRE(count_of(*disk, "carts") == 60);
    REQUIRE(append_to_both(*store, 60, 700).error().code() == ErrorCode::kGone);
    if (!hit) break;
  }
}

TEST_CASE("several entities are erased at once: one segment is ended, each is rewritten once",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  fill(*store);
  const auto before = read_all(files);
  std::vector<std::string> keys;
  for (int i = 0; i < 20; ++i) keys.push_back("another " + std::to_string(i));
  keys.emplace_back("nobody");
  std::vector<EntityToErase> entities;
  for (const std::string& key : keys) entities.push_back({.key = key, .tombstone_type = "Gone"});
  const auto segments = [&] { return log::list_segments(files, log::StorePaths(kStore)); };
  const std::size_t segments_before = must(segments()).size();
  const EraseReport report =
      must(store->maintenance().erase({.category = kCategory, .entities = entities}));
  CHECK(must(segments()).size() <= segments_before + 2);  // the tombstones' own may be one
  CHECK(report.segments_rewritten < segments_before);
  CHECK(report.events() == 20);
  REQUIRE(report.entities.size() == keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const ErasedEntity& entity = report.entities[i];
    CHECK(entity.key == keys[i]);
    CHECK(entity.tombstone.value == before.size() + i);
    CHECK(entity.events == (keys[i] == "nobody" ? 0 : 1));
    if (entity.events != 0) CHECK(before.at(entity.first.value).key == keys[i]);
  }
  for (const auto& [offset, seen] : read_all(files)) {
    const auto erased = std::find(keys.begin(), keys.end(), seen.key);
    if (erased != keys.end() && seen.category == kCategory) CHECK(seen.tombstone);
    if (erased == keys.end()) CHECK(before.at(offset) == seen);
  }
  CHECK(must(verify_store(kStore, {}, files)).faults.empty());

  const auto refused = [&](std::span<const EntityToErase> wanted) {
    const auto end = store->appended_end();
    const Error error =
        store->maintenance().erase({.category = kCategory, .entities = wanted}).error();
    CHECK(store->appended_end() == end);
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    return error.message();
  };
  CHECK(refused({}) == "1 to 1000 keys are erased at once, not 0");
  CHECK(refused(std::vector<EntityToErase>(kErasedAtOnceMax + 1)) ==
        "1 to 1000 keys are erased at once, not 1001");
  entities.push_back(entities.front());
  CHECK(refused(entities) == "the key another 0 is named twice");
}

TEST_CASE("F3: what an interrupted save of a snapshot left goes with erasing, and with the opening",
          "[eventstore][erase]") {
  const bool erases = GENERATE(true, false);
  const StreamName entity{.category = kCategory, .key = kKey};
  std::size_t leftovers = 0;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    FaultFs files;
    auto store = must(EventStore::open(kStore, plain_options(files)));
    const StreamSnapshots snapshots(kStore, store->id(), files);
    must(snapshots.save({"carts", "b"}, {.version = 0, .offset = {}, .state = "of another"}));
    files.die_at(step);
    const auto saved =
        snapshots.save(entity, {.version = 0, .offset = {}, .state = std::string(kSecret)});
    const bool hit = files.fault_was_hit();
    store.reset();
    files.kill_processes();
    files.clear_faults();
    const auto names_left = [&] {
      const auto names = files.names(kStore / "snapshots");
      return std::count_if(names.begin(), names.end(),
                           [](const auto& name) { return name.ends_with(".tmp"); });
    };
    leftovers += static_cast<std::size_t>(names_left());
    store = must(EventStore::open(kStore, plain_options(files)));
    if (erases)
      must(store->maintenance().erase(kRequest));
    else
      must(store->run_maintenance());
    CHECK(names_left() == 0);
    if (erases)
      for (const std::string& name : files.names(kStore / "snapshots"))
        CHECK(files.content(kStore / "snapshots" / name).find(kSecret) == std::string::npos);
    CHECK(must(snapshots.load({"carts", "b"}, 0)));
    if (!hit) {
      CHECK(saved);
      break;
    }
  }
  CHECK(leftovers > 1);
}

TEST_CASE("an erasure that is stopped tells what went, and another one does the rest",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  fill(*store);
  const auto before = read_all(files);
  const auto events = static_cast<std::uint64_t>(std::count_if(
      before.begin(), before.end(), [](const auto& one) { return is_entity(one.second); }));
  std::stop_source stop;
  EraseReport so_far;
  EraseOptions options;
  options.stop = stop.get_token();
  options.so_far = [&](const EraseReport& report) {
    so_far = report;
    stop.request_stop();
  };
  CHECK(store->maintenance().erase(kRequest, options).error().code() == ErrorCode::kCancelled);
  CHECK(so_far.segments_rewritten == 1);
  const std::uint64_t left = [&] {
    std::uint64_t count = 0;
    for (const auto& [offset, seen] : read_all(files)) count += is_entity(seen);
    return count;
  }();
  CHECK(left == events - so_far.events() + 1);  // the tombstone
  const EraseReport report = together(so_far, must(store->maintenance().erase(kRequest)));
  CHECK(report.events() == events + 1);
  CHECK(report.entities[0].first == so_far.entities[0].first);
  check_erased(files, before);
  // Nothing is begun for one that gave up before its turn came.
  const Offset end = store->appended_end();
  CHECK(store->maintenance().erase(kRequest, options).error().code() == ErrorCode::kCancelled);
  CHECK(store->appended_end() == end);
}
