// capture verify and capture resync as a user calls them.
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using nlohmann::json;
using test::CommandResult;
using test::TemporaryDirectory;
using test::TestDatabase;

TEST_CASE("verify ends with 1 where rows differ, resync mends it, and capture goes on",
          "[cli][resync]") {
  TestDatabase database;
  const TemporaryDirectory directory;
  const std::string store = (directory.path() / "store").string();
  const auto millrace = [&](const std::string& verb, std::vector<std::string> more) {
    std::vector<std::string> words{MILLRACE_PROGRAM, "capture", verb, "--source",
                                   database.uri(),   "--store", store};
    words.insert(words.end(), more.begin(), more.end());
    return test::run_command(words);
  };
  const auto lines = [](const CommandResult& result) {
    std::vector<json> parsed;
    std::istringstream in(result.out);
    for (std::string line; std::getline(in, line);) parsed.push_back(json::parse(line));
    return parsed;
  };
  database.exec(
      "CREATE TABLE t (id int PRIMARY KEY, a text, b int);"
      "INSERT INTO t SELECT g, 'x', g FROM generate_series(1, 30) g");
  REQUIRE(millrace("run", {"--until-caught-up", "--slot", database.name()}).exit_code == 0);
  const CommandResult equal = millrace("verify", {});
  INFO(equal.err);
  CHECK(equal.exit_code == 0);
  CHECK(equal.out.find("public.t") != std::string::npos);

  database.exec("SELECT pg_drop_replication_slot('" + database.name() + "')");
  CHECK(millrace("verify", {}).exit_code == 1);  // nobody can tell what is missing
  database.exec("SELECT pg_create_logical_replication_slot('" + database.name() +
                "', 'pgoutput')");  // which looks as if nothing were
  database.exec("SELECT pg_replication_slot_advance('" + database.name() +
                "', pg_current_wal_lsn())");
  database.exec("ALTER PUBLICATION millrace DROP TABLE t");
  database.exec("UPDATE t SET a = 'y', b = 0 WHERE id <= 20; DELETE FROM t WHERE id = 30");
  database.exec("ALTER PUBLICATION millrace ADD TABLE t");
  const CommandResult differs = millrace("verify", {"--limit", "3", "--json"});
  CHECK(differs.exit_code == 1);
  CHECK(differs.err.find("21 rows differ") != std::string::npos);
  CHECK(differs.err.find("capture resync") != std::string::npos);
  const auto found = lines(differs);
  REQUIRE(found.size() == 4);
  CHECK(found[0] == json{{"table", "public.t"},
                         {"difference", "different"},
                         {"key", "1"},
                         {"columns", {"a", "b"}},
                         {"rows", 1}});
  CHECK(found[3]["different"] == 20);
  CHECK(found[3]["missing_in_table"] == 1);
  CHECK(found[3]["equal"] == 9);

  const CommandResult resynced = millrace("resync", {"--json"});
  INFO(resynced.err);
  REQUIRE(resynced.exit_code == 0);
  CHECK(lines(resynced).back()["reason"] == "SOURCE_GAP");
  CHECK(millrace("verify", {"--tables", "public.*"}).exit_code == 0);
  CHECK(millrace("run", {"--until-caught-up", "--slot", database.name()}).exit_code == 0);
  const CommandResult again = millrace("resync", {});
  CHECK(again.exit_code == 0);
  CHECK(again.out.find("because of REQUESTED") != std::string::npos);
}

TEST_CASE("verify and resync refuse what can't work before anything is opened", "[cli][resync]") {
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--tables", "orders"},
                                               {"--limit", "x"},
                                               {"--wait", "-1"},
                                               {"--wait", "99999999"}}) {
    std::vector<std::string> words{MILLRACE_PROGRAM, "capture", "verify",      "--source",
                                   "dbname=x",       "--store", "/nonexistent"};
    words.insert(words.end(), more.begin(), more.end());
    CHECK(test::run_command(words).exit_code == 2);
  }
  TestDatabase database;
  const TemporaryDirectory directory;
  for (const char* verb : {"verify", "resync"}) {
    const auto refused =
        test::run_command({MILLRACE_PROGRAM, "capture", verb, "--source", database.uri(), "--store",
                           (directory.path() / "none").string()});
    CHECK(refused.exit_code == 1);
    CHECK_FALSE(std::filesystem::exists(directory.path() / "none"));
  }
}

}  // namespace
}  // namespace millrace
