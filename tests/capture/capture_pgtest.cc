// run_capture against a real server: snapshot, stream, restart, and what it refuses.
#include <atomic>
#include <csignal>
#include <fstream>

#include "capture/capture.h"
#include "eventstore/event_store.h"
#include "eventstore/inspect.h"
#include "eventstore/repair.h"
#include "schemas/lsn.h"
#include "schemas/registry.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using test::BackgroundCapture;
using test::CapturedLog;
using test::catch_up;
using test::count_changes;
using test::eventually;
using test::kOrders;
using test::order;
using test::read_captured_log;
using test::Release;
using test::Scene;
using test::state_of;
using test::TemporaryDirectory;
using test::TestDatabase;
using test::TroubledDisk;

TEST_CASE("rows that are there come as a snapshot, then changes in commit order", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'new', 19.90), (2, 'paid', 5)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(
      "INSERT INTO orders VALUES (3, 'new', 7.5); UPDATE orders SET status = 'sent' WHERE id = 1");
  scene.database.exec("DELETE FROM orders WHERE id = 2");
  scene.database.exec("UPDATE orders SET id = 30 WHERE id = 3");
  REQUIRE(catch_up(scene.options()));

  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.snapshot_events == 2);
  REQUIRE(log.events.size() == 7);
  CHECK(log.events[0]["op"] == "r");
  CHECK(log.events[0]["after"] == order(1, "new", "19.90"));
  CHECK(log.events[2]["op"] == "c");
  CHECK(log.events[3]["op"] == "u");
  CHECK(log.events[3]["before"].is_null());
  CHECK(log.events[4]["op"] == "d");
  CHECK(log.events[4]["before"] == nlohmann::json({{"id", 2}}));
  CHECK(log.events[5]["op"] == "d");
  CHECK(log.events[6]["op"] == "c");
  CHECK(log.events[5]["source"]["xid"] == log.events[6]["source"]["xid"]);
  CHECK(log.tables.at("public.orders") ==
        CapturedLog::Table{{"1", order(1, "sent", "19.90")}, {"30", order(30, "new", "7.50")}});
}

TEST_CASE("a second run with nothing new adds no event", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'new', 1)");
  REQUIRE(catch_up(scene.options()));
  const std::uint64_t end = scene.durable_changes();
  REQUIRE(catch_up(scene.options()));
  REQUIRE(catch_up(scene.options()));
  CHECK(scene.durable_changes() == end);
  CHECK(count_changes(scene.store()) == 1);
}

TEST_CASE("--snapshot never starts with the first change", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'old', 1)");
  CaptureOptions options = scene.options();
  options.initial_snapshot = false;
  REQUIRE(catch_up(options));
  scene.database.exec("INSERT INTO orders VALUES (2, 'new', 2)");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 1);
  CHECK(log.events[0]["key"]["id"] == 2);
}

TEST_CASE("I6: PostgreSQL is never told of more than is durable", "[capture]") {
  Scene scene;
  BackgroundCapture capture(scene.options());
  for (int i = 0; i < 50; ++i) {
    scene.database.exec("INSERT INTO orders VALUES (" + std::to_string(i) + ", 'x', 1)");
    const std::string confirmed = scene.slot_column("confirmed_flush_lsn");
    const auto summary = summarize_store(scene.store());
    if (confirmed.empty() || !summary || !summary->source) continue;
    // Read in this order, the store can only have moved on since.
    CHECK(parse_lsn(confirmed)->value <= summary->source->end);
  }
  REQUIRE(eventually([&] { return count_changes(scene.store()) == 50; }));
  // And it is told of all of it soon.
  CHECK(eventually([&] {
    const auto source = summarize_store(scene.store())->source;
    return parse_lsn(scene.slot_column("confirmed_flush_lsn"))->value == source->end;
  }));
  CHECK(capture.stop());
}

TEST_CASE("F86: the WAL of an idle captured table is let go", "[capture]") {
  Scene scene;
  scene.database.exec("CREATE TABLE busy (id serial PRIMARY KEY, filler text)");
  CaptureOptions options = scene.options();
  options.tables = {"public.orders"};
  REQUIRE(catch_up(options));
  scene.database.exec(
      "INSERT INTO busy (filler) SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
  const auto written = parse_lsn(scene.database.value("SELECT pg_current_wal_lsn()"));
  REQUIRE(catch_up(options));
  CHECK(
      eventually([&] { return *parse_lsn(scene.slot_column("confirmed_flush_lsn")) >= *written; }));
  CHECK(read_captured_log(scene.store()).events.empty());
  scene.database.exec(
      "INSERT INTO orders VALUES (1, 'x', 1)");  // and it is no gap to the next start
  REQUIRE(catch_up(options));
  CHECK(read_captured_log(scene.store()).events.size() == 1);
}

TEST_CASE("a transaction larger than every buffer arrives whole", "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(
      "INSERT INTO orders SELECT g, 'x', g, repeat('n', 300) FROM generate_series(1, 100000) g");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 100'000);
  CHECK(log.events.front()["source"]["xid"] == log.events.back()["source"]["xid"]);
}

