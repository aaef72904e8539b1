#include <chrono>

#include "eventstore/inspect.h"
#include "eventstore/log/head.h"
#include "eventstore/policy.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

const Path kStore = "/store";

StoreOptions options_with(FaultFs& files, Durability durability,
                          std::chrono::milliseconds os_sync_interval = std::chrono::hours(1)) {
  StoreOptions options = small_options(files);
  options.durability = durability;
  options.os_sync_interval = os_sync_interval;
  options.background_maintenance = false;
  return options;
}

log::PublishedHead head_of(FaultFs& files) {
  return log::decode_head(files.content(kStore / "HEAD")).value();
}

/// Ends when HEAD says that everything is synced.
void wait_until_synced(FaultFs& files, const EventStore& store) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (head_of(files).synced.end < store.durable_end()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::yield();
  }
}

struct Run {
  History written;
  std::size_t acknowledged = 0;
};

/// Transactions until one fails; every third is not waited for.
void run_workload(const StoreOptions& options, std::uint64_t seed, Run& run) {
  std::mt19937_64 random(seed);
  auto store = EventStore::open(kStore, options);
  if (!store) return;
  for (std::uint64_t number = 1; number <= 30; ++number) {
    const std::size_t events = random() % 5 == 0 ? 40 + random() % 100 : 1 + random() % 8;
    run.written.push_back(sample_transaction(number, events, 20 + random() % 100));
    const bool wait = random() % 3 != 0;
    if (!(wait ? append_durably(**store, run.written.back()) : append(**store, run.written.back())))
      return;
    if (wait) run.acknowledged = run.written.size();
  }
}

/// How many of `history` end at or below `end`.
std::size_t whole_below(const History& history, Offset end) {
  std::uint64_t offset = 0;
  std::size_t count = 0;
  for (; count < history.size(); ++count) {
    offset += history[count].events.size();
    if (offset > end.value) break;
  }
  return count;
}

/// The store opens, holds at least `least` transactions, no other and all whole, and goes on.
void check_recovered(FaultFs& files, const Run& run, std::size_t least) {
  std::size_t survived = 0;
  {
    const auto store = must(EventStore::open(kStore, options_with(files, Durability::kGroup)));
    const History history = read_history(kStore, files);
    survived = history.size();
    REQUIRE(survived >= least);
    REQUIRE(is_prefix(history, run.written));
    must(append_durably(*store, sample_transaction(survived + 1, 3)));
  }
  REQUIRE(read_history(kStore, files).size() == survived + 1);
  REQUIRE(must(verify_store(kStore, {}, files)).faults.empty());
}

constexpr CrashPolicy kPolicies[] = {
    CrashPolicy::kNothing,   CrashPolicy::kEverything, CrashPolicy::kPrefix,  CrashPolicy::kSectors,
    CrashPolicy::kReordered, CrashPolicy::kNamesOnly,  CrashPolicy::kDataOnly};

}  // namespace

TEST_CASE("the names of the durability modes are read as they are written",
          "[eventstore][durability]") {
  for (const Durability mode : {Durability::kGroup, Durability::kAlways, Durability::kOs})
    CHECK(durability_named(name_of(mode)) == mode);
  CHECK_FALSE(durability_named("never"));
  CHECK_FALSE(durability_named(""));
}

TEST_CASE("HEAD and the summary tell the mode of the last writer", "[eventstore][durability]") {
  FaultFs files;
  for (const Durability mode : {Durability::kOs, Durability::kAlways, Durability::kGroup}) {
    const auto store = must(EventStore::open(kStore, options_with(files, mode)));
    CHECK(must(summarize_store(kStore, files)).durability == mode);
    CHECK(head_of(files).durability == mode);
  }
  files.erase(kStore / "HEAD");
  CHECK_FALSE(must(summarize_store(kStore, files)).durability);
}

TEST_CASE("always: a commit is synced without anybody's asking", "[eventstore][durability]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, options_with(files, Durability::kAlways)));
  for (std::uint64_t number = 1; number <= 5; ++number) {
    const std::uint64_t before = files.syncs();
    must(append(*store, sample_transaction(number, 2)));
    CHECK(must(store->wait_durable(store->appended_end(), 0, std::chrono::minutes(1))));
    CHECK(files.syncs() > before);
    CHECK(head_of(files).synced.end == store->durable_end());
  }
}

TEST_CASE("os: what is written is durable, and synced when a segment is full and at the end",
          "[eventstore][durability]") {
  FaultFs files;
  {
    const auto store = must(EventStore::open(kStore, options_with(files, Durability::kOs)));
    const std::uint64_t before = files.syncs();
    must(append_durably(*store, sample_transaction(1, 2)));
    must(append_durably(*store, sample_transaction(2, 2)));
    CHECK(files.syncs() == before);
    CHECK(store->durable_end().value == 4);
    CHECK(head_of(files).durable.end.value == 4);
    CHECK(head_of(files).synced.end.value == 0);
    CHECK(read_history(kStore, files).size() == 2);
    for (std::uint64_t number = 3; files.names(kStore / "log").size() == 1; ++number)
      must(append_durably(*store, sample_transaction(number, 20)));
    CHECK(files.syncs() > before);
    CHECK(head_of(files).synced.end.value >= 4);
    CHECK(head_of(files).synced.end < store->durable_end());
  }
  CHECK(head_of(files).synced.end == head_of(files).durable.end);
  const std::size_t written = read_history(kStore, files).size();
  files.lose_power();
  CHECK(read_history(kStore, files).size() == written);
}

