// verify_source against a real server: finds what differs, and nothing where nothing does.
#include <atomic>
#include <random>
#include <thread>

#include "capture/verify.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/catch.h"
#include "tests/support/store_fixture.h"

namespace millrace {
namespace {

using test::BackgroundCapture;
using test::catch_up;
using test::eventually;
using test::must;
using test::Scene;

struct Outcome {
  std::vector<TableReport> tables;
  std::vector<TableDifference> differences;

  const TableCounts& counts(const std::string& category = "public.orders") const {
    for (const TableReport& table : tables)
      if (table.category == category) return table.counts;
    FAIL("no report of " + category);
    throw std::logic_error("no report");
  }
  std::uint64_t all_differences() const {
    std::uint64_t sum = 0;
    for (const TableReport& table : tables) sum += table.counts.differences();
    return sum;
  }
  /// "differs 42 in status,total"
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    for (const TableDifference& one : differences) {
      std::string line = std::string(name_of(one.kind)) + " " + one.key;
      for (const std::string& column : one.columns) line += " " + column;
      lines.push_back(line);
    }
    return lines;
  }
};

Result<Outcome> try_verify(Scene& scene, const std::vector<std::string>& tables = {},
                           std::size_t memory_bytes = 64 << 20) {
  Outcome outcome;
  auto reports = verify_source({.source = scene.database.uri(),
                                .store = scene.store(),
                                .tables = tables,
                                .memory_bytes = memory_bytes},
                               {}, [&](const TableDifference& difference) -> Result<void> {
                                 outcome.differences.push_back(difference);
                                 return {};
                               });
  if (!reports) return std::move(reports).error();
  outcome.tables = *std::move(reports);
  return outcome;
}

Outcome verify(Scene& scene, const std::vector<std::string>& tables = {}) {
  return must(try_verify(scene, tables));
}

using Lines = std::vector<std::string>;

TEST_CASE("a store that has everything differs in nothing", "[capture][verify]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE lines (order_id bigint, n int, note text, PRIMARY KEY (order_id, n));"
      "INSERT INTO orders SELECT g, 'new', g, NULL FROM generate_series(1, 500) g;"
      "INSERT INTO lines SELECT g, g % 3, 'a,b\\c' FROM generate_series(1, 500) g");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("UPDATE orders SET status = 'paid' WHERE id % 7 = 0");
  scene.database.exec("DELETE FROM orders WHERE id % 11 = 0; UPDATE lines SET n = 5 WHERE n = 1");
  scene.database.exec("TRUNCATE lines; INSERT INTO lines VALUES (1, 1, '')");
  REQUIRE(catch_up(scene.options()));
  const Outcome outcome = verify(scene);
  CHECK(outcome.lines() == Lines());
  CHECK(outcome.counts().live == 455);
  CHECK(outcome.counts().stored == 455);
  CHECK(outcome.counts().equal == 455);
  CHECK(outcome.counts("public.lines").equal == 1);
  CHECK(verify(scene, {"public.l*"}).tables.size() == 1);
}

TEST_CASE("F69: what happened to a table while it was out of the publication is named",
          "[capture][verify]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 100) g");
  REQUIRE(catch_up(scene.options()));
  const std::string publication = "ALTER PUBLICATION millrace ";
  scene.database.exec("CREATE TABLE other (id int PRIMARY KEY)");
  scene.database.exec(publication + "ADD TABLE other; " + publication + "DROP TABLE orders");
  scene.database.exec(
      "DELETE FROM orders WHERE id = 7; INSERT INTO orders VALUES (101, 'x', 1);"
      "UPDATE orders SET status = 'paid', total = 0 WHERE id = 9;"
      "UPDATE orders SET id = 1000 WHERE id = 10");
  scene.database.exec(publication + "ADD TABLE orders");
  CaptureOptions options = scene.options();
  options.accept_publication_change = true;
  options.initial_snapshot = false;  // the rows that it missed stay missed
  REQUIRE(catch_up(options));
  const Outcome outcome = verify(scene, {"public.orders"});
  CHECK(outcome.lines() == Lines{"missing in the table 10", "missing in the store 1000",
                                 "missing in the store 101", "missing in the table 7",
                                 "different 9 status total"});
  CHECK(outcome.counts().equal == 97);
  CHECK(outcome.counts().live == 100);
  CHECK(outcome.counts().stored == 100);
}

