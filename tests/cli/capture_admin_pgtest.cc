#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/sample_store.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

TEST_CASE("capture setup and teardown are told, asked to be confirmed, and done once",
          "[cli][capture][setup]") {
  TestDatabase database;
  database.exec("CREATE TABLE orders (id integer PRIMARY KEY)");
  const TemporaryDirectory directory;
  const std::string store = (directory / "store").string();
  const auto call = [&](const std::string& verb, std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"capture", verb, "--source", database.uri(), "--slot", "slot_" + database.name()});
    return millrace(more);
  };
  const CommandResult made = call("setup");
  INFO(made.out << made.err);
  CHECK(made.exit_code == 0);
  CHECK_THAT(made.out, Contains("made     publication millrace: It is made."));
  const CommandResult again = call("setup", {"--json"});
  CHECK(again.exit_code == 0);
  CHECK_THAT(again.out, !Contains("made\""));
  REQUIRE(call("run", {"--store", store, "--until-caught-up"}).exit_code == 0);

  const CommandResult would =
      millrace({"capture", "teardown", "--source", database.uri(), "--store", store});
  CHECK(would.exit_code == 0);
  CHECK_THAT(would.out, Contains("would    slot slot_") && Contains("--yes does it"));
  const CommandResult removed = call("teardown", {"--store", store, "--yes", "--json"});
  CHECK(removed.exit_code == 0);
  std::istringstream lines(removed.out);
  for (std::string line; std::getline(lines, line);)
    CHECK(json::parse(line).at("state") == "removed");
  CHECK(database.value("SELECT count(*) FROM pg_publication") == "0");
  const CommandResult nothing = call("teardown", {"--yes"});
  CHECK(nothing.exit_code == 0);
  CHECK_THAT(nothing.out, Contains("absent   slot") && Contains("absent   publication"));

  database.exec("CREATE TABLE notes (note text)");
  const CommandResult lacking = call("setup");
  CHECK(lacking.exit_code == 1);
  CHECK_THAT(lacking.out, Contains("fix: ALTER TABLE"));
}

}  // namespace
}  // namespace millrace::test