TEST_CASE("os: everything is synced once the interval has passed, also if nothing follows",
          "[eventstore][durability]") {
  FaultFs files;
  const auto store = must(
      EventStore::open(kStore, options_with(files, Durability::kOs, std::chrono::milliseconds(5))));
  must(append_durably(*store, sample_transaction(1, 2)));
  wait_until_synced(files, *store);
  must(append_durably(*store, sample_transaction(2, 2)));
  wait_until_synced(files, *store);
  const auto copy = files.clone();
  CHECK(head_of(*copy).synced.end.value == 4);
}

TEST_CASE("F17: os: a sync in the background that fails poisons the store",
          "[eventstore][durability]") {
  FaultFs files;
  const auto store = must(
      EventStore::open(kStore, options_with(files, Durability::kOs, std::chrono::milliseconds(1))));
  files.fail_sync_at(1);
  must(append_durably(*store, sample_transaction(1, 2)));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (store->status()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::yield();
  }
  CHECK(store->status().error().code() == ErrorCode::kIo);
  CHECK_FALSE(append(*store, sample_transaction(2, 2)));
  CHECK(files.syncs_after_failed_sync() == 0);
}

TEST_CASE("F1, F22: nothing acknowledged is lost, in mode os as long as the machine lives",
          "[eventstore][durability]") {
  for (const Durability mode : {Durability::kGroup, Durability::kAlways, Durability::kOs}) {
    CAPTURE(name_of(mode));
    for (std::uint64_t number = 1;; number += mode == Durability::kGroup ? 7 : 3) {
      FaultFs files;
      files.die_at(number);
      Run run;
      run_workload(options_with(files, mode), number, run);
      const bool hit = files.fault_was_hit();
      if (mode == Durability::kOs)
        files.kill_processes();
      else
        files.lose_power(kPolicies[number % std::size(kPolicies)], number);
      check_recovered(files, run, run.acknowledged);
      if (!hit) break;
    }
  }
}

TEST_CASE("F22, F23: os: a power loss takes whole transactions back, from the end, none synced",
          "[eventstore][durability]") {
  std::size_t taken_back = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    CAPTURE(seed);
    FaultFs files;
    std::mt19937_64 random(seed);
    files.die_at(5 + random() % 120);
    Run run;
    const auto interval = seed % 3 == 0 ? std::chrono::milliseconds(0) : std::chrono::hours(1);
    run_workload(options_with(files, Durability::kOs, interval), seed, run);
    std::size_t synced = 0;
    if (must(files.exists(kStore / "HEAD"))) {
      const auto head = log::decode_head(files.content(kStore / "HEAD"));
      if (head) synced = whole_below(run.written, head->synced.end);
    }
    files.lose_power(kPolicies[seed % std::size(kPolicies)], seed);
    check_recovered(files, run, synced);
    taken_back += read_history(kStore, files).size() - 1 < run.acknowledged ? 1 : 0;
  }
  CHECK(taken_back > 50);  // else this has shown nothing
}

namespace {

void append_rows(EventStore& store, int count) {
  for (int i = 0; i < count; ++i) {
    const std::string payload(500, static_cast<char>('a' + i % 26));
    const NewEvent event{
        .category = "rows", .key = "1", .type = {}, .payload = payload, .metadata = {}};
    const Offset at = must(store.append({}, {&event, 1}));
    store.request_flush();
    REQUIRE(must(store.wait_durable(Offset{at.value + 1}, 0, std::chrono::minutes(1))));
  }
}

void set_policy(EventStore& store, Retention retention) {
  const PolicyEvent policy = must(policy_event("rows", CategoryPolicy{.retention = retention}));
  const NewEvent view = policy.view();
  const Offset at = must(store.append({}, {&view, 1}));
  store.request_flush();
  REQUIRE(must(store.wait_durable(Offset{at.value + 1}, 0, std::chrono::minutes(1))));
}

}  // namespace

TEST_CASE("mode os: a power loss does not take back the policy that compaction acted on",
          "[eventstore][durability]") {
  FaultFs files;
  auto store = must(EventStore::open(kStore, options_with(files, Durability::kOs)));
  append_rows(*store, 60);
  set_policy(*store, Retention::kCompact);
  REQUIRE_FALSE(must(store->maintenance().compact({.dead_share_min = 0})).rewritten.empty());
  files.die_at(1);
  store.reset();
  files.lose_power();
  files.clear_faults();
  const auto recovered = must(EventStore::open(kStore, options_with(files, Durability::kGroup)));
  CHECK_FALSE(must(load_policies(kStore, files)).keep_everything());
}

TEST_CASE("mode os: compaction heeds a policy that was set last though it is not synced",
          "[eventstore][durability]") {
  FaultFs files;
  const auto store = must(EventStore::open(kStore, options_with(files, Durability::kOs)));
  append_rows(*store, 60);
  set_policy(*store, Retention::kCompact);
  append_rows(*store, 60);  // the first policy lies in a sealed segment
  set_policy(*store, Retention::kKeep);
  CHECK(must(store->maintenance().compact({.dead_share_min = 0})).rewritten.empty());
}