TEST_CASE("a store that is behind is told so, and nothing is compared", "[capture][verify]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'x', 1)");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("CREATE TABLE not_captured (id int)");
  scene.database.exec("INSERT INTO not_captured VALUES (1)");
  CHECK(verify(scene).counts().equal == 1);  // WAL of others is nothing that is missing
  scene.database.exec("INSERT INTO orders VALUES (2, 'x', 1)");
  const std::uint64_t end = scene.durable_changes();
  const auto behind = try_verify(scene);
  REQUIRE_FALSE(behind);
  CHECK(behind.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(behind.error().message().find("no capture is running") != std::string::npos);
  CHECK(behind.error().hint().find("--until-caught-up") != std::string::npos);
  CHECK(scene.durable_changes() == end);
  REQUIRE(catch_up(scene.options()));
  CHECK(verify(scene).counts().equal == 2);
}

TEST_CASE("F77: a large value that no event has told makes a row incomplete, not different",
          "[capture][verify]") {
  Scene scene;
  scene.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('long', 2000) FROM generate_series(1, 3) g");
  CaptureOptions options = scene.options();
  REQUIRE(catch_up(options));
  scene.database.exec("UPDATE orders SET status = 'told' WHERE id = 1");
  scene.database.exec("UPDATE orders SET id = 20, status = 'moved' WHERE id = 2");
  REQUIRE(catch_up(options));
  CHECK(verify(scene).lines() == Lines());  // the values are in the snapshot's events

  Scene other;  // no snapshot: nobody told
  other.database.exec(
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('long', 2000) FROM generate_series(1, 2) g");
  options = other.options();
  options.initial_snapshot = false;
  REQUIRE(catch_up(options));
  other.database.exec("UPDATE orders SET status = 'x'");
  REQUIRE(catch_up(options));
  const Outcome outcome = verify(other);
  CHECK(outcome.lines() ==
        Lines{"incomplete in the store 1 note", "incomplete in the store 2 note"});
  CHECK(outcome.all_differences() == 0);
  CHECK(outcome.counts().incomplete == 2);
}

TEST_CASE("F71: rows that were told under older columns are compared by what they mean",
          "[capture][verify]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders SELECT g, 'new', g, 'n' FROM generate_series(1, 4) g");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("ALTER TABLE orders DROP COLUMN note, ADD COLUMN nothing int");
  CHECK(verify(scene).lines() == Lines());  // also a shape that no event has told of yet
  scene.database.exec("INSERT INTO orders VALUES (5, 'x', 5, 5)");
  REQUIRE(catch_up(scene.options()));
  CHECK(verify(scene).lines() == Lines());
  scene.database.exec("ALTER TABLE orders ADD COLUMN paid boolean DEFAULT false");
  scene.database.exec("UPDATE orders SET status = 'y' WHERE id = 1");
  REQUIRE(catch_up(scene.options()));
  const Outcome outcome = verify(scene);
  CHECK(outcome.all_differences() == 0);
  CHECK(outcome.counts().incomplete == 4);
  CHECK(outcome.counts().equal == 1);
  CHECK(outcome.differences.at(0).columns == Lines{"paid"});
}

