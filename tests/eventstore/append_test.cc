#include <atomic>
#include <map>
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

/// One event to one stream.
Result<AppendResult> append_one(EventStore& store, std::string_view key, ExpectedVersion expected,
                                std::string_view payload = "p", std::string_view id = {}) {
  const NewStreamEvent event{.type = "Happened", .payload = payload, .metadata = {}};
  const StreamAppend part{.stream = {"cart", key}, .expected = expected, .events = {&event, 1}};
  return store.append_durably({.streams = {&part, 1}, .idempotency_key = id});
}

struct Versioned {
  std::string stream, payload;
  std::uint64_t version = 0;
  bool operator==(const Versioned&) const = default;
};

/// All events with a version, in the order of the log.
std::vector<Versioned> read_versions(FileSystem& files) {
  std::vector<Versioned> events;
  const auto reader =
      must(LogReader::open(kStore, {.from = {}, .categories = {}, .files = &files}));
  while (Batch* batch = must(reader->next())) {
    while (const EventView* event = batch->next())
      if (event->version)
        events.push_back({std::string(event->category) + "/" + std::string(event->key),
                          std::string(event->payload), *event->version});
    must(batch->status());
  }
  return events;
}

std::string message_of(const Result<AppendResult>& result) {
  return result ? "appended" : result.error().message();
}

}  // namespace

TEST_CASE("events of a stream get versions from 0, also across segments and a reopening",
          "[eventstore][append]") {
  FaultFs files;
  for (int opening = 0; opening < 3; ++opening) {
    const auto store = must(open_small(files));
    for (int i = 0; i < 40; ++i) {
      const std::string key = std::to_string(i % 4);
      const auto result =
          must(append_one(*store, key, ExpectedVersion::any(), std::string(500, 'x')));
      CHECK(result.next_versions ==
            std::vector<std::uint64_t>{static_cast<std::uint64_t>(opening * 10 + i / 4 + 1)});
      CHECK(result.end.value == result.first.value + 1);
    }
  }
  CHECK(files.names(kStore / "log").size() > 2);
  std::map<std::string, std::uint64_t> next;
  for (const Versioned& event : read_versions(files)) CHECK(event.version == next[event.stream]++);
  CHECK(next.size() == 4);
}

TEST_CASE("an append that expects another version is a conflict and adds nothing",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  CHECK(message_of(append_one(*store, "a", ExpectedVersion::exact(0))) ==
        "stream cart/a has no events, not at version 0");
  must(append_one(*store, "a", ExpectedVersion::none()));
  must(append_one(*store, "a", ExpectedVersion::exact(0)));
  CHECK(message_of(append_one(*store, "a", ExpectedVersion::none())) ==
        "stream cart/a is at version 1, not new");
  CHECK(message_of(append_one(*store, "a", ExpectedVersion::exact(0))) ==
        "stream cart/a is at version 1, not at version 0");
  CHECK(message_of(append_one(*store, "a", ExpectedVersion::exact(2))) ==
        "stream cart/a is at version 1, not at version 2");
  CHECK(append_one(*store, "a", ExpectedVersion::exact(~std::uint64_t{0})).error().code() ==
        ErrorCode::kConflict);
  CHECK(store->appended_end().value == 2);
  must(append_one(*store, "a", ExpectedVersion::exact(1)));
  CHECK(read_versions(files).size() == 3);
}

TEST_CASE("an append to several streams happens whole or not at all", "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  const std::vector<NewStreamEvent> two{{.type = "A", .payload = "1", .metadata = {}},
                                        {.type = "B", .payload = "2", .metadata = {}}};
  must(append_one(*store, "b", ExpectedVersion::none(), "0"));
  std::vector<StreamAppend> parts{
      {.stream = {"cart", "a"}, .expected = ExpectedVersion::none(), .events = two},
      {.stream = {"cart", "c"}, .expected = ExpectedVersion::none(), .events = {}},
      {.stream = {"cart", "b"}, .expected = ExpectedVersion::exact(1), .events = two}};
  CHECK(store->append_durably({.streams = parts, .idempotency_key = {}}).error().code() ==
        ErrorCode::kConflict);
  CHECK(store->appended_end().value == 1);
  parts[2].expected = ExpectedVersion::exact(0);
  const auto result = must(store->append_durably({.streams = parts, .idempotency_key = {}}));
  CHECK(result.next_versions == std::vector<std::uint64_t>{2, 0, 3});
  CHECK(result.first.value == 1);
  CHECK(result.end.value == 5);
  CHECK(read_versions(files) == std::vector<Versioned>{{"cart/b", "0", 0},
                                                       {"cart/a", "1", 0},
                                                       {"cart/a", "2", 1},
                                                       {"cart/b", "1", 1},
                                                       {"cart/b", "2", 2}});
}

