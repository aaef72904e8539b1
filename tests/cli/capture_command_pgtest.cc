#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/sample_store.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

class Fixture {
 public:
  Fixture() {
    database.exec("CREATE TABLE orders (id integer PRIMARY KEY, note text)");
    database.exec("INSERT INTO orders VALUES (1, 'one'), (2, 'two')");
  }
  std::vector<std::string> run_arguments() const {
    return {"capture", "run", "--source", database.uri(), "--store", store, "--slot", slot};
  }
  /// Names of the slots and publications in the database. A server drops a temporary slot when it
  /// notices that its connection has ended, a moment after the client.
  std::string replication_leftovers() {
    const auto names = [&] {
      return database.value(
          "SELECT coalesce(string_agg(name, ' '), '') FROM ("
          "SELECT slot_name AS name FROM pg_replication_slots WHERE database = current_database() "
          "UNION ALL SELECT pubname FROM pg_publication) AS names");
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!names().empty() && std::chrono::steady_clock::now() < deadline) ::usleep(10'000);
    return names();
  }

  TestDatabase database;
  TemporaryDirectory directory;
  const std::string store = (directory / "store").string();
  const std::string slot = "slot_" + database.name();
};

TEST_CASE_METHOD(Fixture, "capture run fills a store that every other command reads",
                 "[cli][capture]") {
  auto arguments = run_arguments();
  arguments.emplace_back("--until-caught-up");
  const CommandResult first = millrace(arguments);
  INFO(first.err);
  REQUIRE(first.exit_code == 0);
  CHECK(first.out.empty());
  database.exec("UPDATE orders SET note = 'zwei' WHERE id = 2");
  REQUIRE(millrace(arguments).exit_code == 0);

  std::istringstream lines(millrace({"log", "tail", "--json", "--store", store}).out);
  std::string operations;
  for (std::string line; std::getline(lines, line);)
    if (const json event = json::parse(line); event.at("category") != "$capture")
      operations += event.at("op").get<std::string>();
  CHECK(operations == "rru");
  CHECK(millrace({"log", "verify", "--store", store}).exit_code == 0);
  CHECK_THAT(millrace({"schema", "list", "--store", store}).out, Contains("public.orders"));
  const json status = json::parse(millrace({"status", "--json", "--store", store}).out);
  CHECK(status.at("source").at("database") == database.name());
  CHECK(status.at("source").at("slot") == slot);
}

TEST_CASE_METHOD(Fixture, "capture run ends with 0 on a signal", "[cli][capture]") {
  std::vector<std::string> command = run_arguments();
  command.insert(command.begin(), MILLRACE_PROGRAM);
  ChildProcess capture(command);
  const auto captured = [&] {
    const auto tail =
        millrace({"log", "tail", "--json", "--store", store, "--category", "public.orders"});
    return std::count(tail.out.begin(), tail.out.end(), '\n');
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (captured() < 2 && capture.running() && std::chrono::steady_clock::now() < deadline)
    ::usleep(20'000);
  REQUIRE(captured() == 2);
  capture.kill(SIGTERM);
  CHECK(capture.wait() == 0);
  const json status = json::parse(millrace({"status", "--json", "--store", store}).out);
  const auto lsn = status.at("capture").at("durable").get<std::string>();
  CHECK_THAT(capture.error_output(),
             Contains("stopped at offset " + status.at("durable_end").dump() + ", LSN " + lsn +
                      ": the next start goes on there"));
}

TEST_CASE_METHOD(Fixture, "status tells a capture that runs from one that was killed",
                 "[cli][capture][status]") {
  std::vector<std::string> command = run_arguments();
  command.insert(command.begin(), MILLRACE_PROGRAM);
  command.insert(command.end(), {"--listen", "127.0.0.1:0", "--probe-interval", "0"});
  ChildProcess capture(command);
  const auto status = [&] {
    const CommandResult told = millrace({"status", "--json", "--store", store});
    return told.exit_code == 0 ? json::parse(told.out).at("capture") : json();
  };
  const auto comes_to = [&](const std::function<bool(const json&)>& wanted) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      if (const json now = status(); now.is_object() && wanted(now)) return true;
      ::usleep(20'000);
    }
    return false;
  };
  REQUIRE(comes_to([](const json& now) { return now.at("state") == "streaming"; }));
  database.exec("UPDATE orders SET note = 'zwei' WHERE id = 2");
  REQUIRE(comes_to([](const json& now) {
    return now.at("table_changes") == json{{"public.orders", 1}} &&
           now.at("retained_wal_bytes").is_number();
  }));
  const json running = status();
  CHECK(running.at("running") == true);
  CHECK(running.at("responding") == true);
  CHECK(running.at("pid") == capture.pid());
  CHECK_THAT(millrace({"status", "--store", store}).out,
             Contains("streaming since") && Contains("metrics at http://127.0.0.1:") &&
                 Contains("1 change in 1 transaction since"));

  ChildProcess watch({MILLRACE_PROGRAM, "status", "--watch", "--json", "--store", store});
  for (int i = 0; i < 2; ++i) {
    const auto line = watch.read_line();
    REQUIRE(line);
    CHECK(json::parse(*line).at("capture").at("running") == true);
  }
  watch.kill(SIGTERM);
  CHECK(watch.wait() == 0);

  capture.kill(SIGKILL);
  capture.wait();
  CHECK(status().at("running") == false);
  CHECK(status().at("ready") == false);
  CHECK_THAT(millrace({"status", "--store", store}).out,
             Contains("not running: it was killed, last seen streaming at"));
  auto again = run_arguments();
  again.emplace_back("--until-caught-up");
  REQUIRE(millrace(again).exit_code == 0);
  CHECK(status().at("state") == "stopped");
}

TEST_CASE_METHOD(Fixture, "status tells which tables are captured now, and which were",
                 "[cli][capture][status]") {
  database.exec(
      "CREATE TABLE lines (id integer PRIMARY KEY); INSERT INTO lines VALUES (1);"
      "CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT "
      "NULL, type text NOT NULL, payload jsonb)");
  const auto run = [&](const std::vector<std::string>& more) {
    auto arguments = run_arguments();
    arguments.insert(arguments.end(), {"--until-caught-up", "--outbox", "public.outbox"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = millrace(arguments);
    INFO(result.err);
    CHECK(result.exit_code == 0);
  };
  const auto tables = [&] {
    const json status = json::parse(millrace({"status", "--json", "--store", store}).out);
    std::string text = status.at("source").at("tables").get<std::string>() + " " +
                       status.at("source").at("outbox").dump();
    for (const json& table : status.at("tables"))
      text += "; " + table.at("category").get<std::string>() + " " +
              table.at("captured").get<std::string>();
    return text;
  };
  run({});
  CHECK(tables() ==
        R"(public.* ["public.outbox"]; public.lines now; public.orders now; public.outbox outbox)");
  run({"--tables", "public.orders"});
  const std::string narrowed =
      R"(public.orders ["public.outbox"]; public.lines formerly; public.orders now; )"
      "public.outbox outbox";
  CHECK(tables() == narrowed);
  run({});  // goes on with the same
  CHECK(tables() == narrowed);
  const std::string text = millrace({"status", "--store", store}).out;
  CHECK_THAT(text, Contains("--tables public.orders, --outbox public.outbox\n") &&
                       Contains("public.outbox  -               outbox\n") &&
                       Contains("public.lines   1               formerly\n"));

  database.exec("DROP PUBLICATION millrace");
  auto halting = run_arguments();
  halting.insert(halting.end(), {"--until-caught-up", "--outbox", "public.outbox"});
  CHECK(millrace(halting).exit_code == 1);
  CHECK(tables() == narrowed);  // the last that is known
}

TEST_CASE_METHOD(Fixture, "status tells why a capture halted, in the words of the error",
                 "[cli][capture][status]") {
  auto arguments = run_arguments();
  arguments.insert(arguments.end(), {"--until-caught-up", "--publication", R"(a "b" \c)"});
  REQUIRE(millrace(arguments).exit_code == 0);
  database.exec(R"(DROP PUBLICATION "a ""b"" \c")");
  CHECK(millrace(arguments).exit_code == 1);
  const json status = json::parse(millrace({"status", "--json", "--store", store}).out);
  CHECK(status.at("capture").at("state") == "halted:PUBLICATION_MISSING");
  CHECK(status.at("capture").at("reason") ==
        R"(PUBLICATION_MISSING: publication a "b" \c is gone from the server)");
  CHECK_THAT(millrace({"status", "--store", store}).out,
             Contains(R"(publication a \"b\" \\c is gone)"));
}

TEST_CASE_METHOD(Fixture, "capture run listens only where it is told and only at an address",
                 "[cli][capture]") {
  for (const char* wrong : {"localhost:9187", "9187x", ":9187", "http://127.0.0.1:9187"}) {
    auto arguments = run_arguments();
    arguments.insert(arguments.end(), {"--listen", wrong});
    const CommandResult result = millrace(arguments);
    INFO(result.err);
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.err, Contains("no address to listen at"));
  }
  CHECK(replication_leftovers().empty());
}

TEST_CASE_METHOD(Fixture, "capture tail shows changes and leaves nothing behind",
                 "[cli][capture]") {
  ChildProcess tail(
      {MILLRACE_PROGRAM, "capture", "tail", "--json", "--limit", "2", "--source", database.uri()});
  // What is committed before the slot exists is not shown, so go on writing until something is.
  std::optional<std::string> line;
  for (int i = 10; !line && i < 100; ++i) {
    database.exec("INSERT INTO orders VALUES (" + std::to_string(i) + ", 'new')");
    line = tail.read_line(std::chrono::milliseconds(500));
  }
  REQUIRE(line);
  const json event = json::parse(*line);
  CHECK(event.at("op") == "c");
  CHECK(event.at("after").at("note") == "new");
  CHECK_FALSE(event.contains("offset"));
  database.exec("DELETE FROM orders WHERE id = 1");
  CHECK(tail.wait() == 0);
  CHECK(replication_leftovers().empty());
}

TEST_CASE_METHOD(Fixture, "capture check tells problems with the statement that mends them",
                 "[cli][capture]") {
  const std::vector<std::string> command{"capture", "check", "--source", database.uri()};
  const CommandResult good = millrace(command);
  INFO(good.out << good.err);
  CHECK(good.exit_code == 0);

  database.exec("CREATE TABLE notes (note text)");
  const CommandResult bad = millrace(command);
  CHECK_THAT(bad.out, Contains("notes") && Contains("fix: ALTER TABLE"));
  auto in_json = command;
  in_json.emplace_back("--json");
  std::istringstream lines(millrace(in_json).out);
  for (std::string line; std::getline(lines, line);) CHECK(json::parse(line).contains("severity"));
  CHECK(replication_leftovers().empty());
}

TEST_CASE("a source that can't be reached ends with 4, and no password is shown",
          "[cli][capture]") {
  const TemporaryDirectory directory;
  const std::string source = "postgresql://me:geheim@127.0.0.1:1/shop";
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"capture", "check"},
        {"capture", "tail"},
        {"capture", "run", "--store", (directory / "store").string()}}) {
    auto arguments = command;
    arguments.insert(arguments.end(), {"--source", source, "--log-level", "trace"});
    const CommandResult result = millrace(arguments);
    INFO(result.err);
    CHECK(result.exit_code == 4);
    CHECK_THAT(result.err, Contains("millrace: ") && !Contains("geheim"));
    CHECK(result.out.empty());
  }
}

/// The whole file.
std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TEST_CASE("the example's .proto files are what schema export writes of its tables",
          "[cli][schema]") {
  const std::filesystem::path shop = std::filesystem::path(MILLRACE_SOURCE_DIR) / "examples/shop";
  TestDatabase database;
  database.exec(read(shop / "schema.sql"));
  const TemporaryDirectory directory;
  const std::string store = (directory / "store").string(), out = (directory / "rows").string();
  const CommandResult run =
      millrace({"capture", "run", "--until-caught-up", "--source", database.uri(), "--store", store,
                "--slot", "slot_" + database.name()});
  INFO(run.err);
  REQUIRE(run.exit_code == 0);
  // The package is what a database of the name "shop" would give.
  REQUIRE(millrace({"schema", "export", "--store", store, "--out", out, "--package", "shop"})
              .exit_code == 0);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(out)) {
    if (!entry.is_regular_file()) continue;
    INFO(entry.path().filename());
    CHECK(read(entry.path()) == read(shop / "rows" / entry.path().filename()));
    ++files;
  }
  CHECK(files == 3);
}

}  // namespace
}  // namespace millrace::test
