#include "capture/daemon/monitor.h"

#include <cmath>

#include "capture/daemon/wal_budget.h"
#include "capture/metrics/metrics_text.h"
#include "tests/support/catch.h"
#include "tests/support/frozen_clock.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;

bool near(double value, double expected) { return std::abs(value - expected) < 1e-6; }

struct Scene {
  FrozenClock clock;
  Monitor monitor{{.source = "database shop", .slot = "s", .publication = "p"}, clock};

  void durable(std::uint64_t lsn) {
    monitor.progress({.durable = Lsn{lsn}, .confirmed = Lsn{lsn}, .store_end = 1, .repeated = 0});
  }
  CaptureStatus status() const { return monitor.status(); }
};

TEST_CASE("a capture catches up to where the server was when it connected, then it streams",
          "[capture][monitor]") {
  Scene scene;
  CHECK(scene.status().state() == "starting");
  CHECK_FALSE(scene.status().ready());
  scene.monitor.connected(Lsn{1000});
  scene.durable(999);
  CHECK(scene.status().state() == "catching_up");
  CHECK(scene.status().lag_bytes == 1);
  scene.durable(1000);
  CHECK(scene.status().state() == "streaming");
  CHECK(scene.status().lag_bytes == 0);
  CHECK(scene.status().ready());
  scene.monitor.enter(CapturePhase::kReconnecting, "gone");
  CHECK_FALSE(scene.status().ready());
  CHECK(scene.status().healthy());
  CHECK(scene.status().reason == "gone");
  scene.monitor.connected(Lsn{1000});
  CHECK(scene.status().reconnects == 1);
}

