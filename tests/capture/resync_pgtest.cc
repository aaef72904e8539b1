// resync_source against a real server: the way out of every state in which changes were lost.
#include <csignal>
#include <fstream>
#include <random>
#include <sstream>

#include "capture/resync.h"
#include "capture/verify.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/process.h"
#include "tests/support/store_fixture.h"

namespace millrace {
namespace {

using test::CapturedLog;
using test::catch_up;
using test::eventually;
using test::must;
using test::PostgresOptions;
using test::PostgresServer;
using test::read_captured_log;
using test::run_command;
using test::Scene;
using test::state_of;
using test::TemporaryDirectory;
using test::TestDatabase;

Result<ResyncReport> resync(const CaptureOptions& options) {
  return resync_source({.source = options.source, .store = options.store, .files = options.files},
                       {});
}

/// Every difference between tables and store, incomplete rows too.
std::vector<std::string> differences(const CaptureOptions& options) {
  std::vector<std::string> lines;
  must(verify_source({.source = options.source, .store = options.store}, {},
                     [&](const TableDifference& found) -> Result<void> {
                       lines.push_back(found.category + " " + found.key + " " +
                                       std::string(name_of(found.kind)));
                       return {};
                     }));
  return lines;
}
using Lines = std::vector<std::string>;

/// The table as the database has it, in the form of CapturedLog.
CapturedLog::Table orders_of(TestDatabase& database) {
  CapturedLog::Table table;
  for (const auto& row : database.query("SELECT id, status, total, note FROM orders")) {
    const auto value = [&](std::size_t i) {
      return row[i] ? nlohmann::json(*row[i]) : nlohmann::json();
    };
    table[*row[0]] = {
        {"id", std::stoll(*row[0])}, {"status", value(1)}, {"total", value(2)}, {"note", value(3)}};
  }
  return table;
}

std::vector<std::string> ops_of(const CapturedLog& log, std::size_t from) {
  std::vector<std::string> ops;
  for (std::size_t i = from; i < log.events.size(); ++i)
    ops.push_back(log.events[i]["op"].get<std::string>() + " " +
                  (log.events[i].contains("key") && log.events[i]["key"].is_object()
                       ? log.events[i]["key"].begin()->dump()
                       : ""));
  return ops;
}

/// Rows that come, change and go while nothing captures: four real differences.
constexpr const char* kLostChanges =
    "DELETE FROM orders WHERE id = 2; UPDATE orders SET status = 'lost', total = 7 WHERE id = 3;"
    "INSERT INTO orders VALUES (100, 'late', 1); UPDATE orders SET id = 60 WHERE id = 4;"
    "UPDATE orders SET note = note";

void fill(Scene& scene) {
  scene.database.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 50) g");
  REQUIRE(catch_up(scene.options()));
}

/// What holds after each way out.
void check_sound(Scene& scene, const CaptureOptions& options) {
  CHECK(differences(options) == Lines());
  scene.database.exec(
      "UPDATE orders SET status = 'after' WHERE id % 10 = 0; DELETE FROM orders "
      "WHERE id = 1; INSERT INTO orders VALUES (70000, 'after', 1)");
  const auto outcome = catch_up(options);
  INFO((outcome ? std::string() : outcome.error().to_string()));
  REQUIRE(outcome);
  CHECK(differences(options) == Lines());
  const CapturedLog log = read_captured_log(options.store);
  CHECK(log.faults == Lines());
  CHECK(log.tables.at("public.orders") == orders_of(scene.database));
}

TEST_CASE("F63: after a slot was dropped only what differs is appended, and capture goes on",
          "[capture][resync]") {
  Scene scene;
  fill(scene);
  const std::string lost_at = to_string(Lsn{summarize_store(scene.store())->source->end});
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  scene.database.exec(kLostChanges);
  const auto halted = catch_up(scene.options());
  CHECK(state_of(halted) == "SLOT_MISSING");
  CHECK(halted.error().hint().find("millrace capture resync") != std::string::npos);
  const std::size_t before = read_captured_log(scene.store()).events.size();

  const ResyncReport report = must(resync(scene.options()));
  CHECK(report.reason == "SLOT_MISSING");
  CHECK(report.epoch == 2);
  REQUIRE(report.tables.size() == 1);
  CHECK(report.tables[0].counts.missing == 2);
  CHECK(report.tables[0].counts.gone == 2);
  CHECK(report.tables[0].counts.different == 1);
  CHECK(report.tables[0].counts.equal == 47);

  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == Lines());
  CHECK(ops_of(log, before) == Lines{"r 100", "d 2", "u 3", "d 4", "r 60", "a "});
  const nlohmann::json& notice = log.events.back();
  CHECK(notice["category"] == "$capture");
  CHECK(notice["type"] == "resynced");
  CHECK(notice["data"]["reason"] == "SLOT_MISSING");
  CHECK(notice["data"]["epoch_before"] == 1);
  CHECK(notice["data"]["epoch"] == 2);
  CHECK(notice["data"]["captured_up_to"] == lost_at);
  CHECK(notice["data"]["captured_from"] == to_string(report.new_start));
  CHECK(notice["data"]["tables"]["public.orders"]["different"] == 1);
  check_sound(scene, scene.options());
}

