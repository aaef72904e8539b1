// What crashes and the disk may do to a view in memory: snapshot and checkpoint stay together.

#include <csignal>
#include <map>
#include <sstream>
#include <thread>

#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/wait.h"
#include "tests/projections/fault_vfs.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/projections/tally.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using namespace std::chrono_literals;
using millrace::test::ChildProcess;
using millrace::test::CommandResult;
using Lines = std::vector<std::string>;

namespace {

namespace fs = std::filesystem;

WorkerOptions commit_each() { return {.events_per_commit = 1, .commit_interval = {}}; }

/// A store, what a tally of it is at each offset where a transaction ends, and the view's files as
/// of the first of them.
class History {
 public:
  History(std::uint32_t seed, int transactions) : workload_(seed) {
    for (int i = 0; i < 12; ++i) store.commit(workload_.transaction());
    note();
    must(catch_up(store, tally()));
    fs::copy(store.views(), kept(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    for (int i = 0; i < transactions; ++i) {
      store.commit(workload_.transaction());
      note();
    }
  }

  void start_anew() { put_back(kept()); }
  void put_back(const fs::path& folder) {
    fs::remove_all(store.views());
    fs::copy(folder, store.views(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  Lines snapshot() const { return must(tally().load(store.views() / "tally.db")).lines(); }
  const Lines& tally_at_checkpoint() const {
    return tallies_.at(checkpoint_of(store, "tally").offset.value);
  }
  const Lines& tally_at_end() const { return tallies_.rbegin()->second; }
  Path folder(const std::string& name) const { return store.directory().parent_path() / name; }

  ShopStore store;

 private:
  Path kept() const { return folder("kept"); }
  void note() { tallies_[store.end().value] = workload_.expected_totals(); }

  ShopWorkload workload_;
  std::map<std::uint64_t, Lines> tallies_;
};

CommandResult tally_program(const ShopStore& store, std::vector<std::string> words) {
  words.insert(words.begin(), MILLRACE_TALLY_PROGRAM);
  for (const auto& word : {std::string("--store"), store.directory().string(),
                           std::string("--views"), store.views().string()})
    words.push_back(word);
  return millrace::test::run_command(words, {.env = {{"TALLY_EVENTS", "4"}}});
}

std::string text_of(const Lines& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace

TEST_CASE("F101: whichever I/O fails, a snapshot and its checkpoint stay together and go on",
          "[projections][memory][sqlite]") {
  const std::uint64_t every = GENERATE(1u, 5u);
  History history(31, 4);
  for (const auto fault : {FaultVfs::Fault::kNoSpace, FaultVfs::Fault::kIo})
    for (const bool for_ever : {false, true}) {
      bool met = true;
      std::uint64_t at = 1;
      for (; met; ++at) {
        INFO("operation " << at << (for_ever ? " and all after it" : "") << ", a snapshot every "
                          << every << " events"
                          << (fault == FaultVfs::Fault::kIo ? ", I/O error" : ", no space"));
        history.start_anew();
        const auto view = tally({.snapshot_events = every});
        {
          FaultVfs disk;
          disk.fail(at, fault, FaultVfs::Which::kAll, for_ever);
          const auto done = catch_up(history.store, view, commit_each());
          met = disk.met();
          if (!done) {
            CHECK((done.error().code() == ErrorCode::kIo ||
                   done.error().code() == ErrorCode::kNoSpace));
          }
        }
        CHECK(history.snapshot() == history.tally_at_checkpoint());
        must(catch_up(history.store, view, commit_each()));
        REQUIRE(lines_of(view) == history.tally_at_end());
        REQUIRE(history.snapshot() == history.tally_at_end());
      }
      CHECK(at > 30);
    }
  CHECK(must(verify_view(tally(), history.store.context())).different == 0);
}

TEST_CASE("F104: after a loss of power at any write there is a snapshot with its own checkpoint",
          "[projections][memory][sqlite]") {
  for (std::uint32_t seed = 1; seed <= 3; ++seed) {
    std::mt19937 random(seed);
    History history(40 + seed, 12);
    std::vector<fs::path> lost;
    history.start_anew();
    {
      FaultVfs disk;
      disk.before_each([&] {
        if (random() % 4 != 0) return;
        lost.push_back(history.folder("lost." + std::to_string(lost.size())));
        fs::create_directories(lost.back());
        disk.lose_power(lost.back(), random);
        fs::copy_symlink(history.store.views() / "tally.db", lost.back() / "tally.db");
      });
      must(catch_up(history.store, tally({.snapshot_events = seed}), commit_each()));
    }
    REQUIRE(lost.size() > 5);
    for (const fs::path& folder : lost) {
      INFO("seed " << seed << ", " << folder.filename().string());
      history.put_back(folder);
      const auto view = tally();
      must(catch_up(history.store, view));
      REQUIRE(lines_of(view) == history.tally_at_end());
      history.put_back(folder);
      must(sqlite::Database::open(history.store.views() / "tally.db", sqlite::Mode::kLive));
      CHECK(history.snapshot() == history.tally_at_checkpoint());
    }
  }
}

TEST_CASE("a full disk keeps no reader from a view in memory, which goes on by itself",
          "[projections][memory][sqlite]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  FaultVfs disk;
  const auto view = tally({.snapshot_events = 1});
  WorkerOptions options;
  options.retry_first = options.retry_max = 1ms;
  Running running(store, view, options);
  REQUIRE(comes_true([&] { return view.shown() == store.end(); }));
  disk.fail(1, FaultVfs::Fault::kNoSpace, FaultVfs::Which::kWrites, true);
  for (int i = 1; i <= 5; ++i) {
    store.commit({inserted(order(i, 1, 1))});
    REQUIRE(comes_true([&] { return view.shown() == store.end(); }));
    CHECK(lines_of(view) == Lines{"1|Ada|" + std::to_string(i) + "|" + std::to_string(i)});
  }
  disk.work_again();
  REQUIRE(must(wait_until_folded({store.directory(), store.views(), "tally"}, {}, 30s)));
  REQUIRE(comes_true([&] { return checkpoint_of(store, "tally").offset == store.end(); }));
  must(running.stop());
  CHECK(must(tally().load(store.views() / "tally.db")).lines() == Lines{"1|Ada|5|5"});
}

TEST_CASE("F105: a program killed at random moments neither repeats nor skips in memory",
          "[projections][memory][crash]") {
  const auto seed = GENERATE(1u, 2u);
  INFO("seed " << seed);
  ShopStore store;
  ShopWorkload workload(seed);
  std::mt19937 random(seed);
  store.commit(workload.transaction());
  const ViewPlace place{store.directory(), store.views(), "tally"};
  for (int round = 0; round < 10; ++round) {
    ChildProcess program({MILLRACE_TALLY_PROGRAM, "run", "--store", store.directory().string(),
                          "--views", store.views().string(), "--log-level", "warn"},
                         {.env = {{"TALLY_EVENTS", std::to_string(1 + random() % 30)}}});
    store.commit(workload.transaction());
    REQUIRE(must(wait_until_folded(place, {}, 30s)));
    if (round == 0)
      CHECK(tally_program(store, {"status"}).out.find("\n  in memory as of offset ") !=
            std::string::npos);
    const auto life = std::chrono::milliseconds(random() % 40);
    for (const auto end = std::chrono::steady_clock::now() + life;
         std::chrono::steady_clock::now() < end;)
      store.commit(workload.transaction());
    program.kill(SIGKILL);
    CHECK(program.wait() == 128 + SIGKILL);
    // Who has shown it is gone, and with it what was in memory.
    CHECK_FALSE(must(wait_until_folded(place, {.offset = Offset{0}}, 0ms)));
  }
  const auto last = tally_program(store, {"run", "--until-caught-up"});
  INFO(last.err);
  REQUIRE(last.exit_code == 0);
  CHECK(last.out == text_of(workload.expected_totals()));
  const auto verified = tally_program(store, {"verify"});
  INFO(verified.out);
  CHECK(verified.exit_code == 0);
  CHECK(tally_program(store, {"wait", "--timeout", "0"}).exit_code == 1);
  CHECK(tally_program(store, {"status", "--count-rows"}).exit_code == 0);
  CHECK(tally_program(store, {"describe"}).out.find("in memory, state format 1") !=
        std::string::npos);
}