TEST_CASE("F71: columns that come and go make new schema versions", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("ALTER TABLE orders ADD COLUMN paid boolean DEFAULT false");
  scene.database.exec("INSERT INTO orders VALUES (2, 'x', 2, NULL, true)");
  scene.database.exec("ALTER TABLE orders DROP COLUMN note");
  scene.database.exec("INSERT INTO orders VALUES (3, 'x', 3, true)");
  scene.database.exec(
      "BEGIN; ALTER TABLE orders ADD COLUMN note int; INSERT INTO orders VALUES (4, 'x', 4, true, "
      "44); COMMIT");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 4);
  for (int i = 0; i < 4; ++i) CHECK(log.events[static_cast<std::size_t>(i)]["schema"] == i + 1);
  CHECK(log.events[1]["after"]["paid"] == true);
  CHECK_FALSE(log.events[2]["after"].contains("note"));
  CHECK(log.events[3]["after"]["note"] == 44);  // another column of the old name
}

TEST_CASE("F77: an unchanged TOAST value is listed, never null", "[capture]") {
  Scene scene;
  scene.database.exec("ALTER TABLE orders ALTER note SET STORAGE EXTERNAL");
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1, repeat('long', 2000))");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("UPDATE orders SET status = 'y'; UPDATE orders SET id = 2");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 4);
  CHECK(log.events[1]["unchanged"] == nlohmann::json({"note"}));
  CHECK_FALSE(log.events[1]["after"].contains("note"));
  CHECK(log.tables.at("public.orders").at("2")["note"].get<std::string>().size() == 8000);
}

TEST_CASE("F76, F75: REPLICA IDENTITY FULL gives whole old rows, TRUNCATE one event a table",
          "[capture]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE lines (order_id bigint REFERENCES "
      "orders, n int, PRIMARY KEY (order_id, n))");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1); INSERT INTO lines VALUES (1, 7)");
  scene.database.exec("UPDATE orders SET status = 'y'");
  scene.database.exec("TRUNCATE orders CASCADE");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 5);
  CHECK(log.events[1]["key"] == nlohmann::json({{"order_id", 1}, {"n", 7}}));
  CHECK(log.events[2]["before"] == order(1, "x", "1.00"));
  CHECK(log.events[2]["key"] == nlohmann::json({{"id", 1}}));
  CHECK(log.of("public.orders", "t").size() == 1);
  CHECK(log.of("public.lines", "t").size() == 1);
  CHECK(log.tables.at("public.orders").empty());
}

TEST_CASE("partitions are captured under their root's name", "[capture]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE visits (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);"
      "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
      "INSERT INTO visits VALUES (1, '2026-01-05')");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO visits VALUES (2, '2026-01-06')");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.of("public.visits", "r").size() == 1);
  CHECK(log.of("public.visits", "c").size() == 1);
  CHECK(log.events.size() == 2);
}

TEST_CASE("B35: names of any shape survive, and none becomes SQL", "[capture]") {
  Scene scene;
  scene.database.exec(
      R"(CREATE TABLE "we""ird; DROP TABLE orders.--" ("sel ect" int PRIMARY KEY, "a'b\c" text, "ünï" text);
                         INSERT INTO "we""ird; DROP TABLE orders.--" VALUES (1, 'x', 'y'))");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(R"(UPDATE "we""ird; DROP TABLE orders.--" SET "a'b\c" = 'z')");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 2);
  CHECK(log.events[1]["after"] == nlohmann::json({{"sel ect", 1}, {"a'b\\c", "z"}, {"ünï", "y"}}));
  CHECK(scene.database.value("SELECT count(*) FROM orders") == "0");
}

TEST_CASE("F95: settings of the role do not change a value", "[capture]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE v (id int PRIMARY KEY, f float8, b bytea, t timestamptz, i interval);"
      "INSERT INTO v VALUES (1, 0.1 + 0.2::float8, '\\xdeadbeef', '2026-01-02 03:04:05.678+00', '1 "
      "mon -2 days')");
  scene.database.exec("ALTER DATABASE " + scene.database.name() +
                      " SET DateStyle = 'German'; ALTER DATABASE " + scene.database.name() +
                      " SET extra_float_digits = 0; ALTER DATABASE " + scene.database.name() +
                      " SET bytea_output = 'escape'; ALTER DATABASE " + scene.database.name() +
                      " SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE " + scene.database.name() +
                      " SET IntervalStyle = 'iso_8601'");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO v SELECT 2, f, b, t, i FROM v");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 2);
  nlohmann::json copied = log.events[0]["after"], streamed = log.events[1]["after"];
  CHECK(copied["f"] == 0.1 + 0.2);
  CHECK(copied["b"] == "3q2+7w==");
  CHECK(copied["t"] == "2026-01-02T03:04:05.678+00:00");
  copied.erase("id"), streamed.erase("id");
  CHECK(copied == streamed);
}

