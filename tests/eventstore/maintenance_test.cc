#include "eventstore/log/maintenance.h"

#include <algorithm>
#include <thread>

#include "base/bytes.h"
#include "eventstore/inspect.h"
#include "eventstore/log/segment_index.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::log;
using namespace millrace::test;

namespace {

const Path kStore = "/store";
const StorePaths kPaths{kStore};

std::unique_ptr<EventStore> open(FaultFs& files) {
  return must(EventStore::open(kStore, small_options(files)));
}

History append_some(EventStore& store, std::uint64_t first, std::uint64_t last) {
  History history;
  for (std::uint64_t number = first; number <= last; ++number) {
    history.push_back(sample_transaction(number, 20, 100));
    must(append_durably(store, history.back()));
  }
  return history;
}

/// What the index of a sealed segment must be.
std::string built(FaultFs& files, const StoreId& id, std::uint64_t segment) {
  auto reader = must(SegmentReader::open(files, kPaths, id, segment));
  return must(SegmentIndex::build(reader));
}

std::vector<std::uint64_t> sealed(FaultFs& files) {
  auto segments = must(list_segments(files, kPaths));
  segments.pop_back();
  return segments;
}

std::vector<std::uint64_t> indexed(FaultFs& files) {
  std::vector<std::uint64_t> segments;
  for (const std::string& name : files.names(kPaths.log()))
    if (const auto segment = StorePaths::parse_index_name(name)) segments.push_back(*segment);
  return segments;
}

/// Each sealed segment has its index, nothing else has one.
void check_indexes(FaultFs& files, const StoreId& id) {
  REQUIRE(indexed(files) == sealed(files));
  for (const std::uint64_t segment : sealed(files))
    REQUIRE(files.content(kPaths.index(segment)) == built(files, id, segment));
}

}  // namespace

TEST_CASE("maintenance gives each sealed segment its index, and does nothing twice",
          "[eventstore][maintenance]") {
  FaultFs files;
  const auto store = open(files);
  append_some(*store, 1, 12);
  REQUIRE(sealed(files).size() >= 2);
  CHECK(indexed(files).empty());
  must(store->run_maintenance());
  check_indexes(files, store->id());
  const std::uint64_t syncs = files.syncs();
  must(store->run_maintenance());
  CHECK(files.syncs() == syncs);
  append_some(*store, 13, 30);
  REQUIRE(sealed(files).size() > indexed(files).size());
  must(store->run_maintenance());
  check_indexes(files, store->id());
}

TEST_CASE("F34, F30: an index that is missing or damaged at opening is made anew",
          "[eventstore][maintenance]") {
  FaultFs files;
  {
    const auto store = open(files);
    append_some(*store, 1, 30);
    must(store->run_maintenance());
  }
  const auto segments = sealed(files);
  REQUIRE(segments.size() >= 4);
  files.erase(kPaths.index(segments[0]));
  std::string bytes = files.content(kPaths.index(segments[1]));
  bytes[40] ^= 4;
  files.set_content(kPaths.index(segments[1]), bytes);
  files.set_content(kPaths.index(segments[2]), files.content(kPaths.index(segments[3])));
  const auto store = open(files);
  must(store->run_maintenance());
  check_indexes(files, store->id());
}

TEST_CASE("opening removes what no segment needs: indexes of others, and half-made ones",
          "[eventstore][maintenance]") {
  FaultFs files;
  {
    const auto store = open(files);
    append_some(*store, 1, 12);
    must(store->run_maintenance());
  }
  const auto before = files.names(kPaths.log());
  const std::uint64_t active = must(list_segments(files, kPaths)).back();
  const std::string index = files.content(kPaths.index(0));
  files.set_content(kPaths.index(active), index);
  files.set_content(kPaths.index(12'345'678), index);
  files.set_content(kPaths.log() / (StorePaths::index_name(0) + ".tmp"), index.substr(0, 100));
  const auto store = open(files);
  CHECK(files.names(kPaths.log()) == before);
  files.set_content(kPaths.log() / "notes.index", "somebody else's");
  const auto report = must(verify_store(kStore, {}, files));
  CHECK(report.faults.empty());
  CHECK(files.content(kPaths.log() / "notes.index") == "somebody else's");
}

