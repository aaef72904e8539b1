#include <atomic>
#include <functional>
#include <thread>

#include "eventstore/consumers.h"
#include "eventstore/inspect.h"
#include "eventstore/log/store_files.h"
#include "eventstore/policy.h"
#include "eventstore/store_snapshot.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store", kCopy = "/copy", kRestored = "/restored";

History fill(FaultFs& files, std::uint64_t from, std::uint64_t to) {
  const auto store = must(EventStore::open(kStore, small_options(files)));
  for (std::uint64_t number = from; number <= to; ++number)
    must(append_durably(*store, sample_transaction(number, number % 5 == 0 ? 300 : number % 4)));
  return read_history(kStore, files);
}

StoreCopyReport snapshot(FaultFs& files, const Path& to = kCopy) {
  const auto store = must(EventStore::open(kStore, small_options(files)));
  return must(store->maintenance().snapshot(to));
}

void check_restores(FaultFs& files, const History& expected, const Path& from = kCopy) {
  must(restore_store(from, kRestored, files));
  CHECK(read_history(kRestored, files) == expected);
  CHECK(must(verify_store(kRestored, {}, files)).faults.empty());
}

}  // namespace

TEST_CASE("a snapshot holds the store as it was, and restores to one that goes on",
          "[eventstore][snapshot]") {
  for (const bool links : {true, false}) {
    CAPTURE(links);
    FaultFs files;
    const History then = fill(files, 1, 14);
    files.allow_links(links);
    files.set_content(kStore / "schemas", "what events refer to");
    {
      const auto store = must(EventStore::open(kStore, small_options(files)));
      must(store->run_maintenance());
      must(store->maintenance().register_consumer("view", Offset{7}, ConsumerPolicy::kHold));
      const StoreCopyReport report = must(store->maintenance().snapshot(kCopy));
      CHECK(report.end == store->durable_end());
      CHECK(report.segments > 3);
      CHECK((report.linked > 3) == links);
    }
    const History later = fill(files, 15, 20);
    REQUIRE(later.size() > then.size());
    CHECK(read_history(kCopy, files) == then);  // can be read as it is
    check_restores(files, then);
    CHECK(files.content(kRestored / "schemas") == "what events refer to");
    CHECK(must(find_consumer(kRestored, "view", files)).offset.value == 7);
    CHECK_FALSE(must(files.exists(kRestored / "snapshot.json")));
    {
      const auto store = must(EventStore::open(kRestored, small_options(files)));
      must(append_durably(*store, sample_transaction(100, 3)));
    }
    CHECK(read_history(kRestored, files).size() == then.size() + 1);
    CHECK(read_history(kStore, files) == later);
    CHECK(read_history(kCopy, files) == then);
  }
}

TEST_CASE("a snapshot stays what it is when a power loss takes back what mode os only wrote",
          "[eventstore][snapshot]") {
  FaultFs files;
  StoreOptions options = small_options(files);
  options.durability = Durability::kOs;
  options.os_sync_interval = std::chrono::hours(1);
  auto store = must(EventStore::open(kStore, options));
  must(append_durably(*store, sample_transaction(1, 5)));
  // It ends in a segment that is not synced: without its end recovery goes back to the first one.
  must(append_durably(*store, sample_transaction(2, 300)));
  REQUIRE(files.names(kStore / "log").size() > 2);
  const History then = read_history(kStore, files);
  must(store->maintenance().snapshot(kCopy));
  files.die_at(1);
  store.reset();
  files.lose_power();
  const auto size_before = files.content(kCopy / "log" / files.names(kCopy / "log").front()).size();
  store = must(EventStore::open(kStore, options));
  CHECK(read_history(kStore, files).size() < then.size());
  CHECK(files.content(kCopy / "log" / files.names(kCopy / "log").front()).size() == size_before);
  check_restores(files, then);
}

