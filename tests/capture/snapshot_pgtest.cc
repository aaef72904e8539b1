// Snapshots: in parallel, interrupted and gone on with, beside a stream that changes what they
// read.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <random>
#include <thread>

#include "capture/resnapshot.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/forwarding_fs.h"
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
using test::read_captured_log;
using test::Scene;
using test::TestDatabase;

/// The table as SQL sees it now, in the words of the log's JSON.
CapturedLog::Table table_now(TestDatabase& database, const std::string& sql) {
  CapturedLog::Table table;
  for (const auto& row : database.query(sql)) table[*row[0]] = nlohmann::json::parse(*row[1]);
  return table;
}

CapturedLog::Table folded(const CapturedLog& log, const std::string& category) {
  return log.tables.contains(category) ? log.tables.at(category) : CapturedLog::Table();
}

std::size_t notes(const CapturedLog& log, const std::string& type) {
  return static_cast<std::size_t>(std::count_if(
      log.notes.begin(), log.notes.end(), [&](const auto& note) { return note["type"] == type; }));
}

/// A table of several chunks, with a large value that updates leave alone.
constexpr const char* kWide = R"(
  CREATE TABLE wide (id int PRIMARY KEY, n int, filler text, big text);
  ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
  INSERT INTO wide SELECT g, 0, repeat(md5(g::text), 12), CASE WHEN g % 50 = 0 THEN repeat('b', 3000) || g END
    FROM generate_series(1, 20000) g)";
constexpr const char* kWideNow = "SELECT id::text, to_jsonb(wide) FROM wide";

std::vector<std::string> program(const Scene& scene, const CaptureOptions& options) {
  return {MILLRACE_PROGRAM, "capture", "run",        "--source",    options.source, "--store",
          scene.store(),    "--slot",  options.slot, "--log-level", "warn"};
}

TEST_CASE("a table of many chunks is read on several connections, each row once",
          "[capture][snapshot]") {
  Scene scene;
  scene.database.exec(kWide);
  CaptureOptions options = scene.options();
  options.snapshot_workers = GENERATE(1, 3);
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.of("public.wide", "r").size() == 20000);
  CHECK((folded(log, "public.wide") == table_now(scene.database, kWideNow)));
  CHECK(notes(log, "snapshot_began") == 2);
  CHECK(notes(log, "snapshot_completed") == 2);
  CHECK(notes(log, "snapshot_chunk") > 2);
  CHECK(log.transactions == 1 + notes(log, "snapshot_chunk"));
  // Nothing is left to be done: the next start does not read the log for it.
  CHECK(test::run_command({"grep", "-c", "unfinished", scene.store() / "source.json"}).exit_code ==
        1);
}

TEST_CASE("tables that could not be gone on with are whole in the first transaction",
          "[capture][snapshot]") {
  Scene scene;
  scene.database.exec(
      "CREATE TABLE keyless (a int, b text);"
      "INSERT INTO keyless SELECT 1, 'twin' FROM generate_series(1, 10);"
      "INSERT INTO orders VALUES (1, 'x', 1);"
      "CREATE PUBLICATION millrace FOR TABLE orders, keyless WITH (publish = 'insert')");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.of("public.keyless", "r").size() == 10);
  CHECK(log.of("public.orders", "r").size() == 1);
  CHECK(notes(log, "snapshot_completed") == 2);
  CHECK(log.transactions == 1);
}

/// A disk with room for so much of the log and no more.
class SmallDisk final : public test::ForwardingFileSystem {
 public:
  std::atomic<std::int64_t> room = 0;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
    return std::unique_ptr<File>(new Counted(std::move(file), *this));
  }

 private:
  class Counted final : public test::ForwardingFile {
   public:
    Counted(std::unique_ptr<File> file, SmallDisk& disk)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
      if ((disk_.room -= static_cast<std::int64_t>(bytes.size())) < 0)
        return Error(ErrorCode::kNoSpace, "write: no space left on device");
      return ForwardingFile::write_at(position, bytes);
    }

   private:
    SmallDisk& disk_;
  };
};

