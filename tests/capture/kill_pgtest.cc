// F1, F4: a random workload runs while capture is killed with SIGKILL at random moments. At the end
// the fold of the log equals every table, every committed transaction is in it once, and none that
// was rolled back.
//
// MILLRACE_KILLS sets how many kills there are, MILLRACE_SEED the workload; both are printed.
#include <csignal>
#include <random>
#include <thread>

#include "eventstore/inspect.h"
#include "tests/support/capture_runner.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using test::CapturedLog;

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

/// Three tables with all kinds of identity, and one row in `audit` for each transaction, in it.
constexpr const char* kTables = R"(
  CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,3), tags text[], doc jsonb, big text);
  ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE pairs (a int, b text, n bigint, PRIMARY KEY (a, b));
  ALTER TABLE pairs REPLICA IDENTITY FULL;
  CREATE TABLE codes (id int PRIMARY KEY, code text NOT NULL UNIQUE, at timestamptz);
  ALTER TABLE codes REPLICA IDENTITY USING INDEX codes_code_key;
  CREATE TABLE audit (id int PRIMARY KEY);
  INSERT INTO items SELECT g, 'item ' || g, g * 1.5, ARRAY['a', g::text], '{"n": 1}', repeat('x', 3000) FROM generate_series(1, 200) g)";

class Workload {
 public:
  Workload(test::TestDatabase& database, unsigned seed) : database_(database), random_(seed) {}

  void one_transaction() {
    std::string sql = "BEGIN;";
    for (int i = pick(1, 6); i > 0; --i) sql += statement() + ";";
    if (pick(1, 10) == 1) sql += "SAVEPOINT s; " + statement() + "; ROLLBACK TO s;";
    const bool keep = pick(1, 8) != 1;
    sql += "INSERT INTO audit VALUES (" + std::to_string(++number_) + ");";
    database_.exec(sql + (keep ? "COMMIT" : "ROLLBACK"));
    if (keep) committed_.push_back(number_);
  }
  const std::vector<int>& committed() const { return committed_; }

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string id() { return std::to_string(pick(1, 300)); }

  std::string statement() {
    switch (pick(1, 14)) {
      case 1:
        return "INSERT INTO items VALUES (" + id() +
               ", 'n''ew\\', NULL, NULL, '[1, null]', repeat('y', " + id() +
               " * 20)) ON CONFLICT DO NOTHING";
      case 2:
        return "UPDATE items SET name = md5(" + id() + "::text), price = " + id() +
               ".125 WHERE id = " + id();
      case 3:
        return "UPDATE items SET big = repeat('z', " + id() +
               " * 30), tags = ARRAY[NULL, 'q\"'] WHERE id = " + id();
      case 4:
        return "UPDATE items SET id = id + 1000 WHERE id = " + id() +
               " AND NOT EXISTS (SELECT FROM items o WHERE o.id = items.id + 1000)";
      case 5: return "DELETE FROM items WHERE id = " + id();
      case 6:
        return "INSERT INTO pairs VALUES (" + id() + ", 'b,\\" + id() +
               "', 1) ON CONFLICT (a, b) DO UPDATE SET n = pairs.n + 1";
      case 7:
        return "UPDATE pairs SET b = b || '!' WHERE a = " + id() +
               " AND NOT EXISTS (SELECT FROM pairs o WHERE o.a = pairs.a AND o.b = pairs.b || '!')";
      case 8: return "DELETE FROM pairs WHERE a < " + std::to_string(pick(1, 20));
      case 9:
        return "INSERT INTO codes VALUES (" + id() + ", 'c" + id() +
               "', now()) ON CONFLICT DO NOTHING";
      case 10:
        return "UPDATE codes SET at = 'infinity' WHERE id % 7 = " + std::to_string(pick(0, 6));
      case 11:
        return "UPDATE codes SET code = code || '*' WHERE id = " + id() +
               " AND NOT EXISTS (SELECT FROM codes o WHERE o.code = codes.code || '*')";
      case 12:
        return "INSERT INTO items SELECT g, 'bulk', g, NULL, NULL, NULL FROM generate_series(" +
               id() + ", " + id() + ") g ON CONFLICT DO NOTHING";
      case 13:
        return pick(1, 15) == 1 ? "TRUNCATE codes"
                                : "UPDATE items SET doc = NULL WHERE id % 11 = 3";
      default: return "UPDATE items SET name = name WHERE id = " + id();
    }
  }