TEST_CASE("F66: after a slot was advanced, resynced twice, the second time finds nothing",
          "[capture][resync]") {
  Scene scene;
  fill(scene);
  scene.database.exec(kLostChanges);
  scene.database.exec("SELECT pg_replication_slot_advance('" + scene.database.name() +
                      "', pg_current_wal_lsn())");
  CHECK(state_of(catch_up(scene.options())) == "SOURCE_GAP");
  CHECK(must(resync(scene.options())).reason == "SOURCE_GAP");
  const std::uint64_t end = scene.durable_changes();
  const ResyncReport again = must(resync(scene.options()));
  CHECK(again.reason == "REQUESTED");
  CHECK(again.tables.at(0).counts.differences() == 0);
  CHECK(scene.durable_changes() == end + 1);  // the notice
  check_sound(scene, scene.options());
}

TEST_CASE("F65: after the server invalidated the slot", "[.][resync_servers]") {
  PostgresServer server({.settings = {{"max_slot_wal_keep_size", "1MB"},
                                      {"min_wal_size", "2MB"},
                                      {"max_wal_size", "2MB"}},
                         .initdb_arguments = {"--wal-segsize=1"}});
  TestDatabase database(server);
  const TemporaryDirectory directory;
  database.exec(test::kOrders);
  database.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 50) g");
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  REQUIRE(catch_up(options));
  database.exec(kLostChanges);
  REQUIRE(eventually([&] {
    server.exec(database.name(), "SELECT pg_switch_wal()");
    server.exec(database.name(), "SELECT pg_logical_emit_message(false, 'x', repeat('w', 100000))");
    server.exec(database.name(), "CHECKPOINT");
    return database.value("SELECT wal_status FROM pg_replication_slots") == "lost";
  }));
  CHECK(state_of(catch_up(options)) == "SLOT_LOST");
  CHECK(must(resync(options)).reason == "SLOT_LOST");
  CHECK(differences(options) == Lines());
  database.exec("DELETE FROM orders WHERE id = 9");
  REQUIRE(catch_up(options));
  CHECK(differences(options) == Lines());
  CHECK(read_captured_log(options.store).tables.at("public.orders") == orders_of(database));
}

TEST_CASE("F36: a store that is an older copy is brought up to date", "[capture][resync]") {
  Scene scene;
  fill(scene);
  const Path copy = scene.directory.path() / "copy";
  std::filesystem::copy(scene.store(), copy, std::filesystem::copy_options::recursive);
  scene.database.exec(kLostChanges);
  REQUIRE(catch_up(scene.options()));
  CaptureOptions options = scene.options();
  options.store = copy;
  CHECK(state_of(catch_up(options)) == "SOURCE_GAP");
  CHECK(must(resync(options)).tables.at(0).counts.differences() == 5);
  check_sound(scene, options);
  // The newer store has lost its slot to the older one.
  CHECK(state_of(catch_up(scene.options())) != "none");
}

TEST_CASE("F69: a table that was out of the publication is completed", "[capture][resync]") {
  Scene scene;
  scene.database.exec("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)");
  fill(scene);
  scene.database.exec("ALTER PUBLICATION millrace DROP TABLE orders");
  scene.database.exec(kLostChanges);
  scene.database.exec("ALTER PUBLICATION millrace ADD TABLE orders");
  scene.database.exec("INSERT INTO other VALUES (2)");
  const auto halted = catch_up(scene.options());
  CHECK(state_of(halted) == "PUBLICATION_CHANGED");
  CHECK(halted.error().hint().find("millrace capture resync") != std::string::npos);
  const ResyncReport report = must(resync(scene.options()));
  CHECK(report.reason == "PUBLICATION_CHANGED");
  check_sound(scene, scene.options());
  CHECK(read_captured_log(scene.store()).tables.at("public.other").size() == 2);
}

