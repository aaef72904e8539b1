// Rows that are made whole from the store, against a real server.
#include <random>

#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace {
namespace {

using nlohmann::json;
using test::BackgroundCapture;
using test::CapturedLog;
using test::catch_up;
using test::eventually;
using test::read_captured_log;
using test::Scene;

CaptureOptions completing(Scene& scene) {
  CaptureOptions options = scene.options();
  options.complete_rows = {"public.orders"};
  return options;
}

/// Folds the log and holds each event against it: nothing is left out, and each old row is the one
/// that was there.
void check_whole(const CapturedLog& log) {
  std::map<std::string, json> rows;
  CHECK(log.faults == std::vector<std::string>());
  for (const json& event : log.events) {
    if (event["category"] != "public.orders") continue;
    const std::string op = event["op"], at = event.dump().substr(0, 300);
    CAPTURE(at);
    if (op == "t") {
      rows.clear();
      continue;
    }
    const std::string key = event["key"]["id"].dump();
    CHECK(event["unchanged"] == json::array());
    if (op == "u" || op == "d") {
      REQUIRE(rows.contains(key));
      CHECK(event["before"] == rows[key]);
    }
    if (op == "d")
      rows.erase(key);
    else
      rows[key] = event["after"];
  }
}

TEST_CASE("F77: large values that an update left alone, and old rows, come from the store",
          "[capture][complete]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "CREATE TABLE plain (id int PRIMARY KEY, n int, big text);"
      "ALTER TABLE plain ALTER big SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('long', 2000) || g FROM generate_series(1, 3) "
      "g; INSERT INTO plain VALUES (1, 1, repeat('p', 9000))");
  REQUIRE(catch_up(completing(scene)));
  scene.database.exec("UPDATE orders SET status = 'y'; UPDATE plain SET n = 2");
  scene.database.exec("UPDATE orders SET id = 20 WHERE id = 2; DELETE FROM orders WHERE id = 1");
  REQUIRE(catch_up(completing(scene)));  // a restart between them
  scene.database.exec("UPDATE orders SET total = 8 WHERE id = 20; DELETE FROM orders WHERE id = 3");
  REQUIRE(catch_up(completing(scene)));
  const CapturedLog log = read_captured_log(scene.store());
  check_whole(log);
  const auto moved = log.of("public.orders", "c");
  REQUIRE(moved.size() == 1);
  CHECK(moved[0]["after"]["note"].get<std::string>().size() == 8001);
  // Of the table that was not asked for PostgreSQL's own events, as ever.
  CHECK(log.of("public.plain", "u").at(0)["unchanged"] == json({"big"}));
  CHECK(log.of("public.plain", "u").at(0)["before"].is_null());
}

TEST_CASE("F77: what the store was never told stays listed as unchanged, never null",
          "[capture][complete]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('long', 2000) FROM generate_series(1, 2) g");
  CaptureOptions options = completing(scene);
  options.initial_snapshot = false;
  REQUIRE(catch_up(options));
  scene.database.exec("UPDATE orders SET status = 'a'; UPDATE orders SET status = 'b'");
  scene.database.exec("UPDATE orders SET note = repeat('told', 2000) WHERE id = 1");
  scene.database.exec("UPDATE orders SET status = 'c'; DELETE FROM orders WHERE id = 2");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  for (const json& event : log.of("public.orders", "u")) {
    const bool told = event["key"]["id"] == 1 && event["after"].contains("note");
    CHECK(event["unchanged"] == (told ? json::array() : json({"note"})));
    if (event["after"]["status"] == "c") CHECK(told == (event["key"]["id"] == 1));
  }
  CHECK(log.of("public.orders", "d").at(0)["before"] == json({{"id", 2}}));  // the key, as sent
}