TEST_CASE(
    "F41: a crash at any step of making indexes leaves a store that opens, and no wrong index",
    "[eventstore][maintenance]") {
  for (const bool power : {false, true}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(power, number);
      FaultFs files;
      History written;
      bool hit = false;
      {
        const auto store = open(files);
        written = append_some(*store, 1, 20);
        files.die_at(number);
        const bool done = store->run_maintenance().has_value();
        hit = files.fault_was_hit();
        CHECK(done == !hit);
        files.die_at(1);  // nothing more, so that closing changes nothing
      }
      power ? files.lose_power(number) : files.kill_processes();
      const auto store = open(files);
      CHECK(read_history(kStore, files) == written);
      for (const std::uint64_t segment : indexed(files))
        CHECK(files.content(kPaths.index(segment)) == built(files, store->id(), segment));
      for (const std::string& name : files.names(kPaths.log())) CHECK_FALSE(name.ends_with(".tmp"));
      must(store->run_maintenance());
      check_indexes(files, store->id());
      if (!hit) break;
    }
  }
}

TEST_CASE("F16, F19: what fails in maintenance is told, done later, and never the store's concern",
          "[eventstore][maintenance]") {
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace}) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(number);
      FaultFs files;
      const auto store = open(files);
      History written = append_some(*store, 1, 12);
      files.fail_at(number, code);
      const auto failed = store->run_maintenance();
      const bool hit = files.fault_was_hit();
      files.clear_faults();
      CHECK(failed.has_value() == !hit);
      if (!failed) CHECK(failed.error().code() == code);
      must(store->status());
      const History more = append_some(*store, 13, 24);
      written.insert(written.end(), more.begin(), more.end());
      must(store->run_maintenance());
      check_indexes(files, store->id());
      CHECK(read_history(kStore, files) == written);
      if (!hit) break;
    }
  }
}

TEST_CASE("a damaged segment gets no index, the others get theirs", "[eventstore][maintenance]") {
  FaultFs files;
  {
    const auto store = open(files);
    append_some(*store, 1, 20);
  }
  const auto segments = sealed(files);
  std::string bytes = files.content(kPaths.segment(segments[1]));
  bytes[bytes.size() / 2] ^= 1;
  files.set_content(kPaths.segment(segments[1]), bytes);
  const auto store = open(files);
  CHECK(store->run_maintenance().error().code() == ErrorCode::kCorruption);
  CHECK(indexed(files).size() == segments.size() - 1);
  must(store->run_maintenance());  // told once
  append_some(*store, 21, 22);
}

TEST_CASE("segments that an open transaction may still take back get no index",
          "[eventstore][maintenance]") {
  FaultFs files;
  const auto store = open(files);
  append_some(*store, 1, 1);
  must(store->begin({.source = {1, 20, 0}, .source_xid = 1, .commit_time = {}, .snapshot = false}));
  for (const StoredEvent& event : sample_transaction(2, 1000, 100).events)
    must(store->add(event.view()));
  REQUIRE(sealed(files).size() > 3);
  must(store->run_maintenance());
  CHECK(indexed(files).empty());
  must(store->rollback());
  append_some(*store, 3, 12);
  must(store->run_maintenance());
  check_indexes(files, store->id());
}

TEST_CASE("the background thread makes indexes as segments are sealed, and after opening",
          "[eventstore][maintenance]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.background_maintenance = true;
  const auto wait_for_indexes = [&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (indexed(files) != sealed(files) && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
  };
  {
    const auto store = must(EventStore::open(kStore, options));
    append_some(*store, 1, 30);
    wait_for_indexes();
    check_indexes(files, store->id());
  }
  for (const std::uint64_t segment : sealed(files)) files.erase(kPaths.index(segment));
  const auto store = must(EventStore::open(kStore, options));
  wait_for_indexes();
  check_indexes(files, store->id());
}

TEST_CASE("a store closes at any moment of its maintenance", "[eventstore][maintenance]") {
  FaultFs files;
  History written;
  StoreOptions options = small_options(files);
  options.background_maintenance = true;
  for (std::uint64_t round = 0; round < 30; ++round) {
    const auto store = must(EventStore::open(kStore, options));
    const History more = append_some(*store, round * 5 + 1, round * 5 + 5);
    written.insert(written.end(), more.begin(), more.end());
  }
  CHECK(read_history(kStore, files) == written);
}