  test::TestDatabase& database_;
  std::minstd_rand random_;
  int number_ = 0;
  std::vector<int> committed_;
};

std::uint64_t durable_end(const Path& store) {
  const auto summary = summarize_store(store);
  return summary ? summary->durable_end.value : 0;
}

/// The table as SQL sees it now, in the words of the log's JSON.
CapturedLog::Table table_now(test::TestDatabase& database, const std::string& sql) {
  CapturedLog::Table table;
  for (const auto& row : database.query(sql)) table[*row[0]] = nlohmann::json::parse(*row[1]);
  return table;
}

TEST_CASE("F1, F4: capture killed at random moments loses nothing and repeats nothing",
          "[capture][kill]") {
  const int kills = setting("MILLRACE_KILLS", 25);
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  CAPTURE(seed, kills);
  test::TestDatabase database;
  test::TemporaryDirectory directory;
  database.exec(kTables);
  const std::string store = directory / "store";
  const auto command = [&](bool to_the_end) {
    std::vector<std::string> argv{MILLRACE_PROGRAM, "capture",     "run", "--source",
                                  database.uri(),   "--store",     store, "--slot",
                                  database.name(),  "--log-level", "warn"};
    if (to_the_end) argv.emplace_back("--until-caught-up");
    return argv;
  };

  Workload workload(database, seed);
  std::minstd_rand random(seed);
  {
    std::jthread writer([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) workload.one_transaction();
    });
    for (int i = 0; i < kills; ++i) {
      const std::uint64_t before = durable_end(store);
      test::ChildProcess capture(command(false));
      // Every other one is killed wherever it is, the rest at some moment after they have captured
      // something.
      if (i % 2 == 0)
        REQUIRE(
            test::eventually([&] { return durable_end(store) > before; }, std::chrono::minutes(1)));
      std::this_thread::sleep_for(std::chrono::milliseconds(
          std::uniform_int_distribution<int>(0, i % 2 == 0 ? 200 : 700)(random)));
      capture.kill(SIGKILL);
      const int code = capture.wait().value_or(-1);
      INFO("kill " << i << "\n" << capture.error_output());
      REQUIRE(code == 128 + SIGKILL);
    }
  }
  const test::CommandResult last =
      test::run_command(command(true), {}, {}, std::chrono::minutes(2));
  INFO(last.err);
  REQUIRE(last.exit_code == 0);

  const CapturedLog log = test::read_captured_log(store);
  CHECK(log.of("public.audit", "c").size() >
        log.of("public.audit", "r").size());  // most of it came through the stream
  CHECK(log.faults == std::vector<std::string>());
  std::vector<int> audited;
  for (const auto& event : log.events)
    if (event["category"] == "public.audit") audited.push_back(event["after"]["id"]);
  // What a snapshot read comes in the table's order, and so does the rest: transactions ran one
  // after the other.
  CHECK(audited == workload.committed());
  REQUIRE(workload.committed().size() > static_cast<std::size_t>(kills));

  const auto folded = [&](const char* category) {
    return log.tables.contains(category) ? log.tables.at(category) : CapturedLog::Table();
  };
  CHECK(folded("public.items") ==
        table_now(database,
                  "SELECT id::text, jsonb_build_object('id', id, 'name', name, 'price', "
                  "price::text, 'tags', tags, 'doc', doc, 'big', big) FROM items"));
  CHECK(
      folded("public.pairs") ==
      table_now(
          database,
          R"(SELECT a || ',' || replace(replace(b, '\', '\\'), ',', '\,'), to_jsonb(pairs) FROM pairs)"));
  CHECK(folded("public.codes") ==
        table_now(database, "SET TimeZone = 'UTC'; SELECT code, to_jsonb(codes) FROM codes"));
  const test::CommandResult verified =
      test::run_command({MILLRACE_PROGRAM, "log", "verify", "--store", store});
  CHECK(verified.exit_code == 0);
}

}  // namespace
}  // namespace millrace