TEST_CASE("resync tells of a table's other shape before its first row that has it",
          "[capture][resync]") {
  Scene scene;
  fill(scene);
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  scene.database.exec("ALTER TABLE orders ADD COLUMN extra int; UPDATE orders SET extra = 1");
  must(resync(scene.options()));
  scene.database.exec("UPDATE orders SET extra = 2 WHERE id = 7");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  std::vector<std::uint64_t> told, updated;
  for (const auto& note : log.notes)
    if (note["type"] == "schema_changed") told.push_back(note["offset"]);
  for (const auto& event : log.of("public.orders", "u")) updated.push_back(event["offset"]);
  REQUIRE(told.size() == 1);
  REQUIRE(updated.size() == 51);
  CHECK(told.front() + 1 == updated.front());
}

TEST_CASE("F92: another cluster with the same tables can take the old one's place",
          "[.][resync_servers]") {
  Scene scene;
  fill(scene);
  PostgresServer server;
  TestDatabase moved(server);
  moved.exec(test::kOrders);
  moved.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 50) g");
  moved.exec(
      "DELETE FROM orders WHERE id > 48; UPDATE orders SET total = 0 WHERE id = 5;"
      "CREATE PUBLICATION millrace FOR TABLE orders");
  CaptureOptions options = scene.options();
  options.source = moved.uri();
  CHECK(state_of(catch_up(options)) == "NEW_CLUSTER");
  const auto refused = resync(options);  // it may be the wrong one
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("NEW_CLUSTER") != std::string::npos);
  CHECK(refused.error().hint().find("--accept-new-source") != std::string::npos);
  CHECK(state_of(catch_up(options)) == "NEW_CLUSTER");
  const ResyncReport report = must(resync_source(
      {.source = options.source, .store = options.store, .accept_new_source = true}, {}));
  CHECK(report.reason == "NEW_CLUSTER");
  CHECK(report.tables.at(0).counts.differences() == 3);
  moved.exec("INSERT INTO orders VALUES (77, 'x', 1)");
  REQUIRE(catch_up(options));
  CHECK(differences(options) == Lines());
  CHECK(read_captured_log(options.store).tables.at("public.orders") == orders_of(moved));
}

TEST_CASE("F91: a server that was put back to an older copy of its files", "[.][resync_servers]") {
  PostgresServer server;
  TestDatabase database(server);
  const TemporaryDirectory directory;
  database.exec(test::kOrders);
  database.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 50) g");
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  REQUIRE(catch_up(options));
  server.stop();
  const std::string copy = (server.directory() / "copy").string();
  const std::string data = server.data_directory().string();
  REQUIRE(run_command({"/bin/cp", "-a", data, copy}).exit_code == 0);
  server.start();
  database.exec(kLostChanges);
  database.exec(
      "INSERT INTO orders SELECT g, 'rolled back', g, 'n' FROM generate_series(1000, "
      "3000) g");
  REQUIRE(catch_up(options));
  server.stop(PostgresServer::Stop::kImmediate);
  REQUIRE(run_command({"/bin/rm", "-rf", data}).exit_code == 0);
  REQUIRE(run_command({"/bin/mv", copy, data}).exit_code == 0);
  server.start();
  CHECK(state_of(catch_up(options)) == "SOURCE_REWOUND");
  const ResyncReport report = must(resync(options));
  CHECK(report.reason == "SOURCE_REWOUND");
  CHECK(report.tables.at(0).counts.gone == 2003);
  database.exec("INSERT INTO orders VALUES (77, 'x', 1)");
  REQUIRE(catch_up(options));
  CHECK(differences(options) == Lines());
  CHECK(read_captured_log(options.store).tables.at("public.orders") == orders_of(database));
}

TEST_CASE("old rows are told where the replica identity is FULL; equal rows are counted",
          "[capture][resync]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders REPLICA IDENTITY FULL;"
      "CREATE TABLE twins (a int, b text); ALTER TABLE twins REPLICA IDENTITY FULL;"
      "INSERT INTO twins VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL)");
  fill(scene);
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  scene.database.exec(kLostChanges);
  scene.database.exec(
      "DELETE FROM twins WHERE a = 1; INSERT INTO twins VALUES (1, 'x'), (2, NULL), (3, '')");
  must(resync(scene.options()));
  CHECK(differences(scene.options()) == Lines());
  const CapturedLog log = read_captured_log(scene.store());
  for (const char* op : {"u", "d"})
    for (const nlohmann::json& event : log.of("public.orders", op)) {
      CHECK(event["before"].size() == 4);
      CHECK(event["before"]["status"] == "new");
    }
  CHECK(log.of("public.twins", "d").size() == 2);
  CHECK(log.of("public.twins", "r").size() == 4 + 2);
}

