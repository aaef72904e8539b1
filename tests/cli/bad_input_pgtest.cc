// What a user gets wrong, through the program: the exit code, one message that says what to do, and
// nothing changed, neither in the source nor in the store.
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/cli/sample_store.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using nlohmann::json;
using Arguments = std::vector<std::string>;

/// A database with one table that can be captured, and what the commands need to be told.
class Source {
 public:
  explicit Source(PostgresServer& server = PostgresServer::shared()) : database(server) {
    database.exec("CREATE TABLE orders (id integer PRIMARY KEY, note text)");
    database.exec("INSERT INTO orders VALUES (1, 'one'), (2, 'two')");
  }
  Arguments run_as(const std::string& source, const Arguments& more = {}) const {
    Arguments arguments{"capture", "run", "--source", source, "--store", store, "--slot", slot};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Arguments run() const { return run_as(database.uri()); }
  Arguments run_once() const { return run_as(database.uri(), {"--until-caught-up"}); }
  Arguments check() const {
    return {"capture", "check", "--source", database.uri(), "--slot", slot};
  }
  Arguments tail() const { return {"capture", "tail", "--source", database.uri()}; }

  /// Slots, how far each has come, and publications.
  std::string state() {
    return database.value(
        "SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM ("
        "SELECT slot_name || coalesce('@' || confirmed_flush_lsn, '') AS name "
        "FROM pg_replication_slots WHERE coalesce(database, current_database()) = "
        "current_database() UNION ALL SELECT pubname FROM pg_publication) AS names");
  }

  TestDatabase database;
  TemporaryDirectory directory;
  const std::string store = (directory / "store").string();
  const std::string slot = "slot_" + database.name();
};

/// Every file below `folder`, with its bytes; but for the lock, which says who came last.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.path().filename() == "LOCK") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path()] = std::string(std::istreambuf_iterator<char>(file), {});
  }
  return files;
}

/// Runs a command that must end with `exit_code` and say `message`, and change nothing.
void check_refused(Source& source, const Arguments& arguments, int exit_code,
                   const std::string& message) {
  const std::string state = source.state();
  const auto files = files_of(source.directory.path());
  const CommandResult result = millrace(arguments);
  INFO(arguments[0] << ' ' << arguments[1] << ": " << result.out << result.err);
  CHECK(result.exit_code == exit_code);
  CHECK_THAT(result.err, Contains("millrace: "));
  CHECK_THAT(result.out + result.err, Contains(message));
  CHECK(source.state() == state);
  const auto files_after = files_of(source.directory.path());
  CHECK(files_after.size() == files.size());
  for (const auto& [name, bytes] : files_after) {
    INFO(name);
    CHECK((files.contains(name) && files.at(name) == bytes));
  }
}

void wait_until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ::usleep(20'000);
  }
}

/// The process that writes the store now; empty for none, or no store yet.
std::string writer_of(const std::string& store) {
  const CommandResult status = millrace({"status", "--json", "--store", store});
  if (status.exit_code != 0) return "";
  const json writer = json::parse(status.out).at("writer");
  return writer.is_null() ? "" : writer.get<std::string>();
}

