#include <csignal>
#include <nlohmann/json.hpp>

#include "capture/check.h"
#include "capture/tail.h"
#include "tests/support/capture_runner.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"

namespace millrace {
namespace {

using test::eventually;
using test::TestDatabase;

constexpr const char* kLeftBehind =
    "SELECT (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM "
    "pg_replication_slots WHERE database = current_database())";

TEST_CASE("a tail shows live changes and leaves nothing behind", "[capture][tail]") {
  TestDatabase database;
  database.exec(
      "CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE keyless (a int); INSERT "
      "INTO orders VALUES (1, 'old')");
  test::ChildProcess tail(
      {MILLRACE_PROGRAM, "capture", "tail", "--source", database.uri(), "--json"});
  REQUIRE(eventually([&] { return database.value(kLeftBehind) == "1 1"; }));
  REQUIRE(eventually([&] {
    return database.value(
               "SELECT active FROM pg_replication_slots WHERE database = current_database()") ==
           "t";
  }));
  database.exec("INSERT INTO orders VALUES (2, 'new'); UPDATE orders SET note = 'x' WHERE id = 1");
  database.exec(
      "INSERT INTO keyless VALUES (1); DELETE FROM keyless");  // must not be broken by the tail
  const auto first = tail.read_line(), second = tail.read_line();
  REQUIRE(first);
  REQUIRE(second);
  const nlohmann::json created = nlohmann::json::parse(*first),
                       updated = nlohmann::json::parse(*second);
  CHECK(created["op"] == "c");
  CHECK(created["after"] == nlohmann::json({{"id", 2}, {"note", "new"}}));
  CHECK_FALSE(created.contains("offset"));
  CHECK(updated["op"] == "u");
  CHECK(updated["source"]["xid"] == created["source"]["xid"]);
  tail.kill(SIGINT);
  CHECK(tail.wait() == 0);
  CHECK(tail.error_output().find("keyless") != std::string::npos);
  CHECK(database.value(kLeftBehind) == "0 0");
}

TEST_CASE("what a killed tail left is removed by the next one", "[capture][tail]") {
  TestDatabase database;
  database.exec("CREATE TABLE orders (id int PRIMARY KEY)");
  {
    test::ChildProcess tail({MILLRACE_PROGRAM, "capture", "tail", "--source", database.uri()});
    REQUIRE(eventually([&] { return database.value(kLeftBehind) == "1 1"; }));
    tail.kill(SIGKILL);
    tail.wait();
  }
  REQUIRE(eventually([&] { return database.value(kLeftBehind) == "1 0"; }));
  REQUIRE(eventually([&] {
    return database.value(
               "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'millrace%'") ==
           "0";
  }));
  test::ChildProcess next(
      {MILLRACE_PROGRAM, "capture", "tail", "--source", database.uri(), "--limit", "1"});
  REQUIRE(eventually([&] {
    return database.value(
               "SELECT active FROM pg_replication_slots WHERE database = current_database()") ==
           "t";
  }));
  CHECK(database.value("SELECT count(*) FROM pg_publication") == "1");
  database.exec("INSERT INTO orders VALUES (1)");
  CHECK(next.wait() == 0);
  CHECK(database.value(kLeftBehind) == "0 0");
}

TEST_CASE("B80: check names every missing thing with the statement that mends it",
          "[capture][check]") {
  TestDatabase database;
  database.exec("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE keyless (a int)");
  const auto of = [](const std::vector<Finding>& findings, const std::string& subject) {
    for (const Finding& finding : findings)
      if (finding.subject == subject) return finding;
    return Finding{};
  };
  auto findings = check_source({.source = database.uri(), .tables = {}});
  REQUIRE(findings);
  CHECK(of(*findings, "wal_level").severity == Finding::Severity::kFine);
  const Finding keyless = of(*findings, "table public.keyless");
  CHECK(keyless.severity == Finding::Severity::kProblem);
  database.exec(keyless.fix);  // the statement as it was given
  findings = check_source({.source = database.uri(), .tables = {}});
  for (const Finding& finding : *findings) CHECK(finding.severity != Finding::Severity::kProblem);

  database.exec("DROP ROLE IF EXISTS nobody_here; CREATE ROLE nobody_here LOGIN");
  const std::string plain = database.server().uri(database.name(), "nobody_here");
  findings = check_source({.source = plain, .tables = {}});
  REQUIRE(findings);
  CHECK(of(*findings, "replication right").severity == Finding::Severity::kProblem);
  for (const Finding& finding : *findings)
    if (finding.severity == Finding::Severity::kProblem) database.exec(finding.fix);
  findings = check_source({.source = plain, .tables = {}});
  for (const Finding& finding : *findings) {
    CAPTURE(finding.subject, finding.message);
    CHECK(finding.severity != Finding::Severity::kProblem);
  }
  database.exec("DROP OWNED BY nobody_here; DROP ROLE nobody_here; DROP PUBLICATION millrace");
}

}  // namespace
}  // namespace millrace
