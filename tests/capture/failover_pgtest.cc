// Two servers of one cluster: a standby that was promoted before it had everything, and the old
// primary that comes back.
#include <filesystem>
#include <fstream>

#include "capture/resync.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;

/// A primary, and a second server that takes over from a copy of its files: a standby that was cut
/// off at that moment.
struct Pair {
  PostgresServer primary, standby;
  TemporaryDirectory directory;

  Pair() {
    primary.create_database("shop");
    primary.exec("shop", kOrders);
  }
  CaptureOptions options(const PostgresServer& server) const {
    CaptureOptions options;
    options.source = server.uri("shop");
    options.store = directory / "store";
    options.slot = "shop";
    options.catch_up.from = 0;
    return options;
  }
  void cut_off_standby() {
    primary.stop();
    standby.stop();
    fs::remove_all(standby.data_directory());
    const auto copied = run_command(
        {"cp", "-a", primary.data_directory().string(), standby.data_directory().string()});
    REQUIRE(copied.exit_code == 0);
    primary.start();
  }
  void promote() {
    std::ofstream(standby.data_directory() / "standby.signal");
    standby.start();
    standby.exec("postgres", "SELECT pg_promote()");
  }
  static std::string row(int id, const char* status) {
    return "INSERT INTO orders VALUES (" + std::to_string(id) + ", '" + status + "', 1)";
  }
};

TEST_CASE("F88: after a failover to less than the store has, a resync leads to what survived",
          "[.][capture][failover]") {
  Pair pair;
  pair.primary.exec("shop", Pair::row(1, "both"));
  REQUIRE(catch_up(pair.options(pair.primary)));
  pair.cut_off_standby();
  pair.primary.exec("shop", Pair::row(2, "lost") + "; UPDATE orders SET status = 'lost'");
  REQUIRE(catch_up(pair.options(pair.primary)));
  const auto before = read_captured_log(pair.directory / "store").events;
  pair.promote();
  pair.standby.exec("shop", Pair::row(3, "survives"));

  const CaptureOptions options = pair.options(pair.standby);
  for (int again = 0; again < 2; ++again) CHECK(state_of(catch_up(options)) == "TIMELINE_CHANGED");
  CHECK(read_captured_log(options.store).events == before);
  const auto report = resync_source({.source = options.source, .store = options.store}, {});
  INFO((report ? "" : report.error().to_string()));
  REQUIRE(report);
  CHECK(report->reason == "TIMELINE_CHANGED");
  pair.standby.exec("shop", Pair::row(4, "survives"));
  REQUIRE(catch_up(options));

  const CapturedLog log = read_captured_log(options.store);
  CHECK(log.faults == std::vector<std::string>());
  // Nothing was taken out of the log; what was lost is undone by events, behind one that says so.
  REQUIRE(log.events.size() > before.size());
  CHECK(std::equal(before.begin(), before.end(), log.events.begin()));
  CHECK(log.tables.at("public.orders") == CapturedLog::Table{{"1", order(1, "both", "1.00")},
                                                             {"3", order(3, "survives", "1.00")},
                                                             {"4", order(4, "survives", "1.00")}});
  CHECK(std::any_of(log.events.begin(), log.events.end(), [](const nlohmann::json& event) {
    return event["type"] == "resynced" &&
           event.dump().find("TIMELINE_CHANGED") != std::string::npos;
  }));
}

TEST_CASE("F89: the old primary that comes back is refused, and nothing of it is captured",
          "[.][capture][failover]") {
  Pair pair;
  pair.primary.exec("shop", Pair::row(1, "both"));
  REQUIRE(catch_up(pair.options(pair.primary)));
  pair.cut_off_standby();
  pair.promote();
  pair.standby.exec("shop", Pair::row(2, "new"));
  REQUIRE(catch_up(pair.options(pair.standby)));
  // It does not know that it is the old one, and is written to.
  pair.primary.exec("shop", Pair::row(2, "old"));
  const std::string end = pair.standby.value("shop", "SELECT pg_current_wal_lsn()");
  SECTION("while it is behind") {}
  SECTION("and once it is ahead") {
    while (pair.primary.value("shop", "SELECT pg_current_wal_lsn() > '" + end + "'") != "t")
      pair.primary.exec("shop", "SELECT pg_switch_wal()");
    pair.primary.exec("shop", Pair::row(3, "old"));
  }
  const std::string confirmed = pair.primary.value(
      "shop", "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'shop'");
  for (int again = 0; again < 2; ++again) {
    const std::string state = state_of(catch_up(pair.options(pair.primary)));
    CHECK((state == "TIMELINE_CHANGED" || state == "SOURCE_REWOUND"));
  }
  CHECK(pair.primary.value("shop",
                           "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name "
                           "= 'shop'") == confirmed);
  pair.standby.exec("shop", Pair::row(3, "new"));
  REQUIRE(catch_up(pair.options(pair.standby)));
  const CapturedLog log = read_captured_log(pair.directory / "store");
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders") == CapturedLog::Table{{"1", order(1, "both", "1.00")},
                                                             {"2", order(2, "new", "1.00")},
                                                             {"3", order(3, "new", "1.00")}});
}

}  // namespace
}  // namespace millrace::test