TEST_CASE("an append with an idempotency key gives its first result when it is repeated",
          "[eventstore][append]") {
  FaultFs files;
  AppendResult first;
  {
    const auto store = must(open_small(files));
    must(append_one(*store, "a", ExpectedVersion::any()));
    first = must(append_one(*store, "a", ExpectedVersion::exact(0), "once", "key 1"));
    CHECK_FALSE(first.repeated);
    must(append_one(*store, "a", ExpectedVersion::any()));
  }
  const auto check_repeated = [&](EventStore& store) {
    const auto again = must(append_one(store, "a", ExpectedVersion::exact(0), "once", "key 1"));
    CHECK(again.repeated);
    CHECK(again.first == first.first);
    CHECK(again.end == first.end);
    CHECK(again.next_versions == first.next_versions);
    const auto other = append_one(store, "b", ExpectedVersion::any(), "once", "key 1");
    REQUIRE_FALSE(other);
    CHECK(other.error().code() == ErrorCode::kInvalidArgument);
    CHECK(other.error().message() ==
          "idempotency key key 1 was used for an append to other streams, at offset 1");
  };
  {
    const auto store = must(open_small(files));
    check_repeated(*store);
  }
  files.lose_power();
  const auto store = must(open_small(files));
  check_repeated(*store);
  CHECK(store->appended_end().value == 3);
}

