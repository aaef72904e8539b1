// Events of $capture that tell of a table's other shape, each right before the first change that
// has it, once, whatever was killed in between.
#include <algorithm>

#include "capture/daemon/schema_teller.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

std::vector<nlohmann::json> told(const CapturedLog& log) {
  std::vector<nlohmann::json> events;
  for (const auto& note : log.notes)
    if (note["type"] == "schema_changed") events.push_back(note);
  return events;
}

/// Each version is told once, and before the first change that is written in it.
void check_order(const CapturedLog& log) {
  std::map<std::pair<std::string, int>, std::uint64_t> at;
  for (const auto& event : told(log)) {
    CAPTURE(event.dump());
    CHECK(at.emplace(std::pair(event["data"]["table"], event["data"]["version"]), event["offset"])
              .second);
  }
  std::map<std::string, int> last;
  for (const auto& event : log.events) {
    if (event["category"].get<std::string>().starts_with("$")) continue;
    int& before = last.try_emplace(event["category"], 1).first->second;
    const int version = event.value("schema", before);
    CAPTURE(event.dump());
    if (version > before) {
      const auto found = at.find({event["category"], version});
      REQUIRE(found != at.end());
      CHECK(found->second < event["offset"]);
    }
    before = std::max(before, version);
  }
}

constexpr const char* kChanges[] = {
    "ALTER TABLE orders ADD extra int DEFAULT 7; INSERT INTO orders VALUES (2, 'b', 1)",
    "ALTER TABLE orders ALTER extra TYPE bigint, DROP note; UPDATE orders SET extra = 8",
    "ALTER TABLE orders RENAME status TO state; UPDATE orders SET total = 9 WHERE id = 1",
    "ALTER TABLE orders REPLICA IDENTITY FULL; UPDATE orders SET total = 3 WHERE id = 2",
};

void check_told(const CapturedLog& log) {
  const auto events = told(log);
  REQUIRE(events.size() == 4);
  const auto data = [&](std::size_t i) { return events[i]["data"]; };
  CHECK(data(0) == nlohmann::json::parse(
                       R"({"table":"public.orders","version":2,"from":1,"added":["extra"]})"));
  CHECK(data(1)["removed"] == nlohmann::json::array({"note"}));
  CHECK(data(1)["retyped"] ==
        nlohmann::json::parse(R"([{"column":"extra","from":"integer","to":"bigint"}])"));
  CHECK(data(2)["added"] == nlohmann::json::array({"state"}));
  CHECK(data(2)["removed"] == nlohmann::json::array({"status"}));
  CHECK(data(3) ==
        nlohmann::json::parse(
            R"({"table":"public.orders","version":5,"from":4,"replica_identity":"full"})"));
  CHECK(events[0]["category"] == "$capture");
  check_order(log);
}

TEST_CASE("F71: a table's other shape is told before the first change that has it",
          "[capture][ddl]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  CaptureOptions options = scene.options();
  SECTION("one after the other") {
    REQUIRE(catch_up(options));
    for (const char* change : kChanges) {
      scene.database.exec(change);
      REQUIRE(catch_up(options));
      REQUIRE(catch_up(options));
    }
  }
  SECTION("all in one run, and while it drains a backlog") {
    REQUIRE(catch_up(options));
    options.catch_up.from = GENERATE(0, 1);
    for (const char* change : kChanges) scene.database.exec(change);
    REQUIRE(catch_up(options));
  }
  SECTION("all inside one transaction") {
    REQUIRE(catch_up(options));
    std::string all = "BEGIN; ";
    for (const char* change : kChanges) all += std::string(change) + "; ";
    scene.database.exec(all + "COMMIT");
    REQUIRE(catch_up(options));
  }
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  check_told(log);
}

TEST_CASE("F71: shapes of a transaction that is streamed while it runs are told at its commit",
          "[capture][ddl][streamed]") {
  PostgresServer server({.settings = {{"logical_decoding_work_mem", "64kB"}}});
  TestDatabase database(server);
  TemporaryDirectory directory;
  database.exec(kOrders);
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.slot = database.name();
  options.catch_up.from = 0;
  REQUIRE(catch_up(options));
  database.exec(
      "BEGIN; INSERT INTO orders SELECT g, repeat('x', 100), 1 FROM generate_series(1, 3000) g;"
      "SAVEPOINT a; ALTER TABLE orders ADD gone int; INSERT INTO orders VALUES (-1, 'x', 1, 'n', "
      "2);"
      "ROLLBACK TO a; ALTER TABLE orders ADD stays text;"
      "INSERT INTO orders SELECT g, 'y', 1, NULL, 's' FROM generate_series(3001, 6000) g; COMMIT");
  REQUIRE(catch_up(options));
  database.exec("INSERT INTO orders VALUES (7000, 'z', 1)");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(options.store);
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 6001);
  REQUIRE(told(log).size() == 1);
  CHECK(told(log)[0]["data"]["added"] == nlohmann::json::array({"stays"}));
  check_order(log);
}

TEST_CASE("F71: a version that the registry knows and the log does not is told all the same",
          "[capture][ddl]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  REQUIRE(catch_up(scene.options()));
  const Path saved = scene.directory.path() / "saved";
  const auto copy = [](const Path& from, const Path& to) {
    REQUIRE(run_command({"rm", "-rf", to.string()}, {}, {}).exit_code == 0);
    REQUIRE(run_command({"cp", "-a", from.string(), to.string()}, {}, {}).exit_code == 0);
  };
  scene.database.exec("SELECT pg_copy_logical_replication_slot('" + scene.database.name() +
                      "', 'behind')");
  copy(scene.store(), saved);
  scene.database.exec("ALTER TABLE orders ADD extra int; INSERT INTO orders VALUES (2, 'b', 1)");
  REQUIRE(catch_up(scene.options()));
  // As if only the registry's write had come before the crash.
  copy(scene.store() / "schemas", saved / "schemas");
  copy(saved, scene.store());
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  scene.database.exec("SELECT pg_copy_logical_replication_slot('behind', '" +
                      scene.database.name() + "')");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO orders VALUES (3, 'c', 1)");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 3);
  CHECK(told(log).size() == 1);
  check_order(log);
  scene.database.exec("SELECT pg_drop_replication_slot('behind')");
}

TEST_CASE("F71, F73: a table of another name, and one that was made anew, are told of",
          "[capture][ddl]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("ALTER TABLE orders RENAME TO sales; INSERT INTO sales VALUES (2, 'b', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(
      "DROP TABLE sales; CREATE TABLE sales (id int PRIMARY KEY, what text);"
      "INSERT INTO sales VALUES (7, 'x')");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO sales VALUES (8, 'y')");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  const auto events = told(log);
  REQUIRE(events.size() == 2);
  CHECK(events[0]["data"] ==
        nlohmann::json::parse(
            R"({"table":"public.sales","version":1,"renamed_from":"public.orders"})"));
  CHECK(events[1]["data"]["version"] == 2);
  CHECK(events[1]["data"]["made_anew"] == true);
  CHECK(events[1]["data"]["added"] == nlohmann::json::array({"what"}));
  CHECK(log.tables.at("public.sales").size() == 2);
  check_order(log);
}

}  // namespace
}  // namespace millrace::test