TEST_CASE("a wrong password is said so by every command, without showing it", "[cli][bad]") {
  PostgresServer server(
      {.tcp = true, .hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"});
  Source source(server);
  source.database.exec("CREATE ROLE app LOGIN REPLICATION PASSWORD 'right'");
  std::string uri = server.tcp_uri(source.database.name(), "app");
  uri.insert(uri.find("app") + 3, ":geheim");
  for (const Arguments& arguments :
       {Arguments{"capture", "check", "--source", uri},
        Arguments{"capture", "tail", "--source", uri}, source.run_as(uri),
        source.run_as(uri, {"--log-level", "trace"})}) {
    check_refused(source, arguments, 4, "password authentication failed");
    CHECK_THAT(millrace(arguments).err, !Contains("geheim"));
  }
}

TEST_CASE("a password on capture run's command line is in no process list, log or file",
          "[cli][bad]") {
  PostgresServer server(
      {.tcp = true, .hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"});
  Source source(server);
  source.database.exec("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'ge&heim'");
  const bool as_uri = GENERATE(true, false);
  std::string uri = server.tcp_uri(source.database.name(), "app");
  uri.insert(uri.find("app") + 3, ":ge&heim");
  const std::string keywords = "host=127.0.0.1 port=" + std::to_string(server.port()) +
                               " user=app password=ge&heim dbname=" + source.database.name();
  Arguments command = source.run_as(as_uri ? uri : keywords, {"--log-level", "trace"});
  command.insert(command.begin(), MILLRACE_PROGRAM);
  ChildProcess capture(command);
  wait_until([&] {
    if (!capture.running()) FAIL(capture.error_output());
    return capture.error_output().find("streaming database") != std::string::npos;
  });
  std::ifstream file("/proc/" + std::to_string(capture.pid()) + "/cmdline");
  const std::string command_line(std::istreambuf_iterator<char>(file), {});
  CHECK_THAT(command_line, Contains("*******") && !Contains("heim"));
  // What it says when the server goes is the most that it ever says of its connections.
  const std::size_t said = capture.error_output().size();
  server.stop();
  wait_until([&] { return capture.error_output().size() > said; });
  capture.kill(SIGTERM);
  INFO(capture.error_output());
  CHECK(capture.wait() == 0);
  CHECK_THAT(capture.error_output(), !Contains("heim"));
  for (const auto& [name, bytes] : files_of(source.store)) {
    INFO(name);
    CHECK(bytes.find("heim") == bytes.npos);
  }
}

TEST_CASE("a server whose wal_level is not logical is refused", "[cli][bad]") {
  PostgresServer server({.settings = {{"wal_level", "replica"}}});
  Source source(server);
  for (const Arguments& arguments : {source.run(), source.check(), source.tail()})
    check_refused(source, arguments, 1, "ALTER SYSTEM SET wal_level = 'logical'");
}

TEST_CASE("a server without a free slot is refused", "[cli][bad]") {
  PostgresServer server({.settings = {{"max_replication_slots", "1"}}});
  Source source(server);
  source.database.exec("SELECT pg_create_physical_replication_slot('standby')");
  for (const Arguments& arguments : {source.run(), source.check(), source.tail()})
    check_refused(source, arguments, 1, "No replication slot is free");
}

TEST_CASE("a role that may not make the publication is told who may", "[cli][bad]") {
  Source source;
  const std::string role = "app_" + source.database.name();
  source.database.exec("CREATE ROLE " + role + " LOGIN REPLICATION; GRANT SELECT ON orders TO " +
                       role);
  const std::string uri = source.database.server().uri(source.database.name(), role);
  const std::string statement = "CREATE PUBLICATION \"millrace\" FOR TABLE";
  CHECK_THAT(millrace(source.run_as(uri)).err, Contains(statement));
  check_refused(source, source.run_as(uri), 1, "role " + role + " may not create it");
  source.database.exec("GRANT CREATE ON DATABASE " + source.database.name() + " TO " + role);
  CHECK_THAT(millrace(source.run_as(uri)).err, Contains(statement));
  check_refused(source, source.run_as(uri), 1, "does not own");

  // With the publication there it needs neither.
  source.database.exec("CREATE PUBLICATION millrace FOR TABLE orders");
  const CommandResult result = millrace(source.run_as(uri, {"--until-caught-up"}));
  INFO(result.err);
  CHECK(result.exit_code == 0);
  source.database.exec("DROP OWNED BY " + role + "; DROP ROLE " + role);
}

TEST_CASE("a table without replica identity is refused with the statement that mends it",
          "[cli][bad]") {
  Source source;
  source.database.exec("CREATE TABLE notes (note text)");
  for (const Arguments& arguments : {source.run(), source.check()})
    check_refused(source, arguments, 1, "ALTER TABLE \"public\".\"notes\" REPLICA IDENTITY FULL");
}

TEST_CASE("a second capture run on a store is refused, and the first goes on", "[cli][bad]") {
  Source source;
  Arguments command = source.run();
  command.insert(command.begin(), MILLRACE_PROGRAM);
  ChildProcess first(command);
  wait_until([&] { return first.error_output().find("streaming database") != std::string::npos; });
  const std::string writer = writer_of(source.store);
  CHECK_THAT(writer, Contains(std::to_string(first.pid())));

  // With the same slot, and with one of its own.
  for (const std::string& slot : {source.slot, std::string("another")}) {
    const CommandResult second =
        millrace({"capture", "run", "--source", source.database.uri(), "--store", source.store,
                  "--slot", slot, "--publication", slot == "another" ? "another" : "millrace"});
    INFO(second.err);
    CHECK(second.exit_code == 1);
    CHECK_THAT(second.err, Contains(std::to_string(first.pid())) && Contains("one writer"));
  }
  CHECK(writer_of(source.store) == writer);
  CHECK_THAT(source.state(), !Contains("another"));
  source.database.exec("INSERT INTO orders VALUES (3, 'three')");
  wait_until([&] {
    return millrace({"log", "tail", "--store", source.store, "--key", "3"}).out.size() > 0;
  });
  first.kill(SIGTERM);
  CHECK(first.wait() == 0);
}

TEST_CASE("capture run leaves a store of a newer format and a foreign folder alone", "[cli][bad]") {
  Source source;
  SECTION("newer") {
    SampleStore(source.store).make_newer();
    check_refused(source, source.run(), 1, "the store has format 999");
  }
  SECTION("foreign") {
    fs::create_directory(source.store);
    std::ofstream(source.store + "/letter.txt") << "mine";
    check_refused(source, source.run(), 1, "is no millrace store");
  }
}

TEST_CASE("a damaged segment ends what reads it with 3, and nothing is changed", "[cli][bad]") {
  Source source;
  REQUIRE(millrace(source.run_once()).exit_code == 0);
  source.database.exec("INSERT INTO orders VALUES (3, 'behind the damage')");
  REQUIRE(millrace(source.run_once()).exit_code == 0);
  const std::string segment = source.store + "/log/00000000000000000000.log";
  damage(segment, "two");
  source.database.exec("INSERT INTO orders VALUES (4, 'not captured')");

  const std::string place = "log/00000000000000000000.log";
  check_refused(source, source.run_once(), 3, place);
  check_refused(source, {"log", "stat", "--store", source.store}, 3, place);

  // status reads no event as long as HEAD says where the log ends; to find the end, it must.
  const Arguments status{"status", "--store", source.store};
  CHECK(millrace(status).exit_code == 0);
  fs::remove(source.store + "/HEAD");
  check_refused(source, status, 3, place);
}

}  // namespace
}  // namespace millrace::test