TEST_CASE("tables without a key are compared as often as each row is there", "[capture][verify]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE twins (a int, b text); ALTER TABLE twins REPLICA IDENTITY FULL;"
      "INSERT INTO twins VALUES (1, 'x'), (1, 'x'), (1, 'x'), (2, NULL), (2, NULL), (3, '')");
  REQUIRE(catch_up(scene.options()));
  CHECK(verify(scene, {"public.twins"}).lines() == Lines());
  scene.database.exec(
      "DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 1);"
      "UPDATE twins SET b = 'y' WHERE a = 2; INSERT INTO twins VALUES (3, '')");
  REQUIRE(catch_up(scene.options()));
  const Outcome outcome = verify(scene, {"public.twins"});
  CHECK(outcome.lines() == Lines());
  CHECK(outcome.counts("public.twins").equal == 6);
  CHECK(outcome.tables.at(0).counts_equal_rows);

  const std::string publication = "ALTER PUBLICATION millrace ";
  scene.database.exec(publication + "DROP TABLE twins");
  scene.database.exec(
      "DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 1);"
      "INSERT INTO twins VALUES (4, ''), (4, '')");
  scene.database.exec(publication + "ADD TABLE twins");
  CaptureOptions options = scene.options();
  options.accept_publication_change = true;
  options.initial_snapshot = false;  // the rows that it missed stay missed
  REQUIRE(catch_up(options));
  const TableCounts counts = verify(scene, {"public.twins"}).counts("public.twins");
  CHECK(counts.missing == 2);
  CHECK(counts.gone == 1);
  CHECK(counts.equal == 5);
}

TEST_CASE("F98: beside writers and a running capture nothing differs that does not",
          "[capture][verify]") {
  Scene scene;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  scene.database.exec(
      "CREATE TABLE twins (a int, b text); ALTER TABLE twins REPLICA IDENTITY FULL;"
      "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;"
      "INSERT INTO orders SELECT g, 'new', g, repeat('n', 5000) FROM generate_series(1, 300) g");
  BackgroundCapture capture(scene.options());
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  std::atomic<bool> stop = false;
  const auto write = [&](unsigned number) {
    std::minstd_rand random(seed + number);
    test::PostgresServer& server = scene.database.server();
    const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(
        PQconnectdb(server.uri(scene.database.name()).c_str()), PQfinish);
    while (!stop) {
      const std::string id = std::to_string(random() % 400), other = std::to_string(random() % 400);
      static const char* const kStatements[] = {
          "INSERT INTO orders VALUES ($1, 'in', 1, repeat('i', 3000)) ON CONFLICT DO NOTHING",
          "UPDATE orders SET status = status || 'u' WHERE id IN ($1, $2)",
          "UPDATE orders SET total = total + 1, note = repeat('u', 4000) WHERE id = $1",
          "DELETE FROM orders WHERE id = $1",
          "UPDATE orders SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM orders WHERE id = "
          "$2)",
          "BEGIN; UPDATE orders SET status = 'b' WHERE id = $1; SAVEPOINT s; UPDATE orders SET "
          "total = 5 WHERE id = $2; ROLLBACK TO s; UPDATE orders SET total = 6 WHERE id = $1; "
          "COMMIT",
          "INSERT INTO twins VALUES ($1 % 5, 'x')",
          "DELETE FROM twins WHERE ctid = (SELECT ctid FROM twins LIMIT 1)",
          "UPDATE twins SET a = $2 % 5 WHERE ctid = (SELECT ctid FROM twins LIMIT 1)",
      };
      std::string sql = kStatements[random() % std::size(kStatements)];
      for (std::size_t at = 0; (at = sql.find('$', at)) != std::string::npos;)
        sql.replace(at, 2, sql[at + 1] == '1' ? id : other);
      PQclear(PQexec(connection.get(), sql.c_str()));
      if (PQtransactionStatus(connection.get()) != PQTRANS_IDLE)
        PQclear(PQexec(connection.get(), "ROLLBACK"));  // a deadlock, a duplicate
    }
  };
  {
    std::vector<std::jthread> writers;
    for (unsigned i = 0; i < 3; ++i) writers.emplace_back(write, i);
    struct Stop {
      std::atomic<bool>& flag;
      ~Stop() { flag = true; }
    } const stop_writers{stop};
    for (int round = 0; round < 4; ++round) {
      const Outcome outcome = verify(scene);
      CHECK(outcome.lines() == Lines());
      CHECK(outcome.counts().live > 0);
    }
  }
  CHECK(capture.stop());
}