TEST_CASE("F47: a killed walsender is connected to again, exactly once", "[capture]") {
  Scene scene;
  BackgroundCapture capture(scene.options());
  for (int i = 0; i < 20; ++i) {
    scene.database.exec("INSERT INTO orders VALUES (" + std::to_string(i) + ", 'x', 1)");
    scene.database.exec(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" +
        scene.database.name() + "' AND active_pid IS NOT NULL");
  }
  REQUIRE(eventually([&] { return count_changes(scene.store()) == 20; }));
  CHECK(capture.stop());
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.events.size() == 20);
}

TEST_CASE("F48, F49: the server's crash and its clean restart are survived, exactly once",
          "[capture]") {
  test::PostgresServer server;
  TestDatabase database(server);
  TemporaryDirectory directory;
  database.exec(kOrders);
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.backoff_max = std::chrono::milliseconds(500);
  BackgroundCapture capture(options);
  const auto durable = [&] { return count_changes(options.store); };
  for (int i = 0; i < 6; ++i) {
    database.exec("INSERT INTO orders SELECT g, 'x', 1 FROM generate_series(" +
                  std::to_string(i * 10 + 1) + ", " + std::to_string(i * 10 + 10) + ") g");
    REQUIRE(eventually([&] { return durable() == static_cast<std::uint64_t>(i * 10 + 10); }));
    const auto before = std::chrono::steady_clock::now();
    server.restart({}, i % 2 == 0 ? test::PostgresServer::Stop::kImmediate
                                  : test::PostgresServer::Stop::kFast);
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(10));
  }
  CHECK(capture.stop());
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(options.store);
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.events.size() == 60);
}

TEST_CASE(
    "F58, B70: of two captures on one slot or one store, one is refused with the other's name",
    "[capture]") {
  Scene scene;
  BackgroundCapture first(scene.options());
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  const auto same_store = catch_up(scene.options());
  REQUIRE_FALSE(same_store);
  CHECK(same_store.error().code() == ErrorCode::kLocked);
  CHECK(same_store.error().message().find("pid") != std::string::npos);

  CaptureOptions other = scene.options();
  other.store = scene.directory.path() / "other";
  const auto same_slot = catch_up(other);
  REQUIRE_FALSE(same_slot);
  CHECK(state_of(same_slot) == "SLOT_EXISTS");
  CHECK_FALSE(std::filesystem::exists(other.store));
  CHECK(first.stop());
}

TEST_CASE("F63, F64, F66: a slot that is gone, made anew or moved halts capture", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO orders VALUES (2, 'x', 1)");
  const std::string slot = "'" + scene.database.name() + "'";

  SECTION("moved") {
    scene.database.exec("SELECT pg_replication_slot_advance(" + slot + ", pg_current_wal_lsn())");
    CHECK(state_of(catch_up(scene.options())) == "SOURCE_GAP");
  }
  SECTION("gone") {
    scene.database.exec("SELECT pg_drop_replication_slot(" + slot + ")");
    CHECK(state_of(catch_up(scene.options())) == "SLOT_MISSING");
    scene.database.exec("SELECT pg_create_logical_replication_slot(" + slot + ", 'pgoutput')");
    CHECK(state_of(catch_up(scene.options())) == "SOURCE_GAP");
    scene.database.exec("SELECT pg_drop_replication_slot(" + slot + "); SELECT 1");
    scene.database.exec("SELECT pg_create_logical_replication_slot(" + slot + ", 'test_decoding')");
    CHECK(state_of(catch_up(scene.options())) == "SLOT_REPLACED");
  }
  CHECK(read_captured_log(scene.store()).events.size() == 1);
}

TEST_CASE("F36: a store restored from an older copy halts at the gap", "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  std::filesystem::copy(scene.store(), scene.directory.path() / "copy",
                        std::filesystem::copy_options::recursive);
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1)");
  REQUIRE(catch_up(scene.options()));
  std::filesystem::remove_all(scene.store());
  std::filesystem::rename(scene.directory.path() / "copy", scene.store());
  CHECK(state_of(catch_up(scene.options())) == "SOURCE_GAP");
}

TEST_CASE(
    "F30, F36: a repaired store takes what it lost from the source again, or halts at the gap",
    "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO orders VALUES (1, 'kept', 1)");
  REQUIRE(catch_up(scene.options()));
  // As if PostgreSQL had never been told that the second one is safe.
  const std::string slot = "'" + scene.database.name() + "'";
  scene.database.exec("SELECT pg_copy_logical_replication_slot(" + slot + ", 'behind')");
  const auto log = scene.store() / "log" / "00000000000000000000.log";
  const auto size = std::filesystem::file_size(log);
  scene.database.exec("INSERT INTO orders VALUES (2, 'lost', 1)");
  REQUIRE(catch_up(scene.options()));
  REQUIRE(std::filesystem::file_size(log) > size);
  std::fstream(log, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(size) + 40)
      .put('\x7f');
  const auto repaired = repair_store(scene.store());
  REQUIRE(repaired);
  CHECK(repaired->plan.lost_end > repaired->plan.end);
  CHECK(read_captured_log(scene.store()).events.size() == 1);

  CHECK(state_of(catch_up(scene.options())) == "SOURCE_GAP");
  scene.database.exec("SELECT pg_drop_replication_slot(" + slot + ")");
  scene.database.exec("SELECT pg_copy_logical_replication_slot('behind', " + slot + ")");
  REQUIRE(catch_up(scene.options()));
  CHECK(read_captured_log(scene.store()).events.size() == 2);
  const auto verified = verify_store(scene.store());
  REQUIRE(verified);
  CHECK(verified->faults.empty());
  scene.database.exec("SELECT pg_drop_replication_slot('behind')");
}