TEST_CASE("F97, I14, F77: a snapshot that ended early goes on where it was, whatever changed",
          "[capture][snapshot]") {
  Scene scene;
  scene.database.exec(kWide);
  SmallDisk disk;
  CaptureOptions options = scene.options();
  options.files = &disk;
  options.tables = {"public.wide"};
  // Each run gets a little further than the one before. Between them rows move to places that were
  // read already (their large values are in no event then), change their keys, go and come.
  int runs = 0;
  for (bool done = false; !done; ++runs) {
    REQUIRE(runs < 100);
    disk.room = 150'000 + 100'000 * runs;
    const auto outcome = catch_up(options);
    done = outcome.has_value();
    if (!done) {
      INFO(outcome.error().to_string());
      REQUIRE(outcome.error().code() == ErrorCode::kNoSpace);
    }
    const std::string n = std::to_string(runs);
    scene.database.exec("DELETE FROM wide WHERE id % 97 = " + n + " AND id < 10000");
    scene.database.exec("VACUUM wide");
    scene.database.exec("UPDATE wide SET n = n + 1 WHERE id % 50 = 0 AND id % 7 = " + n + " % 7");
    scene.database.exec("UPDATE wide SET id = -id WHERE id > 19000 - 100 * " + n +
                        " AND id % 150 = 0");
    scene.database.exec("INSERT INTO wide SELECT 100000 * (" + n +
                        " + 1) + g, 1, 'new', repeat('c', 3000) FROM generate_series(1, 20) g");
  }
  disk.room = std::int64_t{1} << 40;
  REQUIRE(catch_up(options));
  CAPTURE(runs);
  CHECK(runs >= 3);
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  const bool same = folded(log, "public.wide") == table_now(scene.database, kWideNow);
  CHECK(same);
  CHECK(notes(log, "snapshot_began") == 1);
  CHECK(notes(log, "snapshot_completed") == 1);
  // It never started over: what was read twice is what lacked a value.
  CHECK(log.of("public.wide", "r").size() < 20000 + 8000);
}

/// Tables of every kind of identity, partitions among them; `audit` and `events` are only added to.
constexpr const char* kAllKinds = R"(
  CREATE TABLE wide (id int PRIMARY KEY, n int, filler text, big text);
  ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE full_pk (a int, b text, n int, big text, PRIMARY KEY (a, b));
  ALTER TABLE full_pk ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
  CREATE TABLE full_all (a int, filler text);
  ALTER TABLE full_all REPLICA IDENTITY FULL;
  CREATE TABLE coded (id int, code text NOT NULL UNIQUE, big text);
  ALTER TABLE coded ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY USING INDEX coded_code_key;
  CREATE TABLE parted (id int PRIMARY KEY, n int, big text) PARTITION BY RANGE (id);
  CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (5000);
  CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (5000) TO (MAXVALUE);
  ALTER TABLE parted_low ALTER big SET STORAGE EXTERNAL;
  ALTER TABLE parted_high ALTER big SET STORAGE EXTERNAL;
  INSERT INTO wide SELECT g, 0, repeat('f', 150), CASE WHEN g % 20 = 0 THEN repeat('b', 2500) || g END FROM generate_series(1, 20000) g;
  INSERT INTO full_pk SELECT g, 'b,' || g, 0, CASE WHEN g % 20 = 0 THEN repeat('p', 2500) || g END FROM generate_series(1, 10000) g;
  INSERT INTO full_all SELECT g, repeat('a', 100) FROM generate_series(1, 20000) g;
  INSERT INTO coded SELECT g, 'code ' || g, CASE WHEN g % 20 = 0 THEN repeat('d', 2500) || g END FROM generate_series(1, 10000) g;
  INSERT INTO parted SELECT g, 0, CASE WHEN g % 20 = 0 THEN repeat('q', 2500) || g END FROM generate_series(1, 10000) g;
  CREATE PUBLICATION millrace FOR TABLE wide, full_pk, full_all, coded, parted WITH (publish_via_partition_root = true))";