TEST_CASE("a row is made whole with what its own transaction did before", "[capture][complete]") {
  Scene scene;
  scene.database.exec("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL");
  REQUIRE(catch_up(completing(scene)));
  scene.database.exec(
      "BEGIN; INSERT INTO orders VALUES (1, 'a', 1, repeat('first', 1000)), (2, 'a', 2, 'x');"
      "UPDATE orders SET status = 'b' WHERE id = 1;"
      "SAVEPOINT s; UPDATE orders SET note = repeat('gone', 1000) WHERE id = 1; ROLLBACK TO s;"
      "UPDATE orders SET status = 'c' WHERE id = 1;"
      "UPDATE orders SET id = 10 WHERE id = 1; UPDATE orders SET total = 5 WHERE id = 10;"
      "DELETE FROM orders WHERE id = 10; INSERT INTO orders VALUES (10, 'n', 1, repeat('z', 5000));"
      "UPDATE orders SET status = 'd' WHERE id = 10; COMMIT");
  scene.database.exec("BEGIN; UPDATE orders SET note = repeat('lost', 2000); ROLLBACK;");
  scene.database.exec("UPDATE orders SET total = 77");
  scene.database.exec(
      "BEGIN; TRUNCATE orders; INSERT INTO orders VALUES (1, 'again', 1, repeat('t', 6000));"
      "UPDATE orders SET status = 'in' WHERE id = 1; COMMIT");
  scene.database.exec("UPDATE orders SET status = 'after' WHERE id = 1");
  REQUIRE(catch_up(completing(scene)));
  scene.database.exec("UPDATE orders SET status = 'later' WHERE id = 1");
  REQUIRE(catch_up(completing(scene)));
  check_whole(read_captured_log(scene.store()));
}

TEST_CASE("F71: an old row is left out until the row was told with all columns that it has now",
          "[capture][complete]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1, 'n')");
  REQUIRE(catch_up(completing(scene)));
  scene.database.exec("ALTER TABLE orders ADD COLUMN paid boolean DEFAULT false");
  scene.database.exec("UPDATE orders SET status = 'b'");
  scene.database.exec("UPDATE orders SET status = 'c'");
  scene.database.exec("ALTER TABLE orders DROP COLUMN note");
  scene.database.exec("UPDATE orders SET status = 'd'");
  REQUIRE(catch_up(completing(scene)));
  const auto updates = read_captured_log(scene.store()).of("public.orders", "u");
  REQUIRE(updates.size() == 3);
  CHECK(updates[0]["before"].is_null());
  CHECK(updates[1]["before"]["paid"] == false);
  CHECK(updates[2]["before"]["status"] == "c");
  CHECK_FALSE(updates[2]["before"].contains("note"));
}

TEST_CASE("random changes are whole, through killed walsenders and restarts",
          "[capture][complete]") {
  Scene scene;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::minstd_rand random(seed);
  scene.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('n', 3000) FROM generate_series(1, 20) g");
  REQUIRE(catch_up(completing(scene)));
  const auto some_changes = [&](int count) {
    for (int i = 0; i < count; ++i) {
      std::string sql = "BEGIN;";
      for (unsigned n = random() % 6 + 1; n > 0; --n) {
        const std::string id = std::to_string(random() % 30), other = std::to_string(random() % 30);
        switch (random() % 8) {
          case 0:
            sql += "INSERT INTO orders VALUES (" + id + ", 'in', 1, repeat('" + other +
                   "', 3000)) ON CONFLICT DO NOTHING;";
            break;
          case 1: sql += "DELETE FROM orders WHERE id = " + id + ";"; break;
          case 2:
            sql += "UPDATE orders SET id = " + other + " WHERE id = " + id +
                   " AND NOT EXISTS (SELECT FROM orders WHERE id = " + other + ");";
            break;
          case 3:
            sql += "UPDATE orders SET note = repeat('" + other + "', 3000) WHERE id = " + id + ";";
            break;
          case 4:
            sql += "SAVEPOINT s; UPDATE orders SET note = 'rolled back' WHERE id = " + id +
                   "; ROLLBACK TO s;";
            break;
          case 5: sql += random() % 8 == 0 ? "TRUNCATE orders;" : ""; break;
          default: sql += "UPDATE orders SET status = status || 'u' WHERE id = " + id + ";";
        }
      }
      scene.database.exec(sql + (random() % 5 == 0 ? "ROLLBACK" : "COMMIT"));
    }
  };
  for (int round = 0; round < 3; ++round) {
    BackgroundCapture capture(completing(scene));
    REQUIRE(eventually([&] { return scene.is_streaming(); }));
    for (int kill = 0; kill < 3; ++kill) {
      some_changes(30);
      scene.database.exec(
          "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
          "WHERE active AND slot_name = '" +
          scene.database.name() + "'");
    }
    some_changes(30);
    CHECK(capture.stop());
  }
  REQUIRE(catch_up(completing(scene)));
  check_whole(read_captured_log(scene.store()));
}

}  // namespace
}  // namespace millrace