TEST_CASE("F68, F69: a publication that changed or is gone halts capture, and can be accepted",
          "[capture]") {
  Scene scene;
  CaptureOptions options = scene.options();
  options.publication = "pub";
  options.tables = {"public.orders"};
  REQUIRE(catch_up(options));
  scene.database.exec(
      "CREATE TABLE extra (id int PRIMARY KEY); ALTER PUBLICATION pub ADD TABLE extra");
  const auto halted = catch_up(options);
  CHECK(state_of(halted) == "PUBLICATION_CHANGED");
  CHECK(halted.error().message().find("new: public.extra") != std::string::npos);
  options.accept_publication_change = true;
  scene.database.exec("INSERT INTO extra VALUES (1)");
  REQUIRE(catch_up(options));
  CHECK(read_captured_log(scene.store()).of("public.extra", "c").size() == 1);
  options.accept_publication_change = false;
  REQUIRE(catch_up(options));
  scene.database.exec("DROP PUBLICATION pub");
  CHECK(state_of(catch_up(options)) == "PUBLICATION_MISSING");
}

TEST_CASE("F92: another cluster of the same name is refused", "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  test::PostgresServer other;
  other.create_database(scene.database.name());
  other.exec(scene.database.name(), kOrders);
  CaptureOptions options = scene.options();
  options.source = other.uri(scene.database.name());
  CHECK(state_of(catch_up(options)) == "NEW_CLUSTER");
}

TEST_CASE("F97: a start that ended before its snapshot was whole begins anew", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders SELECT g, 'x', g FROM generate_series(1, 1000) g");
  // A role without the right to read makes the copy fail after the slot was made.
  scene.database.exec(
      "CREATE TABLE zebra (id int PRIMARY KEY, n int); INSERT INTO zebra VALUES (1, 1)");
  scene.database.exec(
      "CREATE FUNCTION boom() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'boom'; END "
      "$$");
  scene.database.exec(
      "ALTER TABLE zebra ENABLE ROW LEVEL SECURITY; ALTER TABLE zebra FORCE ROW LEVEL SECURITY");
  scene.database.exec("CREATE ROLE reader_" + scene.database.name() +
                      " LOGIN REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_" +
                      scene.database.name() + "; CREATE PUBLICATION millrace FOR ALL TABLES");
  CaptureOptions options = scene.options();
  options.source =
      scene.database.server().uri(scene.database.name(), "reader_" + scene.database.name());
  const auto failed = catch_up(options);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().message().find("initial snapshot") != std::string::npos);
  CHECK(scene.durable_changes() == 0);
  CHECK(eventually([&] {  // and nothing holds back the server's WAL
    return scene.database.value(
               "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") ==
           "0";
  }));
  scene.database.exec(
      "ALTER TABLE zebra DISABLE ROW LEVEL SECURITY; DELETE FROM orders WHERE id > 10");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 10);
  CHECK(scene.database.value(
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") ==
        "1");
  scene.database.exec("DROP OWNED BY reader_" + scene.database.name() + "; DROP ROLE reader_" +
                      scene.database.name());
}

TEST_CASE("F97: a start that was killed while it waited for its slot leaves nothing to the next",
          "[capture]") {
  Scene scene;
  scene.database.exec("BEGIN");
  scene.database.exec(
      "INSERT INTO orders VALUES (1, 'x', 1)");  // no slot begins before this transaction ends
  const std::vector<std::string> argv{
      MILLRACE_PROGRAM,      "capture",          "run",         "--source",
      scene.database.uri(),  "--store",          scene.store(), "--slot",
      scene.database.name(), "--until-caught-up"};
  const auto waiting = [&] {
    return scene.database.value(
        "SELECT count(*) FROM pg_replication_slots WHERE temporary AND active_pid IS NOT NULL AND "
        "database = current_database()");
  };
  test::ChildProcess killed(argv);
  REQUIRE(eventually([&] { return waiting() == "1"; }));
  const std::string first = scene.database.value(
      "SELECT slot_name FROM pg_replication_slots WHERE temporary AND database = "
      "current_database()");
  killed.kill(SIGKILL);
  REQUIRE(killed.wait().value_or(-1) == 128 + SIGKILL);

  test::ChildProcess next(argv);
  REQUIRE(eventually([&] {
    return scene.database.value(
               "SELECT count(*) FROM pg_replication_slots WHERE temporary AND slot_name <> '" +
               first + "' AND active_pid IS NOT NULL AND database = current_database()") == "1";
  }));
  scene.database.exec("COMMIT");
  const int code = next.wait().value_or(-1);
  INFO(next.error_output());
  REQUIRE(code == 0);
  CHECK(read_captured_log(scene.store()).tables.at("public.orders").size() == 1);
  CHECK(eventually([&] { return waiting() == "0"; }));
}