TEST_CASE("a snapshot is valid at any moment, beside appends and compaction",
          "[eventstore][snapshot]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  const PolicyEvent policy = must(
      policy_event("public.table0", CategoryPolicy{.retention = Retention::kCompact,
                                                   .tombstone_grace = std::chrono::seconds(0)}));
  const NewEvent view = policy.view();
  must(store->append({}, {&view, 1}));
  std::atomic<bool> done = false;
  std::atomic<int> copies = 0;
  // So much beside each copy at most: a copy takes as long as the store is large.
  constexpr std::uint64_t kBesideEach = 100;
  std::jthread appender([&] {
    for (std::uint64_t number = 1; !done; ++number) {
      for (int seen = copies; !done && number > kBesideEach * (1U + seen); seen = copies)
        copies.wait(seen);
      StoredTransaction transaction = sample_transaction(number, 1 + number % 40);
      for (StoredEvent& event : transaction.events) event.key = "key" + event.key.substr(0, 1);
      must(append_durably(*store, transaction));
    }
  });
  std::jthread compactor([&] {  // one beside each copy: without a pause it would keep others out
    for (int seen = 0; !done; copies.wait(seen), seen = copies)
      must(store->maintenance().compact({.dead_share_min = 0}));
  });
  const auto copied = [&] {
    ++copies;
    copies.notify_all();
  };
  struct Ends {
    std::function<void()> end;
    ~Ends() { end(); }
  } const ends{[&] {
    done = true;
    copied();
  }};
  for (int i = 0; i < 12; ++i) {
    const Path to = "/copy" + std::to_string(i), restored = "/restored" + std::to_string(i);
    const Offset before = store->durable_end();
    const StoreCopyReport report = must(store->maintenance().snapshot(to));
    CHECK(report.end >= before);
    must(restore_store(to, restored, files));
    CHECK(must(summarize_store(restored, files)).durable_end == report.end);
    copied();
  }
}

TEST_CASE(
    "F43: a crash or a full disk at each step of a snapshot leaves the store and no false copy",
    "[eventstore][snapshot]") {
  FaultFs files;
  const History then = fill(files, 1, 12);
  bool failed = false;
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    bool hit = false;
    for (const bool dies : {true, false}) {
      const auto disk = files.clone();
      auto store = must(EventStore::open(kStore, small_options(*disk)));
      if (dies)
        disk->die_at(step);
      else
        disk->fail_at(step, ErrorCode::kNoSpace);
      const auto report = store->maintenance().snapshot(kCopy);
      hit = disk->fault_was_hit();
      CHECK(report.has_value() == !hit);
      store.reset();
      if (dies) disk->lose_power(step);
      disk->clear_faults();
      CHECK(read_history(kStore, *disk) == then);
      const auto restored = restore_store(kCopy, kRestored, *disk);
      failed = failed || !restored;
      if (!hit) REQUIRE(restored);
      if (restored) CHECK(read_history(kRestored, *disk) == then);
      if (!restored) CHECK(must(disk->exists(kRestored)) == false);
      snapshot(*disk, "/another");  // nothing is in its way
    }
    if (!hit) break;
  }
  CHECK(failed);
}

TEST_CASE("a restore that is interrupted leaves nothing that looks like a store",
          "[eventstore][snapshot]") {
  FaultFs files;
  const History then = fill(files, 1, 8);
  snapshot(files);
  for (std::uint64_t step = 1;; ++step) {
    CAPTURE(step);
    const auto disk = files.clone();
    disk->die_at(step);
    const auto restored = restore_store(kCopy, kRestored, *disk);
    const bool hit = disk->fault_was_hit();
    disk->lose_power(step);
    const auto opened =
        LogReader::open(kRestored, {.from = {}, .categories = {}, .files = disk.get()});
    if (opened) CHECK(read_history(kRestored, *disk) == then);
    if (restored) CHECK(opened);
    CHECK(read_history(kCopy, *disk) == then);
    if (!hit) break;
  }
}

