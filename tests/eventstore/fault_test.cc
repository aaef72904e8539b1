#include <chrono>

#include "eventstore/inspect.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

/// Appends transactions until one fails; counts those that were acknowledged as durable.
struct Run {
  History written;  // handed to the store, the last one perhaps in vain
  std::size_t acknowledged = 0;
  std::optional<Error> error;
};

/// A little of everything: small and large transactions, empty ones, rollbacks of both kinds,
/// rolls.
void run_workload(FileSystem& files, Run& run, std::uint64_t seed, std::size_t steps) {
  std::mt19937_64 random(seed);
  auto store = EventStore::open(kStore, small_options(files));
  if (!store) return run.error = store.error(), void();
  for (std::size_t i = 0; i < steps; ++i) {
    const std::uint64_t number = run.written.size() + 1;
    const std::size_t events = random() % 4 == 0 ? random() % 200 : random() % 8;
    const StoredTransaction transaction = sample_transaction(number, events, 20 + random() % 100);
    if (random() % 6 == 0) {
      Result<void> done = (*store)->begin({.source = {1, transaction.commit, 0},
                                           .source_xid = 0,
                                           .commit_time = {},
                                           .snapshot = false});
      for (const StoredEvent& event : transaction.events)
        if (done) done = (*store)->add(event.view());
      if (done) done = (*store)->rollback();
      if (!done) return run.error = done.error(), void();
      continue;
    }
    run.written.push_back(transaction);
    const bool wait = random() % 3 != 0;
    const Result<void> done =
        wait ? append_durably(**store, transaction) : append(**store, transaction);
    if (!done) return run.error = done.error(), void();
    if (wait) run.acknowledged = run.written.size();
  }
}

/// Transactions without events are invisible to readers.
History visible(const History& history, std::size_t count) {
  History seen;
  for (std::size_t i = 0; i < count; ++i)
    if (!history[i].events.empty()) seen.push_back(history[i]);
  return seen;
}

/// Everything acknowledged is there, nothing else than what was handed over, and the store works
/// on.
void check_recovered(FaultFs& files, const Run& run) {
  std::size_t survived = 0;
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    if (const auto source = store->durable_source()) survived = source->commit / 10;
    REQUIRE(survived >= run.acknowledged);
    REQUIRE(survived <= run.written.size());
    REQUIRE(read_history(kStore, files) == visible(run.written, survived));
    must(append_durably(*store, sample_transaction(survived + 1, 3)));
  }
  const auto report = must(verify_store(kStore, {}, files));
  REQUIRE(report.faults.empty());
  REQUIRE(report.torn_tail_bytes == 0);
  History expected = visible(run.written, survived);
  expected.push_back(sample_transaction(survived + 1, 3));
  REQUIRE(read_history(kStore, files) == expected);
}

}  // namespace

TEST_CASE("F16, F19: every operation fails once, nothing acknowledged is lost",
          "[eventstore][faults]") {
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace}) {
    for (std::uint64_t number = 1;; ++number) {
      FaultFs files;
      files.fail_at(number, code);
      Run run;
      run_workload(files, run, 7, 40);
      const bool hit = files.fault_was_hit();
      REQUIRE(files.syncs_after_failed_sync() == 0);
      if (run.error && hit) REQUIRE(run.error->code() == code);
      files.clear_faults();
      SECTION("the process ends, the machine lives on") { files.kill_processes(); }
      SECTION("and the machine goes down, too") { files.lose_power(number); }
      check_recovered(files, run);
      if (!hit) {
        REQUIRE(number > 50);
        break;
      }
    }
  }
}

TEST_CASE("F17: a failed sync poisons the store and is never asked again", "[eventstore][faults]") {
  for (std::uint64_t number = 1;; ++number) {
    FaultFs files;
    files.fail_sync_at(number);
    Run run;
    run_workload(files, run, 11, 40);
    const bool hit = files.fault_was_hit();
    REQUIRE(files.syncs_after_failed_sync() == 0);
    // Reading gives what the page cache still has, though it never reached the disk (F126). After
    // the restart it counts as durable only because recovery wrote it again: so power may now go.
    files.kill_processes();
    std::size_t survived = 0;
    {
      const auto store = must(EventStore::open(kStore, small_options(files)));
      if (const auto source = store->durable_source()) survived = source->commit / 10;
    }
    REQUIRE(survived >= run.acknowledged);
    run.acknowledged = survived;
    files.lose_power();
    check_recovered(files, run);
    if (!hit) {
      REQUIRE(number > 20);
      break;
    }
  }
}

TEST_CASE(
    "F17, F126: a failed sync of each kind, then a kill, then the power: nothing acknowledged goes",
    "[eventstore][faults]") {
  for (const SyncFailure how : {SyncFailure::kNewStays, SyncFailure::kOldReturns})
    for (std::uint64_t number = 1;; ++number) {
      FaultFs files;
      files.fail_sync_at(number, how);
      Run run;
      run_workload(files, run, 13, 30);
      const bool hit = files.fault_was_hit();
      REQUIRE(files.syncs_after_failed_sync() == 0);
      files.kill_processes();
      must(EventStore::open(kStore, small_options(files)));
      files.lose_power();
      check_recovered(files, run);
      if (!hit) break;
    }
}