TEST_CASE("B70: a slot that another store has made is never dropped", "[capture]") {
  Scene scene;
  CaptureOptions options = scene.options();
  REQUIRE(catch_up(options));
  // A second store whose start was killed right after it had noted that it would make the slot.
  const Path other = scene.directory.path() / "other";
  REQUIRE(EventStore::open(other));
  std::filesystem::copy(scene.store() / "source.json", other);
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1)");
  REQUIRE(catch_up(options));
  options.store = other;
  CHECK(state_of(catch_up(options)) == "SLOT_EXISTS");
  CHECK(scene.slot_column("count(*)") == "1");
  options.store = scene.store();
  REQUIRE(catch_up(options));
}

TEST_CASE("a store whose source.json is gone is not fed again", "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  std::filesystem::remove(scene.store() / "source.json");
  CHECK(state_of(catch_up(scene.options())) == "SOURCE_STATE_MISSING");
  CHECK(scene.slot_column("count(*)") == "1");
}

TEST_CASE("I14: columns that an index only includes are no part of the key", "[capture]") {
  Scene scene;
  const bool full = GENERATE(false, true);
  scene.database.exec(
      "CREATE TABLE covered (id int, note text, n int, PRIMARY KEY (id) INCLUDE (note))");
  if (full) scene.database.exec("ALTER TABLE covered REPLICA IDENTITY FULL");
  scene.database.exec("INSERT INTO covered VALUES (1, 'a', 1), (2, 'b', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(
      "UPDATE covered SET note = 'c' WHERE id = 1; DELETE FROM covered WHERE id = 2");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.of("public.covered", "u").size() == 1);
  CHECK(log.tables.at("public.covered") ==
        CapturedLog::Table{{"1", {{"id", 1}, {"note", "c"}, {"n", 1}}}});
}

TEST_CASE("I14: a publication that lists partitions one by one is snapshot whole", "[capture]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE logs (id int PRIMARY KEY, text text) PARTITION BY RANGE (id);"
      "CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10);"
      "CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM (10) TO (20);"
      "INSERT INTO logs VALUES (1, 'a'), (11, 'b'); CREATE PUBLICATION pub FOR TABLE orders, logs");
  CaptureOptions options = scene.options();
  options.publication = "pub";
  REQUIRE(catch_up(options));
  scene.database.exec("UPDATE logs SET text = 'c' WHERE id = 11; INSERT INTO logs VALUES (2, 'd')");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.logs_1").size() == 2);
  CHECK(log.tables.at("public.logs_2") == CapturedLog::Table{{"11", {{"id", 11}, {"text", "c"}}}});
}

TEST_CASE(
    "F76: partitions and deferrable keys that PostgreSQL could not identify rows by are named",
    "[capture]") {
  Scene scene;
  std::string table;
  SECTION("FULL of a partitioned table is not its partitions'") {
    table = "part_1";
    scene.database.exec(
        "CREATE TABLE part (id int) PARTITION BY RANGE (id); ALTER TABLE part REPLICA IDENTITY "
        "FULL;"
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10)");
  }
  SECTION("a deferrable primary key is no identity") {
    table = "later";
    scene.database.exec("CREATE TABLE later (id int PRIMARY KEY DEFERRABLE)");
  }
  const auto refused = catch_up(scene.options());
  REQUIRE_FALSE(refused);
  const std::string fix = "ALTER TABLE \"public\".\"" + table + "\" REPLICA IDENTITY FULL";
  CHECK(refused.error().hint().find(fix) != std::string::npos);
  scene.database.exec(fix);
  CHECK(catch_up(scene.options()));
}

TEST_CASE("F70: a row filter and a column list hold for the snapshot and for the stream",
          "[capture]") {
  Scene scene;
  if (test::PostgresServer::shared().version() < 15) return;
  scene.database.exec(
      "INSERT INTO orders VALUES (1, 'new', 1), (2, 'old', 2);"
      "ALTER TABLE orders REPLICA IDENTITY FULL; ALTER TABLE orders ALTER status SET NOT NULL;"
      "CREATE TABLE few (id int PRIMARY KEY, seen text, hidden text); INSERT INTO few VALUES (1, "
      "'a', 'b');"
      "CREATE PUBLICATION pub FOR TABLE orders WHERE (status = 'new'), few (id, seen)");
  CaptureOptions options = scene.options();
  options.publication = "pub";
  REQUIRE(catch_up(options));
  scene.database.exec(
      "INSERT INTO orders VALUES (3, 'new', 1), (4, 'old', 1); UPDATE few SET hidden = 'c', seen = "
      "'d'");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 2);
  CHECK(log.tables.at("public.few") == CapturedLog::Table{{"1", {{"id", 1}, {"seen", "d"}}}});
}