/// What is done to them while they are read.
class Changes {
 public:
  explicit Changes(unsigned seed) : random_(seed) {}
  std::string transaction() {
    std::string sql = "BEGIN;";
    for (int i = pick(1, 5); i > 0; --i) sql += statement() + ";";
    return sql + (pick(1, 8) == 1 ? "ROLLBACK" : "COMMIT");
  }

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string statement() {
    const std::string id = std::to_string(pick(1, 20000)), few = std::to_string(pick(1, 997));
    switch (pick(1, 16)) {
      case 1: return "UPDATE wide SET n = n + 1 WHERE id % 997 = " + few;
      case 2: return "UPDATE wide SET n = n + 1 WHERE id = " + id + " / 20 * 20";
      case 3:
        return "UPDATE wide SET id = -id WHERE id = " + id +
               " / 20 * 20 AND NOT EXISTS (SELECT FROM wide o WHERE o.id = -wide.id)";
      case 4: return "DELETE FROM wide WHERE id % 1009 = " + few;
      case 5:
        return "INSERT INTO wide VALUES (" + id +
               ", 7, 'new', repeat('n', 2600)) ON CONFLICT (id) DO UPDATE SET n = 8";
      case 6: return "UPDATE full_pk SET n = n + 1 WHERE a % 997 = " + few;
      case 7: return "UPDATE full_pk SET a = -a WHERE a = " + id + " / 20 * 20 / 2";
      case 8: return "DELETE FROM full_pk WHERE a = " + id;
      case 9: return "UPDATE full_all SET a = -a WHERE a = " + id;
      case 10: return "DELETE FROM full_all WHERE a % 1009 = " + few;
      case 11: return "UPDATE coded SET id = id + 1 WHERE id % 499 = " + few + " % 499";
      case 12:
        return "UPDATE coded SET code = code || '*' WHERE id = " + id +
               " AND NOT EXISTS (SELECT FROM coded o WHERE o.code = coded.code || '*')";
      case 13: return "UPDATE parted SET n = n + 1 WHERE id % 997 = " + few;
      case 14: return "UPDATE parted SET id = id + 20000 WHERE id = " + id + " / 40 * 20";
      case 15: return pick(1, 40) == 1 ? "TRUNCATE coded" : "DELETE FROM coded WHERE id = " + id;
      default:
        return "INSERT INTO coded SELECT g, 'new ' || g || ' " + id +
               "', repeat('e', 2500) FROM generate_series(1, 5) g ON CONFLICT DO NOTHING";
    }
  }
  std::minstd_rand random_;
};

void check_all_kinds(TestDatabase& database, const CapturedLog& log) {
  const std::map<std::string, std::string> queries{
      {"public.wide", "SELECT id::text, to_jsonb(wide) FROM wide"},
      {"public.full_pk",
       R"(SELECT a || ',' || replace(b, ',', '\,'), to_jsonb(full_pk) FROM full_pk)"},
      {"public.full_all", "SELECT a || ',' || filler, to_jsonb(full_all) FROM full_all"},
      {"public.coded", "SELECT code, to_jsonb(coded) FROM coded"},
      {"public.parted", "SELECT id::text, to_jsonb(parted) FROM parted"}};
  for (const auto& [table, query] : queries) {
    const CapturedLog::Table ours = folded(log, table), theirs = table_now(database, query);
    std::string differences;
    for (const auto& [key, row] : theirs)
      if (!ours.contains(key))
        differences += "\nmissing " + key;
      else if (ours.at(key) != row)
        differences += "\ndifferent " + key + ": " + ours.at(key).dump().substr(0, 200);
    for (const auto& [key, row] : ours)
      if (!theirs.contains(key)) differences += "\ntoo many " + key;
    CHECK(table + differences.substr(0, 2000) == table);
  }
}

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

TEST_CASE("F97, I14: snapshots killed at random moments beside random changes lead to the tables",
          "[capture][snapshot][snapshot_kill]") {
  const int kills = setting("MILLRACE_KILLS", 5);
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  CAPTURE(seed, kills);
  Scene scene;
  scene.database.exec(kAllKinds);
  CaptureOptions options = scene.options();
  const auto argv = program(scene, options);
  std::minstd_rand random(seed);
  {
    std::jthread writer([&, changes = Changes(seed)](const std::stop_token& stop) mutable {
      while (!stop.stop_requested()) scene.database.exec(changes.transaction());
    });
    for (int i = 0; i < kills; ++i) {
      test::ChildProcess capture(argv);
      std::this_thread::sleep_for(
          std::chrono::milliseconds(std::uniform_int_distribution<int>(30, 500)(random)));
      capture.kill(SIGKILL);
      const int code = capture.wait().value_or(-1);
      INFO("kill " << i << "\n" << capture.error_output());
      REQUIRE(code == 128 + SIGKILL);
    }
  }
  auto last = argv;
  last.emplace_back("--until-caught-up");
  const test::CommandResult result = test::run_command(last, {}, {}, std::chrono::minutes(2));
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(notes(log, "snapshot_began") == notes(log, "snapshot_completed"));
  check_all_kinds(scene.database, log);
}

TEST_CASE(
    "F97, I14: a snapshot whose connections are cut goes on beside the stream, in the same run",
    "[capture][snapshot]") {
  Scene scene;
  scene.database.exec(kWide);
  CaptureOptions options = scene.options();
  options.tables = {"public.wide"};
  BackgroundCapture capture(options);
  REQUIRE(eventually([&] { return count_changes(scene.store()) > 0; }));
  scene.database.exec(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%' AND datname "
      "= current_database()");
  scene.database.exec("UPDATE wide SET n = n + 1 WHERE id % 50 = 0");
  REQUIRE(eventually([&] {
    return test::run_command({"grep", "-c", "unfinished", scene.store() / "source.json"})
               .exit_code == 1;
  }));
  CHECK(capture.stop());
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK((folded(log, "public.wide") == table_now(scene.database, kWideNow)));
}