TEST_CASE("F17: a sync that succeeds and fails later costs nothing that nobody can tell",
          "[eventstore][faults]") {
  for (const SyncFailure how : {SyncFailure::kLate, SyncFailure::kLie})
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(number);
      FaultFs files;
      files.fail_sync_at(number, how);
      Run run;
      run_workload(files, run, 17, 30);
      const bool hit = files.fault_was_hit();
      if (how == SyncFailure::kLate && hit && run.error) {
        // As long as the machine lives, the kernel still shows it.
        files.kill_processes();
        const auto store = must(EventStore::open(kStore, small_options(files)));
        const auto source = store->durable_source();
        REQUIRE((source ? source->commit / 10 : 0) >= run.acknowledged);
      }
      files.lose_power();
      // The disk lied, so something may be gone; whatever is given is whole and was written.
      std::optional<Error> error;
      const History read = read_history(kStore, files, &error);
      REQUIRE(is_prefix(read, visible(run.written, run.written.size())));
      if (!hit) break;
    }
}

TEST_CASE("F124: recovery meets every error at every step, and the next one gets through",
          "[eventstore][faults]") {
  // A torn transaction of many segments, so that recovery removes, cuts and writes.
  FaultFs disk;
  {
    const auto store = must(EventStore::open(kStore, small_options(disk)));
    must(append_durably(*store, sample_transaction(1, 4)));
    must(append_durably(*store, sample_transaction(2, 250, 100)));
  }
  disk.lose_power();
  disk.erase(kStore / "HEAD");
  const Path last = kStore / "log" / disk.names(kStore / "log").back();
  disk.set_content(last, disk.content(last).substr(0, disk.content(last).size() - 8));
  const History expected{sample_transaction(1, 4)};
  const auto check_next = [&](FaultFs& files) {
    files.clear_faults();
    files.set_space_left(std::nullopt);
    must(EventStore::open(kStore, small_options(files)));
    REQUIRE(read_history(kStore, files) == expected);
  };
  const auto fails_to_open = [](FaultFs& files) -> std::optional<ErrorCode> {
    const auto opened = EventStore::open(kStore, small_options(files));
    if (opened) return std::nullopt;
    return opened.error().code();
  };
  for (const ErrorCode code : {ErrorCode::kIo, ErrorCode::kNoSpace})
    for (std::uint64_t number = 1;; ++number) {
      const auto files = disk.clone();
      files->fail_at(number, code);
      const auto failed = fails_to_open(*files);
      if (!files->fault_was_hit()) break;
      if (failed) REQUIRE(*failed == code);
      check_next(*files);
    }
  for (std::uint64_t number = 1;; ++number) {
    const auto files = disk.clone();
    files->fail_read_at(number);
    const auto failed = fails_to_open(*files);
    if (!files->fault_was_hit()) break;
    if (failed) REQUIRE(*failed == ErrorCode::kIo);
    check_next(*files);
  }
  for (std::uint64_t space = 0; space < 300; space += 7) {
    const auto files = disk.clone();
    files->set_space_left(space);
    const auto failed = fails_to_open(*files);
    if (failed) REQUIRE(*failed == ErrorCode::kNoSpace);
    check_next(*files);
  }
}

TEST_CASE("a poisoned store answers every call with the first error", "[eventstore][faults]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  must(append_durably(*store, sample_transaction(1, 2)));
  files.fail_sync_at(1);
  const std::string first = append_durably(*store, sample_transaction(2, 2)).error().message();
  CHECK(store->begin({}).error().message() == first);
  CHECK(store->add({.category = "c", .key = "", .type = "", .payload = "", .metadata = ""})
            .error()
            .message() == first);
  CHECK(store->commit(0).error().message() == first);
  CHECK(store->rollback().error().message() == first);
  CHECK(store->append({}, {}).error().message() == first);
  CHECK(store->wait_durable({4}, 0, std::chrono::hours(1)).error().message() == first);
  CHECK(store->status().error().message() == first);
  CHECK(must(store->wait_durable({2}, 15, std::chrono::hours(1))));  // what was durable still is
  CHECK(store->wait_room(std::chrono::hours(1)));                    // nobody waits for ever
  CHECK(read_history(kStore, files) == History{sample_transaction(1, 2)});
}

TEST_CASE("F22, F41: power goes at every step and all that was not synced is gone",
          "[eventstore][faults]") {
  for (std::uint64_t number = 1;; ++number) {
    FaultFs files;
    files.die_at(number);
    Run run;
    run_workload(files, run, 3, 40);
    const bool hit = files.fault_was_hit();
    files.lose_power();
    check_recovered(files, run);
    if (!hit) break;
  }
}

TEST_CASE("F1, F2: the process dies at every step and the machine lives on",
          "[eventstore][faults]") {
  for (std::uint64_t number = 1;; ++number) {
    FaultFs files;
    files.die_at(number);
    Run run;
    run_workload(files, run, 5, 40);
    const bool hit = files.fault_was_hit();
    files.kill_processes();
    check_recovered(files, run);
    if (!hit) break;
  }
}