TEST_CASE("a table without any key starts anew where rows of it are gone", "[capture][resync]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE notes (a int); INSERT INTO notes VALUES (1), (1), (2);"
      "CREATE PUBLICATION millrace FOR TABLE notes WITH (publish = 'insert')");
  CaptureOptions options = scene.options();
  REQUIRE(catch_up(options));
  scene.database.exec("INSERT INTO notes VALUES (3)");
  REQUIRE(catch_up(options));
  CHECK(differences(options) == Lines());
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  scene.database.exec("INSERT INTO notes VALUES (3), (4)");
  must(resync(options));  // rows came: nothing else
  CHECK(differences(options) == Lines());
  CHECK(read_captured_log(scene.store()).of("public.notes", "t").empty());
  scene.database.exec("DELETE FROM notes WHERE a = 1");  // which is not published
  CHECK(differences(options).size() == 1);
  must(resync(options));
  CHECK(differences(options) == Lines());
  CHECK(read_captured_log(scene.store()).of("public.notes", "t").size() == 1);
}

TEST_CASE("F77, F71: resync completes rows with what PostgreSQL never sent", "[capture][resync]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('long', 2000) FROM generate_series(1, 3) g");
  CaptureOptions options = scene.options();
  options.initial_snapshot = false;
  REQUIRE(catch_up(options));
  scene.database.exec("UPDATE orders SET status = 'x'");
  scene.database.exec("ALTER TABLE orders ADD COLUMN paid boolean DEFAULT false");
  scene.database.exec("UPDATE orders SET paid = true WHERE id = 1");
  REQUIRE(catch_up(options));
  CHECK(differences(options).size() == 3);
  CHECK(must(resync(options)).tables.at(0).counts.incomplete == 3);
  CHECK(differences(options) == Lines());
}

TEST_CASE("nothing is done beside a running capture, nor to a slot of somebody else",
          "[capture][resync]") {
  Scene scene;
  fill(scene);
  {
    test::BackgroundCapture capture(scene.options());
    REQUIRE(eventually([&] { return scene.is_streaming(); }));
    const auto refused = resync(scene.options());
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == ErrorCode::kLocked);
    CHECK(refused.error().hint().find("Stop the capture") != std::string::npos);
    CHECK(capture.stop());
  }
  scene.database.exec("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')");
  const std::uint64_t end = scene.durable_changes();
  const auto refused =
      resync_source({.source = scene.database.uri(), .store = scene.store(), .slot = "theirs"}, {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("SLOT_EXISTS") != std::string::npos);
  scene.database.exec("SELECT pg_drop_replication_slot('theirs')");
  CHECK(scene.durable_changes() == end);
  CHECK(catch_up(scene.options()));  // all is as before
}

TEST_CASE("a store whose source.json is gone goes on with a new slot", "[capture][resync]") {
  Scene scene;
  fill(scene);
  std::filesystem::remove(scene.store() / "source.json");
  scene.database.exec(kLostChanges);
  CHECK(state_of(catch_up(scene.options())) == "SOURCE_STATE_MISSING");
  CHECK_FALSE(resync(scene.options()));
  CaptureOptions options = scene.options();
  options.slot += "_again";
  CHECK(must(resync_source({.source = options.source,
                            .store = options.store,
                            .slot = options.slot,
                            .accept_new_source = true},
                           {}))
            .reason == "SOURCE_STATE_MISSING");
  check_sound(scene, options);
}

/// Fails right after a file of a certain name was put in place.
class FailsAfter final : public test::ForwardingFileSystem {
 public:
  std::string name;
  Result<void> rename(const Path& from, const Path& to) override {
    MILLRACE_RETURN_IF_ERROR(ForwardingFileSystem::rename(from, to));
    if (to.filename() == name) return Error(ErrorCode::kIo, "the test's disk");
    return {};
  }
};