TEST_CASE("appends from other threads find a place beside an open transaction",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  must(store->begin({}));
  const NewEvent small{.category = "t", .key = "1", .type = {}, .payload = "open", .metadata = {}};
  must(store->add(small));
  CHECK(append_one(*store, "a", ExpectedVersion::any()).error().code() ==
        ErrorCode::kFailedPrecondition);
  std::thread other([&] {
    const auto result = append_one(*store, "a", ExpectedVersion::any());
    if (!result || result->first.value != 0) std::terminate();
  });
  other.join();
  CHECK(must(store->commit(0)).value == 2);

  // A transaction that is partly on its way already comes first, whole.
  must(store->begin({}));
  const std::string large(300'000, 'x');
  for (int i = 0; i < 4; ++i)
    must(store->add({.category = "t", .key = "2", .type = {}, .payload = large, .metadata = {}}));
  std::atomic<std::uint64_t> place = 0;
  std::thread waiting([&] {
    const auto result = append_one(*store, "a", ExpectedVersion::exact(0));
    place = result ? result->first.value : 1'000;
  });
  for (int i = 0; i < 4; ++i)
    must(store->add({.category = "t", .key = "2", .type = {}, .payload = large, .metadata = {}}));
  CHECK(must(store->commit(0)).value == 10);
  waiting.join();
  CHECK(place == 10);

  // And one that is taken back leaves no hole.
  must(store->begin({}));
  for (int i = 0; i < 8; ++i)
    must(store->add({.category = "t", .key = "3", .type = {}, .payload = large, .metadata = {}}));
  std::thread after([&] {
    const auto result = append_one(*store, "a", ExpectedVersion::exact(1));
    place = result ? result->first.value : 1'000;
  });
  must(store->rollback());
  after.join();
  CHECK(place == 11);
  const auto events = read_versions(files);
  REQUIRE(events.size() == 3);
  CHECK(events.back().version == 2);
}

TEST_CASE("of many threads that append with the version they saw, each gets its own",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  std::atomic<int> conflicts = 0, failures = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&] {
      std::uint64_t next = 0;
      for (int done = 0; done < 25;) {
        const auto expected =
            next == 0 ? ExpectedVersion::none() : ExpectedVersion::exact(next - 1);
        const auto result = append_one(*store, "one", expected);
        if (result) {
          next = result->next_versions[0];
          ++done;
        } else if (result.error().code() == ErrorCode::kConflict) {
          ++next, ++conflicts;
        } else {
          ++failures;
          return;
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  const auto events = read_versions(files);
  REQUIRE(events.size() == 100);
  for (std::size_t i = 0; i < events.size(); ++i) CHECK(events[i].version == i);
}

TEST_CASE("streams may have any bytes in their keys, and payloads from nothing to 64 MiB",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  for (const std::string& key : {every_byte, std::string(), std::string("/"), std::string("a/b"),
                                 std::string("../x"), std::string("\0a", 2)}) {
    must(append_one(*store, key, ExpectedVersion::none(), ""));
    CHECK(must(append_one(*store, key, ExpectedVersion::exact(0))).next_versions[0] == 2);
  }
  must(append_one(*store, "large", ExpectedVersion::none(), std::string(64 << 20, 'x')));
  const auto events = read_versions(files);
  CHECK(events.size() == 13);
  CHECK(events.back().payload.size() == 64 << 20);
}

TEST_CASE("an append over a limit is refused with the limit, and nothing is added",
          "[eventstore][append]") {
  FaultFs files;
  const auto store = must(open_small(files));
  const NewStreamEvent event{.type = "T", .payload = "p", .metadata = {}};
  const auto error_of = [&](const StreamAppend& part, std::string_view id = {}) {
    const auto result = store->append_durably({.streams = {&part, 1}, .idempotency_key = id});
    REQUIRE_FALSE(result);
    CHECK(result.error().code() == ErrorCode::kInvalidArgument);
    return result.error().message();
  };
  const std::string long_category(1025, 'c'), long_key((1 << 20) + 1, 'k'), long_id(257, 'i');
  const std::string huge((256u << 20) + 1, 'h');
  CHECK(error_of({.stream = {"", "k"}, .expected = {}, .events = {&event, 1}}) ==
        "a category has 1 to 1024 bytes, not 0");
  CHECK(error_of({.stream = {long_category, "k"}, .expected = {}, .events = {&event, 1}}) ==
        "a category has 1 to 1024 bytes, not 1025");
  CHECK(error_of({.stream = {"c", long_key}, .expected = {}, .events = {&event, 1}}) ==
        "a key has at most 1048576 bytes, not 1048577");
  CHECK(error_of({.stream = {"c", "k"}, .expected = {}, .events = {&event, 1}}, long_id) ==
        "an idempotency key has at most 256 bytes, not 257");
  CHECK(error_of({.stream = {"c", "k"}, .expected = {}, .events = {}}) ==
        "an append has at least one event");
  const NewStreamEvent untyped{.type = {}, .payload = "p", .metadata = {}};
  CHECK(error_of({.stream = {"c", "k"}, .expected = {}, .events = {&untyped, 1}}) ==
        "an event of stream c/k has no type");
  const NewStreamEvent large{.type = "T", .payload = huge, .metadata = {}};
  CHECK(error_of({.stream = {"c", "k"}, .expected = {}, .events = {&large, 1}}) ==
        "the events of one append have at most 268435456 bytes together, not 268435460");
  const std::vector<StreamAppend> twice(
      2, {.stream = {"c", "k"}, .expected = {}, .events = {&event, 1}});
  CHECK(store->append_durably({.streams = twice, .idempotency_key = {}}).error().message() ==
        "an append names each stream once");
  CHECK(store->appended_end().value == 0);
}

TEST_CASE("F16 F17 F19: an append that failed is there once when it is repeated with its key",
          "[eventstore][append][fault]") {
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace}) {
    bool passed = false;
    for (std::uint64_t at = 1; !passed; ++at) {
      FaultFs files;
      std::uint64_t acknowledged = 0;
      {
        const auto store = must(open_small(files));
        must(append_one(*store, "a", ExpectedVersion::none()));
        files.fail_at(at, code);
        for (std::uint64_t version = 1; version < 40; ++version) {
          const auto result = append_one(*store, "a", ExpectedVersion::exact(version - 1),
                                         std::string(600, 'x'), "key " + std::to_string(version));
          if (!result) break;
          acknowledged = version;
        }
        passed = !files.fault_was_hit();
        files.clear_faults();
      }
      files.lose_power();
      const auto store = must(open_small(files));
      const auto events = read_versions(files);
      REQUIRE(events.size() >= acknowledged + 1);
      REQUIRE(events.size() <= acknowledged + 2);  // what failed may have been written all the same
      const auto again = must(append_one(*store, "a", ExpectedVersion::any(), "x",
                                         "key " + std::to_string(acknowledged + 1)));
      CHECK(again.next_versions[0] == acknowledged + 2);
      CHECK(again.repeated == (events.size() == acknowledged + 2));
      CHECK(read_versions(files).size() == acknowledged + 2);
    }
  }
}
