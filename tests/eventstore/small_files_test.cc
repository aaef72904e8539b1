#include <algorithm>
#include <functional>

#include "eventstore/consumers.h"
#include "eventstore/inspect.h"
#include "eventstore/log/checked_json.h"
#include "eventstore/log/store_files.h"
#include "eventstore/repair.h"
#include "eventstore/scrub_report.h"
#include "eventstore/store_snapshot.h"
#include "eventstore/stream_snapshots.h"
#include "tests/support/store_fixture.h"

// The files beside the log: whatever bit of them is wrong, and wherever they are cut, nobody
// believes what they then say.

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store", kCopy = "/copy", kRestored = "/restored";

struct Fixture {
  Fixture() {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    for (std::uint64_t number = 1; number <= 4; ++number)
      must(append_durably(*store, sample_transaction(number, 100)));
  }
  FaultFs files;
};

/// The file with each bit flipped, with each byte 0 or 255, and cut at each byte; then as it was.
void damage_everywhere(FaultFs& files, const Path& path,
                       const std::function<void(const std::string& bad)>& look) {
  const std::string good = files.content(path);
  const auto with = [&](std::size_t at, char byte) {
    std::string bad = good;
    bad[at] = byte;
    if (bad == good) return;
    CAPTURE(path, at, byte);
    files.set_content(path, bad);
    look(bad);
  };
  REQUIRE_FALSE(good.empty());
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) with(at, static_cast<char>(good[at] ^ (1 << bit)));
    with(at, '\0');
    with(at, '\xff');
  }
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(path, size);
    files.set_content(path, good.substr(0, size));
    look(good.substr(0, size));
  }
  files.set_content(path, good);
}

Consumer busy_consumer() {
  return {
      .name = "view",
      .offset = {1234},
      .policy = ConsumerPolicy::kLose,
      .updated = {5'678'901},
      .lost = {
          {.category = "a\nb\xff", .reason = "expired", .first = {17}, .last = {99}, .count = 12}}};
}