TEST_CASE("a table whose key becomes another one goes on under the new key", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(
      "ALTER TABLE orders RENAME id TO number; INSERT INTO orders VALUES (2, 'b', 1)");
  scene.database.exec(
      "ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (status); "
      "UPDATE orders SET total = 2 WHERE status = 'b'");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 3);
  CHECK(log.events[1]["after"]["number"] == 2);
  const auto schemas = SchemaRegistry::open_read_only(scene.store());
  REQUIRE(schemas);
  std::vector<std::string> keys;  // each version tells which columns made the key
  for (std::uint32_t version = 1; version <= 3; ++version) {
    const auto schema = (*schemas)->find("public.orders", version);
    REQUIRE(schema);
    for (const auto& column : (*schema)->columns)
      if (column.key) keys.push_back(column.name);
  }
  CHECK(keys == std::vector<std::string>{"id", "number", "status"});
}

TEST_CASE("F73: the last changes of a table that is gone by then have the key of those before",
          "[capture]") {
  Scene scene;
  scene.database.exec("CREATE TABLE other (id int PRIMARY KEY)");
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1), (2, 'b', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("ALTER TABLE orders REPLICA IDENTITY FULL");
  scene.database.exec("UPDATE orders SET total = 2; DELETE FROM orders WHERE id = 2");
  const bool gone = GENERATE(true, false);
  if (gone) scene.database.exec("DROP TABLE orders");
  if (!gone) scene.database.exec("ALTER TABLE orders RENAME id TO number");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  REQUIRE(log.of("public.orders", "u").size() == 2);
  CHECK(log.of("public.orders", "u")[0]["key"] == nlohmann::json{{"id", 1}});
  CHECK(log.of("public.orders", "d")[0]["key"] == nlohmann::json{{"id", 2}});
}

TEST_CASE("B24: keys of nearly a mebibyte survive an update that changes them", "[capture]") {
  Scene scene;
  scene.database.exec("CREATE TABLE wide (a text, b int); ALTER TABLE wide REPLICA IDENTITY FULL");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("INSERT INTO wide VALUES (repeat('x', 600000), 1)");
  for (const char* length : {"650000", "700000", "1000000"})
    scene.database.exec(std::string("UPDATE wide SET a = repeat('y', ") + length + ")");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  REQUIRE(log.tables.at("public.wide").size() == 1);
  CHECK(log.tables.at("public.wide").begin()->first == std::string(1'000'000, 'y') + ",1");
}

TEST_CASE("F97: a first start stopped in its last flush can be gone on with", "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  TroubledDisk disk;
  disk.stall_after = "source.json";  // what comes next is the slot, then the snapshot's flush
  CaptureOptions options = scene.options();
  options.files = &disk;
  BackgroundCapture capture(options);
  const Release release{disk};
  REQUIRE(eventually([&] { return disk.waiting > 0; }));
  capture.request_stop();
  // It gives up waiting after a second. The slot must not go: what is being written will be there.
  CHECK_FALSE(eventually([&] { return scene.slot_column("count(*)") == "0"; },
                         std::chrono::milliseconds(2500)));
  disk.release();
  CHECK(capture.wait());
  scene.database.exec("INSERT INTO orders VALUES (2, 'a', 1)");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 2);
}

TEST_CASE("messages of the application are events, capture's own are not", "[capture]") {
  Scene scene;
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("SELECT pg_logical_emit_message(true, 'billing', 'invoice 7')");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  REQUIRE(log.events.size() == 1);
  CHECK(log.events[0]["op"] == "m");
  CHECK(log.events[0]["prefix"] == "billing");
  CHECK(log.events[0]["content"] == "invoice 7");
}

TEST_CASE(
    "F69, F73: a table that left the publication, or was made anew, while nobody looked is noticed",
    "[capture]") {
  Scene scene;
  CaptureOptions options = scene.options();
  options.publication = "pub";
  scene.database.exec(
      "CREATE TABLE extra (id int PRIMARY KEY); CREATE PUBLICATION pub FOR TABLE orders, extra");
  REQUIRE(catch_up(options));
  SECTION("dropped and added") {
    scene.database.exec(
        "ALTER PUBLICATION pub DROP TABLE extra; INSERT INTO extra VALUES (1); ALTER PUBLICATION "
        "pub ADD TABLE extra");
  }
  SECTION("another table of its name") {
    scene.database.exec(
        "DROP TABLE extra; CREATE TABLE extra (id int PRIMARY KEY); ALTER PUBLICATION pub ADD "
        "TABLE extra");
  }
  SECTION("another publication of its name") {
    scene.database.exec(
        "DROP PUBLICATION pub; CREATE PUBLICATION pub FOR TABLE orders, extra WITH "
        "(publish_via_partition_root)");
  }
  CHECK(state_of(catch_up(options)) == "PUBLICATION_CHANGED");
  options.accept_publication_change = true;
  REQUIRE(catch_up(options));
  const auto told = read_captured_log(scene.store()).of("$capture", "a");
  REQUIRE(told.size() == 1);
  CHECK(told[0]["type"] == "publication_changed");
}