TEST_CASE("F22, F23, F26, F27: power goes at random and a random part of what was not synced stays",
          "[eventstore][faults]") {
  // To see one seed again, start here.
  for (std::uint64_t seed = 1; seed <= 1500; ++seed) {
    CAPTURE(seed);
    FaultFs files;
    std::mt19937_64 random(seed);
    files.die_at(1 + random() % 150);
    Run run;
    run_workload(files, run, seed, 30);
    files.lose_power(seed);
    // Once more, in the middle of recovery and of what follows.
    files.die_at(1 + random() % 12);
    static_cast<void>(EventStore::open(kStore, small_options(files)).has_value());
    files.lose_power(seed + 1);
    check_recovered(files, run);
  }
}

TEST_CASE("F28: whichever removals and new names a power loss keeps, nothing acknowledged goes",
          "[eventstore][faults]") {
  // A transaction of several segments without its end: opening removes them, and then others get
  // their names.
  const History durable{sample_transaction(1, 5), sample_transaction(2, 5)};
  const StoredTransaction next = sample_transaction(3, 300, 90);
  FaultFs torn;
  {
    auto store = must(EventStore::open(kStore, small_options(torn)));
    for (const StoredTransaction& transaction : durable) must(append_durably(*store, transaction));
    must(store->begin({.source = {1, 30, 0}, .source_xid = 0, .commit_time = {}}));
    // The store writes what is pending when it finds the time.
    const StoredTransaction open = sample_transaction(3, 900, 70);
    for (int rounds = 0; rounds < 100 && torn.names(kStore / "log").size() < 4; ++rounds)
      for (const StoredEvent& event : open.events) must(store->add(event.view()));
    torn.die_at(1);
    store.reset();
    torn.kill_processes();
  }
  REQUIRE(torn.names(kStore / "log").size() >= 4);
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    for (std::uint64_t number = 1;; ++number) {
      CAPTURE(seed, number);
      const auto files = torn.clone();
      files->die_at(number);
      bool is_acknowledged = false;
      if (auto store = EventStore::open(kStore, small_options(*files)))
        is_acknowledged = append_durably(**store, next).has_value();
      const bool hit = files->fault_was_hit();
      files->lose_power(CrashPolicy::kReordered, seed * 1000 + number);
      const History read = read_history(kStore, *files);
      REQUIRE(is_prefix(durable, read));
      REQUIRE((read.size() == 3 || (read.size() == 2 && !is_acknowledged)));
      if (read.size() == 2)
        must(append_durably(*must(EventStore::open(kStore, small_options(*files))), next));
      REQUIRE(read_history(kStore, *files) == History{durable[0], durable[1], next});
      REQUIRE(must(verify_store(kStore, {}, *files)).faults.empty());
      if (!hit) break;
    }
  }
}

TEST_CASE("F26: the name of a store that was made at the second attempt is durable",
          "[eventstore][faults]") {
  FaultFs files;
  files.fail_at(2, ErrorCode::kIo);  // the folder is made, the sync of its name fails
  CHECK(EventStore::open(kStore, small_options(files)).error().code() == ErrorCode::kIo);
  {
    const auto store = must(EventStore::open(kStore, small_options(files)));
    must(append_durably(*store, sample_transaction(1, 2)));
  }
  files.lose_power();
  CHECK(read_history(kStore, files) == History{sample_transaction(1, 2)});
}

TEST_CASE("F37: a copy taken while the writer runs opens as a prefix of it",
          "[eventstore][faults]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, small_options(files)));
  History written;
  for (std::uint64_t number = 1; number <= 30; ++number) {
    written.push_back(sample_transaction(number, 1 + number % 30, 100));
    must(append_durably(*store, written.back()));
    const auto copy = files.clone();
    copy->lose_power();  // another machine: locks and HEAD mean nothing there
    {
      const auto copied = must(EventStore::open(kStore, small_options(*copy)));
      CHECK(copied->durable_source()->commit == number * 10);
    }
    CHECK(read_history(kStore, *copy) == written);
  }
}

TEST_CASE("F37: a copied HEAD of the same machine is not trusted", "[eventstore][faults]") {
  const TemporaryDirectory folder;
  FileSystem& files = FileSystem::real();
  const auto store = must(EventStore::open(folder / "store", small_options(files)));
  must(append_durably(*store, sample_transaction(1, 2)));
  std::filesystem::copy(folder / "store", folder / "copy",
                        std::filesystem::copy_options::recursive);
  must(append_durably(*store, sample_transaction(2, 2)));
  // The copied segment is behind; had HEAD been copied later, it would promise more than there is.
  std::filesystem::copy_file(folder / "store" / "HEAD", folder / "copy" / "HEAD",
                             std::filesystem::copy_options::overwrite_existing);
  const auto copy = must(EventStore::open(folder / "copy", small_options(files)));
  CHECK(copy->durable_end().value == 2);
  CHECK(read_history(folder / "copy", files) == History{sample_transaction(1, 2)});
}