TEST_CASE("I14: rows that are read once more while others write lead to the table",
          "[capture][snapshot]") {
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  CAPTURE(seed);
  Scene scene;
  scene.database.exec(kAllKinds);
  CaptureOptions options = scene.options();
  BackgroundCapture capture(options);
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  const ResnapshotOptions again{
      .source = options.source, .store = options.store, .tables = {"public.*"}, .where = {}};
  const auto asked = request_resnapshot(again);
  REQUIRE(asked);
  CHECK(asked->size() == 5);
  Changes changes(seed);
  const auto done = [&] {
    return notes(read_captured_log(scene.store()), "snapshot_completed") == 10;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
  for (int i = 0; i % 50 != 0 || !done(); ++i) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    scene.database.exec(changes.transaction());
  }
  CHECK(capture.stop());
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  check_all_kinds(scene.database, log);
}

TEST_CASE("some rows are read once more, by the next capture where none runs",
          "[capture][snapshot]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders SELECT g, 'x', g FROM generate_series(1, 100) g");
  REQUIRE(catch_up(scene.options()));
  const ResnapshotOptions again{.source = scene.options().source,
                                .store = scene.store(),
                                .tables = {"public.orders"},
                                .where = "id > 90 AND status = 'x'"};
  REQUIRE(request_resnapshot(again));
  // By then it is no such row any more.
  scene.database.exec("UPDATE orders SET status = 'y' WHERE id = 95");
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.of("public.orders", "r").size() == 109);
  CHECK(log.tables.at("public.orders").size() == 100);
  CHECK(std::filesystem::is_empty(scene.store() / "requests"));
  REQUIRE(catch_up(scene.options()));
  CHECK(read_captured_log(scene.store()).events.size() == log.events.size());
}

TEST_CASE("what can't be read once more is refused before anything is asked for",
          "[capture][snapshot]") {
  Scene scene;
  scene.database.exec("CREATE TABLE other (id int PRIMARY KEY)");
  CaptureOptions options = scene.options();
  options.tables = {"public.orders"};
  ResnapshotOptions again{
      .source = options.source, .store = options.store, .tables = {"public.orders"}, .where = {}};
  const auto says = [&](const std::string& part) {
    const auto asked = request_resnapshot(again);
    REQUIRE_FALSE(asked);
    INFO(asked.error().to_string());
    CHECK(asked.error().to_string().find(part) != std::string::npos);
  };
  says("never captured into");
  REQUIRE(catch_up(options));
  again.tables = {"public.nonsense"};
  says("public.nonsense does not exist");
  again.tables = {"public.other"};
  says("public.other is not captured");
  again.tables = {"else.*"};
  says("no captured table matches");
  again.tables = {"public.orders"};
  for (const char* where : {"nonsense = 1", "id = 1; DROP TABLE orders", "id = 1) OR (", "id"}) {
    again.where = where;
    says("--where on table public.orders");
  }
  CHECK_FALSE(std::filesystem::exists(scene.store() / "requests"));
  TestDatabase another;
  another.exec(test::kOrders);
  again.where = {};
  again.source = another.uri();
  says("is fed from database");
}

TEST_CASE("I14: the rows of a table that joins the publication are read beside the stream",
          "[capture][snapshot]") {
  Scene scene;
  CaptureOptions options = scene.options();
  options.tables = {};
  REQUIRE(catch_up(options));
  scene.database.exec(kWide);
  // Not published yet, and not committed when the table joins: read, though no event tells of it.
  const std::string late =
      "BEGIN; INSERT INTO wide VALUES (-1, 0, 'late', 'x'); SELECT pg_sleep(1); COMMIT";
  std::jthread writer([&, uri = scene.database.uri()] {
    test::run_command({scene.database.server().program("psql"), "-q", "-d", uri, "-c", late});
  });
  REQUIRE(eventually([&] {
    return scene.database.value(
               "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = "
               "current_database() AND pid <> pg_backend_pid()") == "1";
  }));
  scene.database.exec("ALTER PUBLICATION millrace ADD TABLE wide");
  options.accept_publication_change = true;
  REQUIRE(catch_up(options));
  scene.database.exec("UPDATE wide SET n = n + 1 WHERE id % 100 = 0");
  REQUIRE(catch_up(options));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(folded(log, "public.wide").contains("-1"));
  CHECK((folded(log, "public.wide") == table_now(scene.database, kWideNow)));
  CHECK(notes(log, "snapshot_completed") == 2);
}

}  // namespace
}  // namespace millrace