TEST_CASE("F69: a publication that changes while capture runs halts it", "[capture]") {
  Scene scene;
  CaptureOptions options = scene.options();
  options.publication = "pub";
  options.tables = {"public.orders"};
  options.look_interval = std::chrono::milliseconds(100);
  BackgroundCapture capture(options);
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  scene.database.exec(
      "CREATE TABLE extra (id int PRIMARY KEY); ALTER PUBLICATION pub ADD TABLE extra");
  CHECK(state_of(capture.wait()) == "PUBLICATION_CHANGED");
}

TEST_CASE("F38: while the disk stands still the server is answered, and nothing is confirmed",
          "[capture]") {
  test::PostgresServer server({.settings = {{"wal_sender_timeout", "2s"}}});
  TestDatabase database(server);
  TemporaryDirectory directory;
  database.exec(kOrders);
  TroubledDisk disk;
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.files = &disk;
  options.status_interval = std::chrono::milliseconds(100);
  BackgroundCapture capture(options);
  const Release release{disk};
  const auto sender = [&] { return database.value("SELECT active_pid FROM pg_replication_slots"); };
  const auto confirmed = [&] {
    return database.value("SELECT confirmed_flush_lsn FROM pg_replication_slots");
  };
  REQUIRE(eventually([&] {
    return database.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
           "1";
  }));
  disk.stalled = true;
  const std::string pid = sender(), before = confirmed();
  database.exec(
      "INSERT INTO orders SELECT g, repeat('x', 500), 1 FROM generate_series(1, 40000) g");  // more
                                                                                             // than
                                                                                             // the
                                                                                             // buffers
                                                                                             // hold
  const auto until = std::chrono::steady_clock::now() +
                     std::chrono::seconds(7);  // several times what the server waits for an answer
  REQUIRE(eventually([&] { return std::chrono::steady_clock::now() > until || sender() != pid; }));
  CHECK(sender() == pid);
  CHECK(confirmed() == before);
  disk.release();
  REQUIRE(eventually([&] {
    return database.value(
               "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn > '" + before +
               "'") == "1" &&
           count_changes(options.store) == 40000;
  }));
  REQUIRE(capture.stop());
  CHECK(read_captured_log(options.store).faults == std::vector<std::string>());
}

TEST_CASE("F19: a full disk ends capture with one clear error, and it goes on once there is room",
          "[capture]") {
  Scene scene;
  TroubledDisk disk;
  CaptureOptions options = scene.options();
  options.files = &disk;
  REQUIRE(catch_up(options));
  disk.full = true;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  const auto outcome = catch_up(options);
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code() == ErrorCode::kNoSpace);
  disk.full = false;
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.events.size() == 1);
}

TEST_CASE("a capture that is asked to stop tells of a store that has failed", "[capture]") {
  Scene scene;
  TroubledDisk disk;
  CaptureOptions options = scene.options();
  options.files = &disk;
  BackgroundCapture capture(options);
  const Release release{disk};
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  disk.stalled = true;
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1)");
  REQUIRE(eventually([&] { return disk.waiting > 0; }));
  disk.full = true;
  const std::string before = scene.database.value("SELECT pg_current_wal_insert_lsn()");
  scene.database.exec("INSERT INTO orders VALUES (2, 'a', 1)");
  REQUIRE(eventually([&] {
    return scene.database.value(
               "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON "
               "s.active_pid = r.pid"
               " WHERE s.slot_name = '" +
               scene.database.name() + "' AND r.write_lsn > '" + before + "'") == "1";
  }));
  capture.request_stop();
  disk.release();
  const auto outcome = capture.wait();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code() == ErrorCode::kNoSpace);
  disk.full = false;
  REQUIRE(catch_up(options));
  CHECK(read_captured_log(scene.store()).events.size() == 2);
}

TEST_CASE("F75: TRUNCATE beside a starting snapshot leaves no row behind and no row out",
          "[capture]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders SELECT g, 'old', g FROM generate_series(1, 1000) g");
  std::atomic<bool> done = false;
  TestDatabase& database = scene.database;
  std::jthread truncating([&] {  // a connection of its own
    const std::vector<std::string> argv{
        database.server().program("psql"),
        "-q",
        "-d",
        database.uri(),
        "-c",
        "TRUNCATE orders; INSERT INTO orders SELECT g, 'new', g FROM generate_series(1, 10) g"};
    while (!done) test::run_command(argv, {}, {}, std::chrono::minutes(1));
  });
  const auto outcome = catch_up(scene.options());
  done = true;
  truncating.join();
  if (!outcome) {  // truncated at every attempt: said so, and nothing is left
    CHECK(outcome.error().message().find("truncated or altered") != std::string::npos);
  }
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.tables.at("public.orders").size() == 10);
}