TEST_CASE("F43, B30, B31: a damaged, cut, mixed or foreign snapshot is refused",
          "[eventstore][snapshot]") {
  FaultFs files;
  fill(files, 1, 6);
  snapshot(files);
  const auto refused = [&](FaultFs& disk) {
    const auto restored = restore_store(kCopy, kRestored, disk);
    if (restored) return false;
    CHECK((restored.error().code() == ErrorCode::kCorruption ||
           restored.error().code() == ErrorCode::kNotFound ||
           restored.error().code() == ErrorCode::kUnsupported ||
           restored.error().code() == ErrorCode::kFailedPrecondition));
    CHECK_FALSE(must(disk.exists(kRestored)));
    return true;
  };
  const auto segments = must(log::list_segments(files, log::StorePaths(kCopy)));
  std::vector<Path> parts{kCopy / "store.json", kCopy / "snapshot.json"};
  for (const auto segment : segments) parts.push_back(log::StorePaths(kCopy).segment(segment));
  for (const Path& part : parts) {
    CAPTURE(part);
    const std::string good = files.content(part);
    const auto disk = files.clone();
    for (std::size_t at = 0; at < good.size(); at += 1 + good.size() / 64) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 0x10);
      disk->set_content(part, std::move(bad));
      const auto restored = restore_store(kCopy, kRestored, *disk);
      // A time in a small file is no part of the log.
      if (restored) CHECK(part.extension() == ".json");
      if (restored) break;
      disk->set_content(part, good.substr(0, at));
      CHECK(refused(*disk));
    }
    const auto without = files.clone();
    without->erase(part);
    CHECK(refused(*without));
  }
  // One that ends elsewhere: the last segment of an older or newer one.
  fill(files, 7, 30);
  const auto disk = files.clone();
  disk->set_content(log::StorePaths(kCopy).segment(segments.back()),
                    files.content(log::StorePaths(kStore).segment(segments.back())));
  CHECK(refused(*disk));
  // Of another store.
  const auto other = files.clone();
  other->set_content(kCopy / "store.json", [&] {
    std::string text = files.content(kCopy / "store.json");
    const std::size_t id = text.find("\"id\": \"") + 7;
    text[id] = text[id] == 'a' ? 'b' : 'a';
    return text;
  }());
  CHECK(refused(*other));
  CHECK(restore_store("/nowhere", kRestored, files).error().code() == ErrorCode::kNotFound);
  CHECK(restore_store(kStore, kRestored, files).error().code() == ErrorCode::kNotFound);
}

TEST_CASE("neither a snapshot nor a restore writes into a folder with something in it",
          "[eventstore][snapshot]") {
  FaultFs files;
  fill(files, 1, 4);
  must(files.make_directory("/full"));
  files.set_content("/full/file", "mine");
  const auto store = must(EventStore::open(kStore, small_options(files)));
  CHECK(store->maintenance().snapshot("/full").error().code() == ErrorCode::kFailedPrecondition);
  CHECK(store->maintenance().snapshot(kStore).error().code() == ErrorCode::kFailedPrecondition);
  must(files.make_directory("/empty"));
  must(store->maintenance().snapshot("/empty"));
  CHECK(restore_store("/empty", "/full", files).error().code() == ErrorCode::kFailedPrecondition);
  CHECK(files.names("/full") == std::vector<std::string>{"file"});
  CHECK(files.content("/full/file") == "mine");
}

TEST_CASE("F37: a copy that was made file by file while a writer wrote is a prefix, or refused",
          "[eventstore][snapshot]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  constexpr std::uint64_t kCopies = 40, kPerCopy = 6;
  std::atomic<std::uint64_t> allowed = 0;  // transactions: so many are written beside each copy
  std::jthread appender([&] {
    for (std::uint64_t number = 1; number <= kCopies * kPerCopy; ++number) {
      for (std::uint64_t now = allowed; now < number; now = allowed) allowed.wait(now);
      must(append_durably(*store, sample_transaction(number, 1 + number % 60)));
    }
  });
  int prefixes = 0;
  for (std::uint64_t i = 0; i < kCopies; ++i) {
    allowed += kPerCopy;
    allowed.notify_one();
    const Path copy = "/hot" + std::to_string(i);
    must(files.make_directory(copy));
    must(files.make_directory(copy / "log"));
    for (const std::string& name : files.names(kStore))
      if (name != "log" && name != "LOCK" && name != "consumers")
        files.set_content(copy / name, files.content(kStore / name));
    for (const std::string& name : files.names(kStore / "log"))
      if (!name.ends_with(".tmp"))
        files.set_content(copy / "log" / name, files.content(kStore / "log" / name));
    const auto opened = EventStore::open(copy, small_options(files));
    if (!opened) {
      CHECK(opened.error().code() == ErrorCode::kCorruption);
      continue;
    }
    ++prefixes;
    // What the copy found written is on its way to be durable in the store, too.
    REQUIRE(must(store->wait_durable((*opened)->durable_end(), 0, std::chrono::minutes(1))));
    CHECK(is_prefix(read_history(copy, files), read_history(kStore, files)));
  }
  CHECK(prefixes > 0);
}

