// The publication that capture has made follows --tables: tables come, go, are renamed, and are
// left out or taken in again by another --tables.
#include "capture/resnapshot.h"
#include "capture/setup.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/log_lines.h"

namespace millrace::test {
namespace {

using std::chrono::milliseconds;

struct Shop : Scene {
  CaptureOptions looking(std::vector<std::string> tables) {
    CaptureOptions chosen = options();
    chosen.tables = std::move(tables);
    chosen.look_interval = milliseconds(50);
    return chosen;
  }
  /// "orders,lines"
  std::string published() {
    return database.value(
        "SELECT coalesce(string_agg(tablename, ',' ORDER BY tablename), '') FROM "
        "pg_publication_tables WHERE pubname = 'millrace'");
  }
  std::string mark() {
    return database.value("SELECT obj_description(oid, 'pg_publication') FROM pg_publication");
  }
  CapturedLog::Table now(const std::string& table) {
    CapturedLog::Table rows;
    for (const auto& row : database.query("SELECT id::text, to_jsonb(t) FROM " + table + " t"))
      rows[*row[0]] = nlohmann::json::parse(*row[1]);
    return rows;
  }
  /// Whether the fold of the log is what the table is, once a capture has caught up.
  bool is_same(const CapturedLog& log, const std::string& table) {
    const auto found = log.tables.find("public." + table);
    return (found == log.tables.end() ? CapturedLog::Table() : found->second) == now(table);
  }
  bool is_complete(const std::string& table) {
    const CapturedLog log = read_captured_log(store());
    return std::any_of(log.notes.begin(), log.notes.end(), [&](const auto& note) {
      return note["type"] == "snapshot_completed" && note["stream"] == "$capture/public." + table &&
             note["data"]["snapshot"].template get<std::string>().starts_with("added");
    });
  }
};

std::vector<std::string> changes_told(const CapturedLog& log) {
  std::vector<std::string> changes;
  for (const auto& event : log.events)
    if (event["category"] == "$capture" && event["type"] == "publication_changed")
      changes.push_back(event["data"]["changes"]);
  return changes;
}

TEST_CASE_METHOD(Shop, "F69: a table that comes while capture runs is added and read",
                 "[capture][patterns]") {
  const bool given = GENERATE(true, false);
  const auto chosen =
      given ? std::vector<std::string>{"public.*,!public.log_*"} : std::vector<std::string>{};
  database.exec("INSERT INTO orders VALUES (1, 'new')");
  BackgroundCapture capture(looking(chosen));
  REQUIRE(eventually([&] { return is_streaming(); }));
  database.exec(
      "CREATE TABLE lines (id int PRIMARY KEY, n int);"
      "INSERT INTO lines SELECT g, g FROM generate_series(1, 1000) g;"
      "CREATE TABLE log_of_lines (id int PRIMARY KEY); INSERT INTO log_of_lines VALUES (1)");
  REQUIRE(eventually([&] { return published().find("lines") != std::string::npos; }));
  database.exec("UPDATE lines SET n = -n WHERE id % 7 = 0; DELETE FROM lines WHERE id = 500");
  REQUIRE(eventually([&] { return is_complete("lines"); }));
  database.exec("INSERT INTO lines VALUES (2000, 1)");
  CHECK(capture.stop());
  REQUIRE(catch_up(looking({})));
  const CapturedLog log = read_captured_log(store());
  CHECK(is_same(log, "lines"));
  CHECK(is_same(log, "orders"));
  CHECK(log.of("public.orders", "r").size() == 1);
  CHECK(log.tables.contains("public.log_of_lines") == !given);
  CHECK(published() == (given ? "lines,orders" : "lines,log_of_lines,orders"));
  CHECK(changes_told(log).front().starts_with("new: public.l"));
}

TEST_CASE_METHOD(Shop, "a table that is dropped, or renamed, leaves and comes as --tables says",
                 "[capture][patterns]") {
  database.exec(
      "CREATE TABLE lines (id int PRIMARY KEY); CREATE TABLE parcels (id int PRIMARY KEY);"
      "INSERT INTO lines VALUES (1); INSERT INTO parcels VALUES (1), (2)");
  BackgroundCapture capture(looking({"public.*,!public.old_*"}));
  REQUIRE(eventually([&] { return is_streaming(); }));
  database.exec("DROP TABLE lines");
  database.exec("ALTER TABLE parcels RENAME TO boxes; INSERT INTO boxes VALUES (3)");
  REQUIRE(eventually([&] { return is_complete("boxes"); }));
  database.exec("ALTER TABLE boxes RENAME TO old_boxes");
  REQUIRE(eventually([&] { return published() == "orders"; }));
  database.exec("INSERT INTO old_boxes VALUES (4); INSERT INTO orders VALUES (1, 'new')");
  REQUIRE(eventually([&] {
    return changes_told(read_captured_log(store())).back().find("boxes") != std::string::npos &&
           read_captured_log(store()).tables["public.orders"].size() == 1;
  }));
  CHECK_FALSE(capture.ended());
  CHECK(capture.stop());
  REQUIRE(catch_up(looking({})));
  const CapturedLog log = read_captured_log(store());
  CHECK(log.tables.at("public.boxes").size() == 3);
  CHECK_FALSE(log.tables.contains("public.old_boxes"));
  CHECK(log.faults == std::vector<std::string>());
}

TEST_CASE_METHOD(Shop,
                 "another --tables at a start alters the publication, and what comes back is "
                 "whole again",
                 "[capture][patterns]") {
  database.exec(
      "CREATE TABLE lines (id int PRIMARY KEY, n int); INSERT INTO lines VALUES (1, 1), (2, 2);"
      "CREATE TABLE empty (id int PRIMARY KEY); INSERT INTO empty VALUES (7)");
  REQUIRE(catch_up(looking({})));
  CHECK(mark() == "made by millrace capture; tables: public.*");
  REQUIRE(catch_up(looking({"public.orders"})));
  CHECK(published() == "orders");
  CHECK(mark() == "made by millrace capture; tables: public.orders");
  database.exec(
      "DELETE FROM lines WHERE id = 1; INSERT INTO lines VALUES (3, 3); DELETE FROM empty;"
      "INSERT INTO orders VALUES (1, 'new')");
  REQUIRE(catch_up(looking({})));  // goes on with the same
  CHECK(published() == "orders");
  REQUIRE(catch_up(looking({"public.*"})));
  CHECK(published() == "empty,lines,orders");
  database.exec("UPDATE lines SET n = 5 WHERE id = 3");
  REQUIRE(catch_up(looking({"public.*"})));
  const CapturedLog log = read_captured_log(store());
  CHECK(is_same(log, "lines"));
  CHECK(is_same(log, "empty"));
  CHECK(is_same(log, "orders"));
  const auto told = changes_told(log);
  REQUIRE(told.size() == 2);
  CHECK(told[0] == "no longer: public.empty; no longer: public.lines");
  CHECK(told[1] == "new: public.empty; new: public.lines");
  CHECK(log.of("public.lines", "t").size() == 1);
}

TEST_CASE_METHOD(Shop, "check and setup tell what the next run mends as a note, and change nothing",
                 "[capture][patterns][setup]") {
  database.exec("CREATE TABLE lines (id int PRIMARY KEY); CREATE TABLE bare (id int)");
  CheckOptions asked{
      .source = database.uri(), .tables = {"public.orders"}, .slot = database.name()};
  using Severity = Finding::Severity;
  const auto told = [&](Severity severity) {
    const auto checked = check_source(asked);
    const auto set_up = set_up_source(asked);
    REQUIRE(checked);
    REQUIRE(set_up);
    CHECK_FALSE(set_up->made_publication);
    std::string text, twice;
    for (const Finding& finding : *checked)
      if (finding.severity == severity) text += finding.subject + ": " + finding.message + "\n";
    for (const Finding& finding : set_up->findings)
      if (finding.severity == severity) twice += finding.subject + ": " + finding.message + "\n";
    CHECK(text == twice);
    return text;
  };
  REQUIRE(catch_up(looking({"public.orders,public.lines"})));
  CHECK(told(Severity::kNote) ==
        "publication millrace: It has \"public\".\"lines\", which --tables leaves out: `capture "
        "run` drops them from it.\n");
  CHECK(told(Severity::kProblem).empty());
  CHECK(published() == "lines,orders");
  REQUIRE(catch_up(looking({"public.orders"})));
  CHECK(published() == "orders");
  CHECK(told(Severity::kNote).empty());

  asked.tables = {"public.*"};
  CHECK(told(Severity::kNote) ==
        "publication millrace: It is without \"public\".\"lines\", which --tables names: `capture "
        "run` adds and reads them.\n");
  CHECK(told(Severity::kWarning).find("It is without \"public\".\"bare\"") != std::string::npos);
  CHECK(told(Severity::kProblem).empty());

  // A start without the slot is a first one, and that takes a publication as it is.
  asked = {.source = database.uri(), .tables = {"public.lines"}, .slot = "another"};
  CHECK(told(Severity::kProblem).find("leaves out: \"public\".\"orders\"") != std::string::npos);
  asked.tables = {};
  CHECK(told(Severity::kProblem).empty());
}

TEST_CASE_METHOD(Shop, "a name in --tables that is no table's is told once",
                 "[capture][patterns][setup]") {
  const auto problems = [&](const std::string& tables) {
    std::string text;
    const auto checked =
        check_source({.source = database.uri(), .tables = {tables}, .slot = database.name()});
    REQUIRE(checked);
    for (const Finding& finding : *checked)
      if (finding.severity == Finding::Severity::kProblem) text += finding.message + "\n";
    return text;
  };
  CHECK(problems("public.ordres") == "There is no table public.ordres, which --tables names.\n");
  CHECK(problems("publik.*") == "No table matches.\n");
  CHECK(problems("public.ordres,public.orders") ==
        "There is no table public.ordres, which --tables names.\n");
}

TEST_CASE_METHOD(Shop, "what a killed capture altered is known for its own by the next start",
                 "[capture][patterns]") {
  database.exec("CREATE TABLE lines (id int PRIMARY KEY); INSERT INTO lines VALUES (1)");
  REQUIRE(catch_up(looking({"public.orders"})));
  SECTION("a table that was added") {
    database.exec(
        "ALTER PUBLICATION millrace ADD TABLE lines;"
        "COMMENT ON PUBLICATION millrace IS 'made by millrace capture; tables: public.*'");
    SECTION("and the same --tables again") { REQUIRE(catch_up(looking({"public.*"}))); }
    SECTION("and none") { REQUIRE(catch_up(looking({}))); }
    CHECK(is_same(read_captured_log(store()), "lines"));
    CHECK(published() == "lines,orders");
  }
  SECTION("and another --tables: it goes again") {
    database.exec(
        "ALTER PUBLICATION millrace ADD TABLE lines;"
        "COMMENT ON PUBLICATION millrace IS 'made by millrace capture; tables: public.*'");
    REQUIRE(catch_up(looking({"public.orders"})));
    CHECK(published() == "orders");
  }
  SECTION("what somebody else did against --tables halts") {
    database.exec("ALTER PUBLICATION millrace ADD TABLE lines");
    CHECK(state_of(catch_up(looking({"public.orders"}))) == "PUBLICATION_CHANGED");
    CHECK(published() == "lines,orders");
    database.exec("ALTER PUBLICATION millrace DROP TABLE orders");
    CHECK(state_of(catch_up(looking({"public.*"}))) == "PUBLICATION_CHANGED");
    CHECK(published() == "lines");
  }
}

TEST_CASE_METHOD(Shop, "another table of the name has none of the rows of the one before",
                 "[capture][patterns]") {
  database.exec("CREATE TABLE lines (id int PRIMARY KEY, n int); INSERT INTO lines VALUES (1, 1)");
  REQUIRE(catch_up(looking({})));
  database.exec(
      "DROP TABLE lines; CREATE TABLE lines (id int PRIMARY KEY, w text);"
      "INSERT INTO lines VALUES (2, 'two')");
  REQUIRE(catch_up(looking({})));
  database.exec("INSERT INTO lines VALUES (3, 'three')");
  REQUIRE(catch_up(looking({})));
  const CapturedLog log = read_captured_log(store());
  CAPTURE(nlohmann::json(log.events).dump(), nlohmann::json(log.notes).dump());
  CHECK(is_same(log, "lines"));
}

TEST_CASE_METHOD(Shop, "tables that can't be captured are told of once and halt nothing",
                 "[capture][patterns]") {
  REQUIRE(catch_up(looking({})));
  database.exec(
      "CREATE TABLE keyless (n int); CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY);"
      "CREATE TABLE parted (id int, n int) PARTITION BY LIST (id);"
      "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);"
      "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER far FOREIGN DATA WRAPPER elsewhere;"
      "CREATE FOREIGN TABLE abroad (id int) SERVER far; CREATE VIEW seen AS SELECT 1 AS id");
  LogLines lines;
  BackgroundCapture capture(looking({}));
  REQUIRE(eventually([&] { return is_streaming(); }));
  database.exec("CREATE TABLE good (id int PRIMARY KEY)");
  REQUIRE(eventually([&] { return published() == "good,orders"; }));
  database.exec("CREATE TABLE better (id int PRIMARY KEY)");
  REQUIRE(eventually([&] { return published() == "better,good,orders"; }));
  for (const char* table : {"keyless", "fleeting", "parted", "abroad"}) {
    CAPTURE(table);
    CHECK(lines.count(std::string("table public.") + table + " matches --tables, but") == 1);
  }
  CHECK(lines.count("public.seen") == 0);
  database.exec("ALTER TABLE keyless ADD PRIMARY KEY (n); INSERT INTO keyless VALUES (1)");
  REQUIRE(eventually([&] { return published() == "better,good,keyless,orders"; }));
  CHECK(capture.stop());
}

TEST_CASE_METHOD(Shop, "a table without a key that joins a running capture is warned of",
                 "[capture][patterns]") {
  const std::string told = "Replica identity is FULL and there is no primary key";
  database.exec("CREATE TABLE notes (note text); ALTER TABLE notes REPLICA IDENTITY FULL");
  const LogLines lines;
  {
    BackgroundCapture capture(looking({"public.*"}));
    REQUIRE(eventually([&] { return is_streaming(); }));
    CHECK(lines.count("table public.notes: " + told) == 1);
    database.exec(
        "CREATE TABLE lines (n int); ALTER TABLE lines REPLICA IDENTITY FULL;"
        "CREATE TABLE keyed (id int PRIMARY KEY)");
    REQUIRE(eventually([&] { return is_complete("lines") && is_complete("keyed"); }));
    CHECK(capture.stop());
  }
  CHECK(lines.count("table public.lines: " + told) == 1);
  CHECK(lines.count(told) == 2);
}

TEST_CASE_METHOD(Shop, "a partitioned table comes as one, and its partitions with it",
                 "[capture][patterns][partitions]") {
  REQUIRE(catch_up(looking({})));
  database.exec(
      "CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);"
      "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (100);"
      "INSERT INTO parted VALUES (1, 1)");
  BackgroundCapture capture(looking({}));
  REQUIRE(eventually([&] { return is_complete("parted"); }));
  database.exec(
      "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (100) TO (200);"
      "INSERT INTO parted VALUES (2, 2), (100, 3); UPDATE parted SET id = 101 WHERE id = 1");
  REQUIRE(eventually(
      [&] { return read_captured_log(store()).tables["public.parted"].contains("101"); }));
  CHECK(capture.stop());
  const CapturedLog log = read_captured_log(store());
  CHECK(is_same(log, "parted"));
  CHECK(published() == "orders,parted");
}

TEST_CASE_METHOD(Shop,
                 "a publication that is not capture's, or is no list of tables, stays as it is",
                 "[capture][patterns]") {
  const auto stays = [&](const std::string& before) {
    LogLines lines;
    BackgroundCapture capture(looking({"public.*"}));
    REQUIRE(eventually([&] { return is_streaming(); }));
    database.exec("CREATE TABLE lines (id int PRIMARY KEY)");
    REQUIRE(eventually(
        [&] { return lines.count("table public.lines matches --tables, but is not") == 1; }));
    CHECK(lines.count("ALTER PUBLICATION") >= 1);
    CHECK(published() == before);
    CHECK(capture.stop());
  };
  SECTION("somebody else's") {
    database.exec("CREATE PUBLICATION millrace FOR TABLE orders");
    stays("orders");
  }
  SECTION("with a row filter") {
    REQUIRE(catch_up(looking({})));
    database.exec("ALTER PUBLICATION millrace SET TABLE orders WHERE (id > 0)");
    CaptureOptions once = looking({});
    once.accept_publication_change = true;
    REQUIRE(catch_up(once));
    stays("orders");
  }
  SECTION("of a schema") {
    database.exec(
        "CREATE SCHEMA app; CREATE TABLE app.things (id int PRIMARY KEY);"
        "CREATE PUBLICATION millrace FOR TABLES IN SCHEMA app, TABLE orders");
    BackgroundCapture capture(looking({"app.*,public.orders"}));
    REQUIRE(eventually([&] { return is_streaming(); }));
    database.exec("CREATE TABLE app.more (id int PRIMARY KEY); INSERT INTO app.more VALUES (1)");
    REQUIRE(eventually([&] { return read_captured_log(store()).tables["app.more"].size() == 1; }));
    CHECK(capture.stop());
  }
}

TEST_CASE_METHOD(Shop, "F74: partitions that come and go with rows are told of, and mended",
                 "[capture][patterns][partitions]") {
  database.exec(
      "CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);"
      "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (1) TO (100);"
      "INSERT INTO parted VALUES (1, 1)");
  database.exec("CREATE TABLE high (id int PRIMARY KEY, n int); INSERT INTO high VALUES (100, 5)");
  REQUIRE(catch_up(looking({})));
  LogLines lines;
  BackgroundCapture capture(looking({}));
  REQUIRE(eventually([&] { return is_streaming(); }));
  database.exec("CREATE TABLE later (id int PRIMARY KEY)");
  REQUIRE(eventually([&] { return is_complete("later"); }));  // so it has looked once
  database.exec(
      "ALTER TABLE parted ATTACH PARTITION high FOR VALUES FROM (100) TO (200);"
      "UPDATE parted SET n = 2 WHERE id = 1; INSERT INTO parted VALUES (101, 6)");
  REQUIRE(eventually(
      [&] { return lines.count("table public.high is now a partition of public.parted") == 1; }));
  REQUIRE(request_resnapshot(
      {.source = database.uri(), .store = store(), .tables = {"public.parted"}, .where = {}}));
  REQUIRE(eventually([&] { return is_same(read_captured_log(store()), "parted"); }));
  database.exec("ALTER TABLE parted DETACH PARTITION low; INSERT INTO low VALUES (3, 3)");
  REQUIRE(eventually(
      [&] { return lines.count("table public.low is no partition of public.parted") == 1; }));
  REQUIRE(eventually([&] { return is_complete("low"); }));
  database.exec("INSERT INTO low VALUES (4, 4)");
  CHECK(capture.stop());
  REQUIRE(catch_up(looking({})));
  CHECK(is_same(read_captured_log(store()), "low"));
}

TEST_CASE_METHOD(Shop,
                 "a role that owns nothing captures what is published, and says what it can't",
                 "[capture][patterns]") {
  const std::string role = "reader_" + database.name();
  database.exec("CREATE ROLE " + role + " LOGIN REPLICATION; GRANT SELECT ON orders TO " + role);
  const bool owns_publication = GENERATE(false, true);
  REQUIRE(
      set_up_source({.source = database.uri(), .tables = {"public.*"}, .slot = database.name()}));
  if (owns_publication)
    database.exec("GRANT CREATE ON DATABASE " + database.name() + " TO " + role +
                  "; ALTER PUBLICATION millrace OWNER TO " + role);
  CaptureOptions chosen = looking({});
  chosen.source = database.server().uri(database.name(), role);
  LogLines lines;
  {
    BackgroundCapture capture(chosen);
    REQUIRE(eventually([&] { return is_streaming(); }));
    database.exec(
        "CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE lines (id int PRIMARY KEY);"
        "GRANT SELECT ON lines TO " +
        role);
    const auto said = [&](const std::string& text) {
      return eventually([&] { return lines.count(text) == 1; });
    };
    CHECK(said("table public.hidden matches --tables, but is not captured: we may not read it"));
    CHECK(said(owns_publication
                   ? "table public.lines matches --tables, but is not captured: only its"
                   : "table public.lines matches --tables, but is not captured: publication"));
    database.exec("INSERT INTO orders VALUES (1, 'new')");
    REQUIRE(eventually([&] { return durable_changes() == 1; }));
    CHECK(capture.stop());
  }
  CHECK(published() == "orders");
  database.exec("ALTER PUBLICATION millrace OWNER TO postgres; DROP OWNED BY " + role +
                "; DROP ROLE " + role);
}

TEST_CASE_METHOD(Shop, "tables that swap their names have each other's rows",
                 "[capture][patterns]") {
  database.exec(
      "CREATE TABLE lines (id int PRIMARY KEY, n int); INSERT INTO lines VALUES (1, 1), (2, 2);"
      "CREATE TABLE lines_new (id int PRIMARY KEY, n int); INSERT INTO lines_new VALUES (3, 3)");
  CaptureOptions chosen = looking({"public.lines*"});
  const bool running = GENERATE(true, false);
  const std::string swap =
      "BEGIN; INSERT INTO lines VALUES (4, 4); ALTER TABLE lines RENAME TO lines_old;"
      "ALTER TABLE lines_new RENAME TO lines; INSERT INTO lines VALUES (5, 5);"
      "ALTER TABLE lines_old RENAME TO lines_new; DELETE FROM lines_new WHERE id = 1; COMMIT;"
      "UPDATE lines SET n = n + 1";
  if (running) {
    BackgroundCapture capture(chosen);
    REQUIRE(eventually([&] { return is_streaming(); }));
    database.exec(swap);
    REQUIRE(eventually([&] { return is_complete("lines") && is_complete("lines_new"); }));
    CHECK(capture.stop());
  } else {
    REQUIRE(catch_up(chosen));
    database.exec(swap);
  }
  REQUIRE(catch_up(chosen));
  const CapturedLog log = read_captured_log(store());
  CHECK(is_same(log, "lines"));
  CHECK(is_same(log, "lines_new"));
}

}  // namespace
}  // namespace millrace::test