TEST_CASE("lag in seconds is how long something on the server has not been durable here",
          "[capture][monitor]") {
  Scene scene;
  scene.monitor.connected(Lsn{1000});
  scene.durable(1000);
  scene.clock.advance(milliseconds(30'000));
  CHECK(scene.status().lag_seconds == 0);  // nothing is missing, however long nothing has come
  scene.monitor.looked({.server_end = Lsn{2000},
                        .wal_status = "reserved",
                        .retained_bytes = 1,
                        .safe_wal_bytes = {}});
  scene.clock.advance(milliseconds(5'000));
  scene.monitor.looked({.server_end = Lsn{3000},
                        .wal_status = "reserved",
                        .retained_bytes = 1,
                        .safe_wal_bytes = {}});
  scene.clock.advance(milliseconds(5'000));
  CHECK(near(scene.status().lag_seconds, 10));
  CHECK(scene.status().lag_bytes == 2000);
  scene.durable(2500);
  CHECK(near(scene.status().lag_seconds, 5));
  CHECK(scene.status().ready());
  scene.clock.advance(milliseconds(60'000));
  CHECK_FALSE(scene.status().ready());
  scene.durable(3000);
  CHECK(scene.status().lag_seconds == 0);
  scene.monitor.enter(CapturePhase::kReconnecting);  // nobody knows what has come since
  scene.clock.advance(milliseconds(7'000));
  CHECK(scene.status().lag_seconds >= 7);
}

TEST_CASE("while it catches up the lag is the age of the last durable commit",
          "[capture][monitor]") {
  Scene scene;
  scene.monitor.connected(Lsn{1000});
  const UnixMicros hour_ago{scene.clock.wall().value - 3'600'000'000};
  scene.monitor.appended(3, Lsn{500}, hour_ago);
  scene.durable(500);
  CHECK(near(scene.status().lag_seconds, 3600));
  scene.durable(1000);
  CHECK(scene.status().lag_seconds == 0);
}

TEST_CASE("looks at the server are bounded, and the oldest one that counts stays",
          "[capture][monitor]") {
  Scene scene;
  scene.monitor.connected(Lsn{1});
  scene.durable(1);
  for (std::uint64_t i = 2; i < 10'000; ++i) {
    scene.monitor.looked(
        {.server_end = Lsn{i}, .wal_status = "", .retained_bytes = {}, .safe_wal_bytes = {}});
    scene.clock.advance(milliseconds(10));
  }
  CHECK(near(scene.status().lag_seconds, 99.98));
  scene.durable(9'999);
  CHECK(scene.status().lag_seconds == 0);
}

TEST_CASE("a store that makes nothing durable for a minute is not healthy", "[capture][monitor]") {
  Scene scene;
  scene.monitor.connected(Lsn{100});
  scene.durable(100);
  scene.monitor.appended(1, Lsn{200}, scene.clock.wall());
  for (int i = 0; i < 61; ++i) {
    CHECK(scene.status().healthy());
    scene.clock.advance(milliseconds(1000));
    scene.durable(100);
  }
  CHECK_FALSE(scene.status().healthy());
  scene.durable(200);
  CHECK(scene.status().healthy());
  scene.clock.advance(milliseconds(61'000));  // the loop itself stands still
  CHECK_FALSE(scene.status().healthy());
}

TEST_CASE("a probe is timed from before its commit until it is durable, one at a time",
          "[capture][monitor]") {
  Scene scene;
  CHECK_FALSE(scene.monitor.begin_probe());  // not connected
  scene.monitor.connected(Lsn{100});
  const auto probe = scene.monitor.begin_probe();
  REQUIRE(probe);
  CHECK_FALSE(scene.monitor.begin_probe());
  scene.clock.advance(milliseconds(3));
  CHECK_FALSE(scene.monitor.probe_arrived("probe of another process", Lsn{110}));
  CHECK(scene.monitor.probe_arrived(*probe, Lsn{120}));
  scene.durable(119);
  CHECK(scene.status().latency.count == 0);
  scene.clock.advance(milliseconds(4));
  scene.durable(130);
  const ProbeLatency latency = scene.status().latency;
  CHECK(latency.count == 1);
  REQUIRE(latency.last);
  CHECK(near(*latency.last, 0.007));
  CHECK(latency.buckets[3] == 1);
  CHECK(near(*latency.p99, 0.007));
  const auto lost = scene.monitor.begin_probe();
  REQUIRE(lost);
  CHECK(lost != probe);
  scene.monitor.enter(CapturePhase::kReconnecting);
  CHECK_FALSE(scene.monitor.probe_arrived(*lost, Lsn{140}));  // sent again on the next connection
}

TEST_CASE("changes are counted by table when their transaction is committed, not before",
          "[capture][monitor]") {
  Scene scene;
  ChangeTally tally(scene.monitor);
  std::string name = "public.orders";
  tally.add(name);
  tally.add(name);
  name = "public.lines!";  // the same place in memory, another table
  name.pop_back();
  tally.add(name);
  CHECK(scene.status().changes == 0);
  tally.commit(Lsn{10}, {});
  tally.add(name);
  tally.rollback();
  tally.commit(Lsn{11}, {});  // without events: no transaction of the source
  const CaptureStatus status = scene.status();
  CHECK(status.changes == 3);
  CHECK(status.transactions == 1);
  const std::vector<std::pair<std::string, std::uint64_t>> expected{{"public.lines", 1},
                                                                    {"public.orders", 2}};
  CHECK(status.tables == expected);
}

TEST_CASE("tables beyond the thousandth are counted together", "[capture][monitor]") {
  Scene scene;
  ChangeTally tally(scene.monitor);
  for (int i = 0; i < 3000; ++i) tally.add("public.t" + std::to_string(i));
  tally.add("public.t2999");
  tally.commit(Lsn{10}, {});
  const CaptureStatus status = scene.status();
  CHECK(status.tables.size() == Monitor::kTablesMax + 1);
  CHECK(status.tables.front().first == "(other)");
  CHECK(status.tables.front().second == 2001);
}

TEST_CASE("a status comes back from the store's folder as it was; what is none is nothing",
          "[capture][monitor]") {
  Scene scene;
  scene.monitor.connected(Lsn{0xFFFFFFF000000001});
  scene.monitor.table("public.\"orders") += 3;
  scene.monitor.looked({.server_end = Lsn{0xFFFFFFF000000002},
                        .wal_status = "extended",
                        .retained_bytes = 7,
                        .safe_wal_bytes = -5});
  const TemporaryDirectory directory;
  FileSystem& files = FileSystem::real();
  CHECK_FALSE(load_capture_status(directory.path()).value());
  const CaptureStatus status = scene.status();
  REQUIRE(save_capture_status(directory.path(), status, files));
  REQUIRE(save_capture_status(directory.path(), status, files));
  const auto read = load_capture_status(directory.path()).value();
  REQUIRE(read);
  CHECK(to_json(*read) == to_json(status));
  const std::string text = to_json(status);
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    const Path path = directory.path() / "capture.json";
    std::filesystem::remove(path);
    REQUIRE(files.open(path, OpenMode::kCreate).value()->write_at(0, text.substr(0, cut)));
    CHECK_FALSE(load_capture_status(directory.path()).value());
  }
}

TEST_CASE("metrics name the state, the tables and the latency, and hold nothing else of the source",
          "[capture][monitor][B58]") {
  Scene scene;
  scene.monitor.connected(Lsn{100});
  scene.durable(100);
  scene.monitor.table("public.a\nb\"c") += 2;
  const auto probe = scene.monitor.begin_probe();
  scene.monitor.probe_arrived(*probe, Lsn{100});
  scene.clock.advance(milliseconds(15));
  scene.durable(100);
  const std::string text = metrics_text(scene.status());
  CHECK_THAT(text, Contains("millrace_capture_state{state=\"streaming\"} 1\n") &&
                       Contains("millrace_capture_state{state=\"snapshot\"} 0\n") &&
                       Contains("commit_to_durable_seconds_bucket{le=\"0.02\"} 1\n") &&
                       Contains("commit_to_durable_seconds_bucket{le=\"0.01\"} 0\n") &&
                       Contains("commit_to_durable_seconds_count 1\n"));
  CHECK_THAT(text, !Contains("a\nb"));
  CHECK_THAT(text, !Contains("shop"));
  scene.monitor.enter(CapturePhase::kHalted, "SLOT_LOST: gone", "SLOT_LOST");
  CHECK_THAT(metrics_text(scene.status()),
             Contains("millrace_capture_state{state=\"halted:SLOT_LOST\"} 1\n") &&
                 Contains("millrace_capture_ready 0\n"));
}

constexpr std::uint64_t kGiB = 1u << 30;

SlotLook look(std::uint64_t end, std::uint64_t restart, std::uint64_t confirmed, std::int64_t safe,
              const char* status = "reserved") {
  return {.server_end = Lsn{end},
          .restart = Lsn{restart},
          .confirmed = Lsn{confirmed},
          .wal_status = status,
          .safe_bytes = safe,
          .budget_bytes = 4 * kGiB};
}

TEST_CASE("a slot's budget is warned of at a quarter, at a tenth and when it is gone, once each",
          "[capture][monitor][F65]") {
  WalBudget budget(256u << 20);
  const auto at = [&](double left, const char* status = "reserved") {
    return budget.judge(look(8 * kGiB, 7 * kGiB, 7 * kGiB,
                             static_cast<std::int64_t>(left * 4 * static_cast<double>(kGiB)),
                             status));
  };
  CHECK(at(0.9).empty());
  CHECK(at(0.26).empty());
  REQUIRE(at(0.24).size() == 1);
  CHECK(at(0.26).empty());
  CHECK(at(0.24).empty());  // who hovers about it is not told each time
  const auto tenth = at(0.095);
  REQUIRE(tenth.size() == 1);
  CHECK_THAT(tenth.front(), Contains("only 9 %") && Contains("1.0 GiB"));
  CHECK(at(0.05).empty());
  REQUIRE(at(-0.1, "unreserved").size() == 1);
  CHECK(at(-0.2, "unreserved").empty());
  CHECK(at(0.9).empty());
  CHECK(at(0.2).size() == 1);  // well in between: told anew
  WalBudget unlimited(256u << 20);
  CHECK(unlimited
            .judge({.server_end = Lsn{100 * kGiB},
                    .restart = Lsn{0},
                    .confirmed = Lsn{0},
                    .wal_status = "extended",
                    .safe_bytes = {},
                    .budget_bytes = {}})
            .empty());
}

TEST_CASE("WAL that is held by somebody's long transaction is told apart from our own lag",
          "[capture][monitor]") {
  WalBudget budget(256u << 20);
  CHECK_FALSE(budget.held_back(look(kGiB, 0, 0, 0)));  // we are behind ourselves
  CHECK_FALSE(budget.held_back(look(kGiB / 8, 0, kGiB / 8, 0)));
  CHECK(budget.held_back(look(kGiB, 0, kGiB - 100, 0)));
  CHECK(budget.held_back(look(kGiB, 0, kGiB - 100, 0)));  // until it was told
  budget.told_held_back(look(kGiB, 0, kGiB - 100, 0));
  CHECK_FALSE(budget.held_back(look(kGiB + 1000, 0, kGiB, 0)));
  CHECK(budget.held_back(look(2 * kGiB, 0, 2 * kGiB, 0)));
  CHECK_FALSE(budget.held_back(look(2 * kGiB, 2 * kGiB, 2 * kGiB, 0)));
  CHECK(budget.held_back(look(3 * kGiB, 2 * kGiB, 3 * kGiB, 0)));
}

}  // namespace
}  // namespace millrace::test
