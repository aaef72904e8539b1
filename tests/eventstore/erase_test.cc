#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "eventstore/inspect.h"
#include "eventstore/log/store_files.h"
#include "eventstore/policy.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
constexpr std::string_view kCategory = "public.people", kKey = "the one to forget",
                           kSecret = "a most particular secret";
constexpr EraseRequest kRequest{.category = kCategory,
                                .key = kKey,
                                .tombstone_type = "Forgotten",
                                .tombstone_payload = "nothing is left"};

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
      must(LogReader::open(kStore, {.from = from, .category = {}, .files = &files}));
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
    CHECK(report.events == events);
    CHECK(report.bytes == events * (kKey.size() + kSecret.size()));
    CHECK(report.first.value == first);
    CHECK(report.last.value == last);
    CHECK(report.tombstone.value == before.rbegin()->first + 1);
    CHECK(report.segments_rewritten > 2);
    check_erased(files, before);
    // Who had read it all learns of it by the tombstone, and nobody is told that something is gone.
    const auto news = read_all(files, {before.rbegin()->first + 1});
    REQUIRE(news.size() == 1);
    CHECK(is_entity(news.begin()->second));
    CHECK_NOTHROW(read_all(files, {first + 1}));
    // Again: nothing is left but the tombstone.
    CHECK(must(store->maintenance().erase(kRequest)).events == 1);
    append_one(*store, kCategory, "the log", "goes on");
    CHECK(read_all(files).rbegin()->second.key == "the log");
  }
}

TEST_CASE("erasing what is not there leaves a tombstone and the files as they are",
          "[eventstore][erase]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, plain_options(files)));
  fill(*store);
  EraseRequest request = kRequest;
  request.key = "nobody";
  const EraseReport report = must(store->maintenance().erase(request));
  CHECK(report.events == 0);
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
      if (report) CHECK(report->events != 0);  // whole, or an error
      if (!hit) CHECK(report);
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
  CHECK(report.events > 5);
  CHECK(files_with(files, kSecret) == 0);
  std::uint64_t next = 0;
  for (const auto& [offset, seen] : read_all(files))
    if (seen.category == "others") CHECK(seen.key == std::to_string(next++));
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
  CHECK(left == events - so_far.events + 1);  // the tombstone
  const EraseReport report = joined(so_far, must(store->maintenance().erase(kRequest)));
  CHECK(report.events == events + 1);
  CHECK(report.first == so_far.first);
  check_erased(files, before);
  // Nothing is begun for one that gave up before its turn came.
  const Offset end = store->appended_end();
  CHECK(store->maintenance().erase(kRequest, options).error().code() == ErrorCode::kCancelled);
  CHECK(store->appended_end() == end);
}