TEST_CASE("a resync that ended in its last step is asked for again", "[capture][resync]") {
  Scene scene;
  fill(scene);
  scene.database.exec(kLostChanges);
  FailsAfter disk;
  disk.name = "source.json";
  CaptureOptions options = scene.options();
  options.files = &disk;
  CHECK_FALSE(resync(options));
  const auto halted = catch_up(scene.options());
  CHECK(state_of(halted) == "RESYNC_UNFINISHED");
  CHECK(halted.error().hint().find("capture resync") != std::string::npos);
  CHECK(must(resync(scene.options())).reason == "RESYNC_UNFINISHED");
  check_sound(scene, scene.options());
}

TEST_CASE("a resync that is killed leaves the store as before or can be done again",
          "[.][resync_servers]") {
  Scene scene;
  scene.database.exec(
      "INSERT INTO orders SELECT g, 'new', g, repeat('n', 300) FROM generate_series(1, 5000) g");
  REQUIRE(catch_up(scene.options()));
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::minstd_rand random(seed);
  scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
  int killed = 0;
  for (int round = 0; round < 12; ++round) {
    scene.database.exec(
        "UPDATE orders SET total = total + 1 WHERE id % 3 = 0;"
        "DELETE FROM orders WHERE id = " +
        std::to_string(round + 1));
    test::ChildProcess child({MILLRACE_PROGRAM, "capture", "resync", "--source",
                              scene.database.uri(), "--store", scene.store().string()});
    const auto ended = child.wait(std::chrono::milliseconds(20 + random() % 400));
    if (!ended) {
      child.kill(SIGKILL);
      child.wait();
      ++killed;
    }
    const auto outcome = catch_up(scene.options());
    const std::string state = state_of(outcome);
    CAPTURE(round, state);
    CHECK((state == "none" || state == "SLOT_MISSING" || state == "RESYNC_UNFINISHED"));
    if (outcome) {
      CHECK(differences(scene.options()) == Lines());
      scene.database.exec("SELECT pg_drop_replication_slot('" + scene.database.name() + "')");
    }
  }
  CHECK(killed > 0);
  must(resync(scene.options()));
  check_sound(scene, scene.options());
}

TEST_CASE("a view that counts old rows is right after a resync", "[capture][resync]") {
  TestDatabase database;
  const TemporaryDirectory directory;
  std::ifstream schema(std::string(MILLRACE_SOURCE_DIR) + "/examples/shop/schema.sql");
  std::stringstream sql;
  sql << schema.rdbuf();
  database.exec(sql.str());
  database.exec(
      "INSERT INTO customers SELECT g, 'c' || g, 'e', 'here' FROM generate_series(1, 20) g;"
      "INSERT INTO orders SELECT g, g % 20 + 1, 'open', g FROM generate_series(1, 200) g");
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.slot = database.name();
  const std::string views = (directory.path() / "views").string();
  const auto fold = [&] {
    const auto run =
        run_command({MILLRACE_SHOP_PROGRAM, "run", "customer_totals", "--until-caught-up",
                     "--store", options.store.string(), "--views", views});
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    return run_command({"/usr/bin/sqlite3", views + "/customer_totals.db",
                        "SELECT id, name, orders, spent_cents FROM customer_totals ORDER BY id"})
        .out;
  };
  const auto expected = [&] {
    std::string lines;
    for (const auto& row : database.query(
             "SELECT c.id, c.name, count(o.id), coalesce(sum(o.total_cents), 0) FROM customers c "
             "LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.id ORDER BY c.id"))
      lines += *row[0] + "|" + *row[1] + "|" + *row[2] + "|" + *row[3] + "\n";
    return lines;
  };
  REQUIRE(catch_up(options));
  CHECK(fold() == expected());
  database.exec("SELECT pg_drop_replication_slot('" + database.name() + "')");
  database.exec(
      "DELETE FROM orders WHERE id % 5 = 0; UPDATE orders SET total_cents = 1000, customer_id = 1 "
      "WHERE id % 7 = 0; UPDATE orders SET id = id + 5000 WHERE id % 11 = 0;"
      "DELETE FROM orders WHERE customer_id = 9; DELETE FROM customers WHERE id = 9;"
      "INSERT INTO customers VALUES (21, 'new', 'e'); INSERT INTO orders VALUES (900, 21, 'x', 5);"
      "UPDATE customers SET name = 'renamed' WHERE id = 3");
  must(resync(options));
  CHECK(fold() == expected());
  database.exec("UPDATE orders SET total_cents = total_cents + 1");
  REQUIRE(catch_up(options));
  CHECK(fold() == expected());
  database.exec("SELECT pg_drop_replication_slot('" + database.name() + "')");
}

}  // namespace
}  // namespace millrace