TEST_CASE("F42: an index that is damaged or missing is made anew by restoring, which says so",
          "[eventstore][snapshot]") {
  FaultFs files;
  const History then = fill(files, 1, 14);
  must(must(EventStore::open(kStore, small_options(files)))->run_maintenance());
  snapshot(files);
  const log::StorePaths copy(kCopy);
  const auto segments = must(log::list_segments(files, copy));
  REQUIRE(segments.size() > 3);
  const std::string good = files.content(copy.index(segments[1]));
  std::string bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 0x10);
  files.set_content(copy.index(segments[0]), "");
  files.set_content(copy.index(segments[1]), bad);
  files.erase(copy.index(segments[2]));
  const RestoreReport report = must(restore_store(kCopy, kRestored, files));
  CHECK(report.indexes_made == std::vector{log::StorePaths::index_name(segments[0]),
                                           log::StorePaths::index_name(segments[1]),
                                           log::StorePaths::index_name(segments[2])});
  CHECK(files.content(log::StorePaths(kRestored).index(segments[1])) == good);
  CHECK(read_history(kRestored, files) == then);
  CHECK(must(verify_store(kRestored, {}, files)).faults.empty());
}

TEST_CASE("restoring tells how far it is, up to the end", "[eventstore][snapshot]") {
  FaultFs files;
  fill(files, 1, 14);
  snapshot(files);
  MaintenanceProgress last;
  must(restore_store(kCopy, kRestored, files, [&](const MaintenanceProgress& now) {
    CHECK(now.done_bytes >= last.done_bytes);
    CHECK(now.done_bytes <= now.total_bytes);
    last = now;
  }));
  CHECK(last.done_bytes > 0);
  CHECK(last.done_bytes == last.total_bytes);
}

TEST_CASE("a snapshot that is stopped leaves nothing that is in the way of another one",
          "[eventstore][snapshot]") {
  FaultFs files;
  files.allow_links(GENERATE(true, false));
  const History then = fill(files, 1, 14);
  const auto store = must(EventStore::open(kStore, small_options(files)));
  must(store->run_maintenance());
  must(store->maintenance().register_consumer("view", Offset{7}, ConsumerPolicy::kHold));
  std::uint64_t calls = 0;
  for (std::uint64_t stop_at = 1;; ++stop_at) {
    std::stop_source stop;
    CopyOptions options;
    options.stop = stop.get_token();
    options.progress = [&, call = std::uint64_t{0}](const MaintenanceProgress&) mutable {
      if (++call == stop_at) stop.request_stop();
      calls = call;
    };
    const auto report = store->maintenance().snapshot(kCopy, options);
    if (report) break;
    CHECK(report.error().code() == ErrorCode::kCancelled);
    for (const std::string& name : files.names(kCopy)) CHECK(files.names(kCopy / name).empty());
  }
  CHECK(calls > 5);
  check_restores(files, then);
}

TEST_CASE("a folder that is missing above a copy is named, with what to do", "[snapshot]") {
  const TemporaryDirectory directory;
  const auto store = must(EventStore::open(directory / "store"));
  const auto report = store->maintenance().snapshot(directory / "missing/copy");
  REQUIRE_FALSE(report);
  CHECK(report.error().code() == ErrorCode::kNotFound);
  CHECK(report.error().hint() ==
        "Make that one first: mkdir -p " + (directory / "missing").string());
}