TEST_CASE("F71: a column renamed beside a starting snapshot does not end the start", "[capture]") {
  Scene scene;
  scene.database.exec("CREATE TABLE moving (id int PRIMARY KEY, a int)");
  scene.database.exec("INSERT INTO moving SELECT g, g FROM generate_series(1, 100) g");
  std::atomic<bool> done = false;
  TestDatabase& database = scene.database;
  std::jthread renaming([&] {  // a connection of its own
    const std::string back = "ALTER TABLE moving RENAME a TO b; ALTER TABLE moving RENAME b TO a;";
    std::string many = "SET lock_timeout = '2s';";
    for (int i = 0; i < 20; ++i) many += back;
    const std::vector<std::string> argv{database.server().program("psql"), "-q", "-d",
                                        database.uri()};
    while (!done) test::run_command(argv, {}, many, std::chrono::minutes(1));
  });
  const auto outcome = catch_up(scene.options());
  done = true;
  renaming.join();
  if (!outcome) {  // renamed at every attempt: said so, and nothing is left
    CHECK_THAT(outcome.error().message(), Catch::Contains("truncated or altered"));
  }
  REQUIRE(catch_up(scene.options()));
  CHECK(read_captured_log(scene.store()).tables.at("public.moving").size() == 100);
}

TEST_CASE("bad sources are refused before anything is made on either side", "[capture]") {
  Scene scene;
  CaptureOptions options = scene.options();
  Result<void> outcome;
  ErrorCode code = ErrorCode::kFailedPrecondition;
  SECTION("nobody listens") {
    options.source = "postgresql://127.0.0.1:1/shop";
    outcome = catch_up(options), code = ErrorCode::kUnavailable;
  }
  SECTION("no such database") {
    options.source = scene.database.server().uri("no_such_database");
    outcome = catch_up(options), code = ErrorCode::kUnavailable;
  }
  SECTION("a table without replica identity") {
    scene.database.exec("CREATE TABLE keyless (a int)");
    outcome = catch_up(options);
    CHECK(outcome.error().hint().find("ALTER TABLE \"public\".\"keyless\" REPLICA IDENTITY FULL") !=
          std::string::npos);
  }
  SECTION("no table matches") {
    options.tables = {"nowhere.*"};
    outcome = catch_up(options);
  }
  SECTION("no right to replicate") {
    scene.database.exec("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN");
    options.source = scene.database.server().uri(scene.database.name(), "plain");
    outcome = catch_up(options);
    CHECK(outcome.error().hint().find("ALTER ROLE \"plain\" REPLICATION") != std::string::npos);
    CHECK(outcome.error().hint().find("CREATE") != std::string::npos);  // and the publication
    scene.database.exec("DROP ROLE plain");
  }
  SECTION("a pattern that is none") {
    options.tables = {"orders"};
    outcome = catch_up(options), code = ErrorCode::kInvalidArgument;
  }
  SECTION("a slot name that is none") {
    options.slot = "Not-A-Slot";
    outcome = catch_up(options), code = ErrorCode::kInvalidArgument;
  }
  SECTION("a folder that is no store") {
    std::filesystem::create_directory(options.store);
    std::filesystem::create_directory(options.store / "photos");
    outcome = catch_up(options);
    CHECK(std::filesystem::exists(options.store / "photos"));
    std::filesystem::remove_all(options.store);
  }
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code() == code);
  CHECK(outcome.error().hint() != "");
  CHECK_FALSE(std::filesystem::exists(options.store));
  CHECK(scene.database.value("SELECT count(*) FROM pg_publication") == "0");
  CHECK(scene.slot_column("slot_name").empty());
}

TEST_CASE("wal_level, free slots and passwords are checked first", "[capture]") {
  test::PostgresServer server(
      {.settings = {{"wal_level", "replica"}},
       .tcp = true,
       .hba = "local all all trust\nhost all app 127.0.0.1/32 scram-sha-256\n"});
  TestDatabase database(server);
  TemporaryDirectory directory;
  database.exec(kOrders);
  database.exec("CREATE ROLE app LOGIN REPLICATION PASSWORD 'right-Secret'");
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";

  const auto level = catch_up(options);
  REQUIRE_FALSE(level);
  CHECK(level.error().hint().find("ALTER SYSTEM SET wal_level = 'logical'") != std::string::npos);

  server.restart({{"wal_level", "logical"}, {"max_replication_slots", "1"}});
  database.exec("SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
  const auto slots = catch_up(options);
  REQUIRE_FALSE(slots);
  CHECK(slots.error().message().find("No replication slot is free") != std::string::npos);

  std::string uri = server.tcp_uri(database.name(), "app");
  options.source = uri.insert(uri.find('@'), ":wrong-Secret");
  const auto password = catch_up(options);
  REQUIRE_FALSE(password);
  CHECK(password.error().code() == ErrorCode::kUnavailable);
  CHECK(password.error().to_string().find("Secret") == std::string::npos);
  CHECK_FALSE(std::filesystem::exists(options.store));
  database.exec("SELECT pg_drop_replication_slot('other')");
}

}  // namespace
}  // namespace millrace