TEST_CASE("what does not fit into memory is sorted on disk, of which nothing stays",
          "[capture][verify]") {
  Scene scene;
  scene.database.exec(
      "INSERT INTO orders SELECT g, 'new', g, repeat('n', 200) FROM generate_series(1, 20000) g");
  REQUIRE(catch_up(scene.options()));
  scene.database.exec("UPDATE orders SET status = 'x' WHERE id % 3 = 0");
  scene.database.exec("UPDATE orders SET status = 'y' WHERE id % 5 = 0");
  REQUIRE(catch_up(scene.options()));
  std::vector<std::string> before, after;
  for (const auto& entry : std::filesystem::directory_iterator(scene.store()))
    before.push_back(entry.path().string());
  const Outcome outcome = must(try_verify(scene, {}, 256 << 10));
  for (const auto& entry : std::filesystem::directory_iterator(scene.store()))
    after.push_back(entry.path().string());
  CHECK(outcome.lines() == Lines());
  CHECK(outcome.counts().equal == 20'000);
  CHECK(before == after);
}

TEST_CASE(
    "F70, F74: filters, column lists, partitions and values of many types are compared as "
    "they are captured",
    "[capture][verify]") {
  Scene scene;
  scene.database.exec(
      "CREATE TYPE mood AS ENUM ('sad', 'ok');"
      "CREATE TABLE kinds (id int, \"part,2\" text, f float8, n numeric, j jsonb, a int[], d date, "
      "t timestamptz, i interval, b bytea, m mood, r int4range, v bit(5), u uuid, c char(5), "
      "p point, net inet, s tsvector, PRIMARY KEY (id, \"part,2\"));"
      "CREATE TABLE measures (day date, n int, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);"
      "CREATE TABLE m1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
      "CREATE TABLE m2 PARTITION OF measures FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');"
      "CREATE PUBLICATION millrace FOR TABLE orders (id, status, total) WHERE (id < 100), kinds, "
      "measures WITH (publish_via_partition_root = true)");
  const std::string rows =
      "INSERT INTO orders SELECT g, 'x', g, 'left out' FROM generate_series($1, 99, 2) g;"
      "INSERT INTO measures SELECT '2026-01-20'::date + g, $1 FROM generate_series(1, 20) g;"
      "INSERT INTO kinds VALUES ($1, E'a,\\\\b', 'NaN', 'Infinity', '{\"b\": 1, \"a\": [null]}', "
      "'[0:1]={1,NULL}', '0044-03-15 BC', 'infinity', '1 mon -3 days 04:05:06.789', '\\x00ff', "
      "'ok', "
      "'[1,5)', '10101', '00000000-0000-0000-0000-00000000000a', 'ab', '(1,2)', '10.0.0.0/8', "
      "'a fat cat'), ($1, '', -0.0, 1e-20, 'null', '{}', '-infinity', 'epoch', '0', '', NULL, "
      "'empty', '00000', NULL, '', NULL, '::1', ''), ($1, 'nulls', NULL, NULL, NULL, NULL, NULL, "
      "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
  const auto with = [&](const std::string& number) {
    std::string sql = rows;
    for (std::size_t at = 0; (at = sql.find("$1", at)) != std::string::npos;)
      sql.replace(at, 2, number);
    return sql;
  };
  scene.database.exec(with("1"));
  REQUIRE(catch_up(scene.options()));
  scene.database.exec(with("2"));
  scene.database.exec(
      "UPDATE orders SET id = id + 50 WHERE id BETWEEN 60 AND 80;"
      "UPDATE measures SET n = n + 10 WHERE day < '2026-02-02'; UPDATE kinds SET f = f + 1");
  REQUIRE(catch_up(scene.options()));
  const Outcome outcome = verify(scene);
  CHECK(outcome.lines() == Lines());
  CHECK(outcome.counts("public.kinds").equal == 6);
  CHECK(outcome.counts("public.measures").equal == 40);
  CHECK(outcome.counts().live == 99 - 21);
}

TEST_CASE("another database than the store's is refused", "[capture][verify]") {
  Scene scene, other;
  REQUIRE(catch_up(scene.options()));
  const auto refused = verify_source({.source = other.database.uri(), .store = scene.store()}, {},
                                     [](const TableDifference&) { return Result<void>(); });
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == ErrorCode::kFailedPrecondition);
  CHECK_FALSE(verify_source({.source = scene.database.uri(), .store = other.store()}, {},
                            [](const TableDifference&) { return Result<void>(); }));
}

}  // namespace
}  // namespace millrace