ScrubReport sample_report() {
  return {.pass_began = {1'700'000'000'000'000},
          .next = {4711},
          .completed = UnixMicros{1'600'000'000'000'000},
          .faults = {{.file = "log/00000000000000000000.log",
                      .position = 4096,
                      .what = "payload checksum",
                      .found = {1'650'000'000'000'000}}}};
}

}  // namespace

TEST_CASE("F29, F30: a consumer's file that is wrong or cut anywhere is damaged, not believed",
          "[eventstore][small-files]") {
  Fixture one;
  ConsumerFiles consumers(one.files, kStore);
  must(consumers.write(busy_consumer()));
  damage_everywhere(one.files, kStore / "consumers/view", [&](const std::string&) {
    const auto found = find_consumer(kStore, "view", one.files);
    REQUIRE_FALSE(found);
    REQUIRE(found.error().code() == ErrorCode::kCorruption);
    // The way out of it, which the error's hint names.
    REQUIRE(found.error().hint().find("--remove") != std::string::npos);
    REQUIRE_FALSE(list_consumers(kStore, one.files));
    REQUIRE(open_consumer(kStore, "view", one.files).error().code() == ErrorCode::kCorruption);
  });
  const Consumer back = must(find_consumer(kStore, "view", one.files));
  CHECK(back.offset.value == 1234);
  CHECK(back.lost.at(0).category == "a\nb\xff");
  one.files.set_content(kStore / "consumers/view", "damaged");
  must(consumers.remove("view"));
  CHECK(must(list_consumers(kStore, one.files)).empty());
}

TEST_CASE("B23: a consumer's file with a right checksum and nonsense in it is damaged",
          "[eventstore][small-files]") {
  Fixture one;
  must(one.files.make_directory(kStore / "consumers"));
  const auto with = [&](const std::string& offset, const std::string& rest) {
    one.files.set_content(kStore / "consumers/view",
                          log::with_checksum("{\n  \"offset\": " + offset + ",\n" + rest + "\n}"));
    return find_consumer(kStore, "view", one.files);
  };
  const std::string rest = R"("policy": "hold", "updated": 1, "lost": [])";
  CHECK(must(with("18446744073709551615", rest)).offset.value == ~std::uint64_t{0});
  for (const char* offset : {"-1", "1.5", "1e30", "1e400", "\"7\"", "null", "[7]", "true", ""})
    CHECK(with(offset, rest).error().code() == ErrorCode::kCorruption);
  for (const char* other :
       {R"("policy": "hold", "updated": 1)", R"("policy": "keep", "updated": 1, "lost": [])",
        R"("policy": "hold", "updated": "1", "lost": [])",
        R"("policy": "hold", "updated": 1, "lost": [{"category_hex": "6"}])",
        R"("policy": "hold", "updated": 1, "lost": [7]), "x": {)"})
    CHECK(with("7", other).error().code() == ErrorCode::kCorruption);
}

TEST_CASE("F29, F30: a scrub's note that is wrong or cut anywhere is none",
          "[eventstore][small-files]") {
  Fixture one;
  must(write_scrub_report(kStore, sample_report(), one.files));
  damage_everywhere(one.files, kStore / "scrub.json", [&](const std::string&) {
    REQUIRE_FALSE(must(read_scrub_report(kStore, one.files)));
  });
  const auto back = must(read_scrub_report(kStore, one.files));
  REQUIRE(back);
  CHECK(back->next.value == 4711);
  CHECK(back->faults.at(0).what == "payload checksum");
}

TEST_CASE(
    "F29, F30: a snapshot whose snapshot.json or store.json is wrong or cut anywhere is "
    "refused, or restored as it was",
    "[eventstore][small-files]") {
  Fixture one;
  {
    const auto store = must(EventStore::open(kStore, small_options(one.files)));
    must(store->maintenance().snapshot(kCopy));
  }
  const History written = read_history(kStore, one.files);
  const StoreId id = must(read_store_id(kStore, one.files));
  for (const char* name : {"snapshot.json", "store.json"}) {
    std::size_t restored_ones = 0;
    damage_everywhere(one.files, kCopy / name, [&](const std::string&) {
      const auto restored = restore_store(kCopy, kRestored, one.files);
      if (!restored) {
        const ErrorCode code = restored.error().code();
        REQUIRE((code == ErrorCode::kCorruption || code == ErrorCode::kUnsupported));
        REQUIRE_FALSE(must(one.files.exists(kRestored)));
        return;
      }
      // In a time, or between two words.
      ++restored_ones;
      REQUIRE(must(read_store_id(kRestored, one.files)) == id);
      REQUIRE(read_history(kRestored, one.files) == written);
      one.files.erase_tree(kRestored);
    });
    CHECK(restored_ones < one.files.content(kCopy / name).size() * 5);
  }
}

TEST_CASE("F29, F30: whatever the mark of a repair says, no writer opens the store",
          "[eventstore][small-files]") {
  Fixture one;
  one.files.set_content(kStore / "REPAIR", "20260101T000000Z\n");
  const auto look = [&] {
    const auto opened = EventStore::open(kStore, small_options(one.files));
    REQUIRE_FALSE(opened);
    REQUIRE(opened.error().code() == ErrorCode::kFailedPrecondition);
    REQUIRE(opened.error().hint().find("log repair") != std::string::npos);
    REQUIRE(must(plan_repair(kStore, one.files)).interrupted);
  };
  damage_everywhere(one.files, kStore / "REPAIR", [&](const std::string&) { look(); });
  // B31: nor is it a path.
  one.files.set_content(kStore / "REPAIR", "../../elsewhere\n");
  look();
  const Repair repair = must(repair_store(kStore, one.files));
  CHECK(repair.kept.parent_path() == kStore / "repair");
  CHECK_FALSE(must(one.files.exists(kStore / "REPAIR")));
  CHECK(EventStore::open(kStore, small_options(one.files)));
}

TEST_CASE("F30: who holds a store is only told to people, whatever LOCK says",
          "[eventstore][small-files]") {
  Fixture one;
  one.files.set_content(kStore / "LOCK", "pid 1, somebody");
  damage_everywhere(one.files, kStore / "LOCK", [&](const std::string&) {
    REQUIRE(EventStore::open(kStore, small_options(one.files)));
  });
}

TEST_CASE("B31: a name is never a path", "[eventstore][small-files]") {
  Fixture one;
  one.files.set_content("/outside", "mine");
  const auto store = must(EventStore::open(kStore, small_options(one.files)));
  auto& maintenance = store->maintenance();
  must(maintenance.register_consumer("good", Offset{0}, ConsumerPolicy::kHold));
  const auto before = one.files.contents();
  for (const std::string& name :
       {std::string("../x"), std::string("../../outside"), std::string("/outside"), std::string(),
        std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3),
        std::string("a\nb"), std::string("-rf"), std::string("%2e%2e%2foutside"),
        std::string("view.tmp"), std::string(101, 'a'), std::string("\xff\xfe")}) {
    CAPTURE(name);
    CHECK(maintenance.register_consumer(name, Offset{0}, ConsumerPolicy::kHold).error().code() ==
          ErrorCode::kInvalidArgument);
    CHECK(find_consumer(kStore, name, one.files).error().code() == ErrorCode::kInvalidArgument);
    CHECK(open_consumer(kStore, name, one.files).error().code() == ErrorCode::kInvalidArgument);
    CHECK_FALSE(maintenance.advance_consumer(name, Offset{1}));
    CHECK_FALSE(maintenance.remove_consumer(name));
  }
  CHECK(one.files.contents() == before);
  // Nor are those of streams: of these snapshots are kept.
  const StreamSnapshots snapshots(kStore, store->id(), one.files);
  for (const std::string name : {"../x", "/outside", "..", ""}) {
    const StreamName stream{name, name};
    must(snapshots.save(stream, {.version = 1, .offset = {1}, .fingerprint = 2, .state = name}));
    CHECK(must(snapshots.load(stream, 2))->state == name);
  }
  for (const auto& [path, bytes] : one.files.contents())
    CHECK((before.contains(path) || path.starts_with("/store/snapshots/")));
  CHECK(one.files.content("/outside") == "mine");
}

TEST_CASE(
    "F16, F19, F22: a small file is the old or the new one, whatever fails while it is "
    "written",
    "[eventstore][small-files]") {
  enum class Fault { kNoSpace, kIo, kPower };
  const Fault fault = GENERATE(Fault::kNoSpace, Fault::kIo, Fault::kPower);
  const bool is_consumer = GENERATE(true, false);
  Consumer consumer = busy_consumer();
  ScrubReport report = sample_report();
  // Each step of writing it for the first time, and of writing it again.
  for (const std::uint64_t before : {std::uint64_t{0}, std::uint64_t{1000}}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(before, number);
      Fixture one;
      const auto write = [&](std::uint64_t offset) {
        consumer.offset = report.next = {offset};
        return is_consumer ? ConsumerFiles(one.files, kStore).write(consumer)
                           : write_scrub_report(kStore, report, one.files);
      };
      const auto read = [&]() -> std::uint64_t {
        if (!is_consumer) {
          const auto found = must(read_scrub_report(kStore, one.files));
          return found ? found->next.value : 0;
        }
        const auto found = find_consumer(kStore, "view", one.files);
        if (!found) REQUIRE(found.error().code() == ErrorCode::kNotFound);
        return found ? found->offset.value : 0;
      };
      if (before != 0) must(write(before));
      if (fault == Fault::kPower)
        one.files.die_at(number);
      else
        one.files.fail_at(number, fault == Fault::kIo ? ErrorCode::kIo : ErrorCode::kNoSpace);
      const auto written = write(2000);
      const bool hit = one.files.fault_was_hit();
      REQUIRE(written.has_value() == !hit);
      one.files.clear_faults();
      if (fault == Fault::kPower) one.files.lose_power(number);
      const std::uint64_t found = read();
      REQUIRE((found == 2000 || (hit && found == before)));
      // With room again the next one gets through, and stays.
      must(write(3000));
      one.files.lose_power();
      REQUIRE(read() == 3000);
      if (!hit) break;
      REQUIRE(number < 50);
    }
  }
}

TEST_CASE("a checksum is of every byte before it", "[eventstore][small-files]") {
  const std::string file = log::with_checksum("{\n  \"a\": 1\n}");
  CHECK(file.starts_with("{\n  \"a\": 1,\n  \"checksum\": \""));
  CHECK(log::has_right_checksum(file));
  CHECK_FALSE(log::has_right_checksum(""));
  CHECK_FALSE(log::has_right_checksum("\"\n}\n"));
  CHECK_FALSE(log::has_right_checksum(file + "\n"));
  CHECK_FALSE(log::has_right_checksum("{\n  \"a\": 1\n}\n"));
}
