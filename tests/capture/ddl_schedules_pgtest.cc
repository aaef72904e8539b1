// Random schedules of two sessions, one that changes a table's shape beside one whose transactions
// are open, while capture streams: what the log folds to is what the table is.
#include <algorithm>
#include <cstdlib>
#include <random>

#include "capture/postgres/connection.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

/// A connection whose statements never wait long for the other one's locks.
class Session {
 public:
  Session(const std::string& uri, std::vector<std::string>& history, std::string name)
      : history_(history), name_(std::move(name)) {
    auto opened = PostgresConnection::open(*SourceAddress::parse(uri), false, {});
    if (!opened) throw std::runtime_error(opened.error().to_string());
    connection_ = *std::move(opened);
    run("SET lock_timeout = '10ms'; SET search_path = public");
  }
  bool open() const { return open_; }
  bool run(const std::string& sql) {
    const auto done = connection_->query(sql);
    history_.push_back(name_ + ": " + sql + (done ? "" : "  -- " + done.error().message()));
    return done.has_value();
  }
  void begin() { open_ = run("BEGIN"), saved_ = 0; }
  void end(bool commit) {
    run(commit ? "COMMIT" : "ROLLBACK");
    open_ = false;
  }
  void save() { run("SAVEPOINT s" + std::to_string(++saved_)); }
  void undo() {
    if (saved_ == 0) return end(false);
    run("ROLLBACK TO s" + std::to_string(saved_));
  }

 private:
  std::vector<std::string>& history_;
  const std::string name_;
  std::unique_ptr<PostgresConnection> connection_;
  bool open_ = false;
  int saved_ = 0;
};

/// Names of columns are never given again: a column is the same one wherever it has the same name.
class Schedule {
 public:
  Schedule(std::string table, unsigned seed) : table_(std::move(table)), random_(seed) {}

  void run(const std::string& uri) {
    Session writer(uri, history, "writer"), changer(uri, history, "changer");
    for (int step = 0; step < 40; ++step) {
      const bool changes = pick(0, 2) == 0;
      Session& session = changes ? changer : writer;
      const int what = pick(0, 11);
      if (!session.open() && what < 8) session.begin();
      if (session.open() && what == 8)
        session.end(true);
      else if (session.open() && what == 9)
        session.undo();
      else if (session.open() && what == 10)
        session.save();
      else if (!session.run(changes && pick(0, 1) == 0 ? shape() : row()) && session.open())
        session.undo();
    }
    for (Session* session : {&writer, &changer})
      if (session->open()) session->end(pick(0, 3) != 0);
    writer.run("INSERT INTO " + table_ + " (id, v) VALUES (1000, 'last')");
  }

  std::vector<std::string> history;

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string any_column() { return "c" + std::to_string(pick(0, columns_)); }
  std::string id() { return std::to_string(pick(1, 30)); }

  std::string row() {
    switch (pick(0, 5)) {
      case 0: return "DELETE FROM " + table_ + " WHERE id = " + id();
      case 1: return "UPDATE " + table_ + " SET id = id + 100 WHERE id = " + id();
      case 2: return "UPDATE " + table_ + " SET " + any_column() + " = '5' WHERE id < " + id();
      case 3: return "UPDATE " + table_ + " SET v = v || 'x' WHERE id % 3 = " + id() + " % 3";
      default:
        return "INSERT INTO " + table_ +
               " (id, v) SELECT g, repeat('v', g * 200) FROM generate_series(" + id() +
               ", 30) g ON CONFLICT DO NOTHING";
    }
  }
  std::string shape() {
    const std::string alter = "ALTER TABLE " + table_ + " ";
    const std::string fresh = "c" + std::to_string(columns_ + 1);
    switch (pick(0, 9)) {
      case 0: return ++columns_, alter + "ADD " + fresh + " int DEFAULT 7";
      case 1: return ++columns_, alter + "ADD " + fresh + " text";
      case 2: return ++columns_, alter + "RENAME " + any_column() + " TO " + fresh;
      case 3: return alter + "DROP " + any_column();
      case 4: return alter + "ALTER " + any_column() + " TYPE text";
      case 5: return alter + "REPLICA IDENTITY " + (pick(0, 1) == 0 ? "FULL" : "DEFAULT");
      case 6:
        return ++columns_, alter + "ADD " + fresh + " int GENERATED ALWAYS AS (id * 2) STORED";
      case 7: return "TRUNCATE " + table_;
      case 8: return "ALTER TYPE " + table_ + "_mood ADD VALUE IF NOT EXISTS 'm" + id() + "'";
      default: return ++columns_, alter + "ADD " + fresh + " " + table_ + "_mood DEFAULT 'm0'";
    }
  }

  const std::string table_;
  std::minstd_rand random_;
  int columns_ = 0;
};

TEST_CASE("F72: changes of a table's shape beside open transactions lose and change no row",
          "[capture][ddl][schedules]") {
  const int schedules = setting("MILLRACE_SCHEDULES", 50);
  const auto seed = static_cast<unsigned>(setting("MILLRACE_SEED", 1));
  TestDatabase database;
  TemporaryDirectory directory;
  const auto table = [](int number) { return "t" + std::to_string(number); };
  for (int i = 0; i < schedules; ++i)
    database.exec("CREATE TYPE " + table(i) + "_mood AS ENUM ('m0'); CREATE TABLE " + table(i) +
                  " (id int PRIMARY KEY, v text, c0 int); INSERT INTO " + table(i) +
                  " SELECT g, 'v', g FROM generate_series(1, 10) g");
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.slot = database.name();
  options.status_interval = std::chrono::milliseconds(100);
  REQUIRE(catch_up(options));

  std::vector<std::vector<std::string>> histories;
  std::ptrdiff_t statements = 0, failed = 0;
  {
    BackgroundCapture capture(options);
    for (int i = 0; i < schedules; ++i) {
      Schedule schedule(table(i), seed + static_cast<unsigned>(i));
      schedule.run(database.uri());
      statements += std::ssize(schedule.history);
      failed += std::count_if(schedule.history.begin(), schedule.history.end(),
                              [](const auto& line) { return line.find("  -- ") != line.npos; });
      histories.push_back(std::move(schedule.history));
    }
    REQUIRE(capture.stop());
  }
  REQUIRE(catch_up(options));
  CAPTURE(statements, failed);
  CHECK(failed < statements / 2);  // what is blocked fails, and what comes after it
  const CapturedLog log = read_captured_log(options.store);
  CHECK(log.faults == std::vector<std::string>());
  for (int i = 0; i < schedules; ++i) {
    const std::string found = shaped_difference(database, table(i), log);
    std::string history;
    for (const std::string& line : histories[static_cast<std::size_t>(i)]) history += line + "\n";
    INFO("MILLRACE_SEED=" << seed + static_cast<unsigned>(i) << " MILLRACE_SCHEDULES=1\n"
                          << history);
    CHECK(found == "");
  }
}

TEST_CASE("F74: partitions that come and go while rows move between them lose and double none",
          "[capture][ddl][partitions]") {
  Scene scene;
  TestDatabase& database = scene.database;
  const bool via_root = GENERATE(true, false);
  database.exec(
      "CREATE TABLE parted (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
      "CREATE TABLE p0 PARTITION OF parted FOR VALUES FROM (0) TO (100);"
      "CREATE TABLE p1 PARTITION OF parted FOR VALUES FROM (100) TO (200);"
      "INSERT INTO parted SELECT g, g FROM generate_series(90, 110) g;"
      "CREATE PUBLICATION millrace FOR TABLE parted WITH (publish_via_partition_root = " +
      std::string(via_root ? "true" : "false") + ")");
  {
    BackgroundCapture capture(scene.options());
    REQUIRE(eventually([&] { return scene.is_streaming(); }));
    std::vector<std::string> history;
    Session writer(database.uri(), history, "writer"), changer(database.uri(), history, "changer");
    writer.begin();
    CHECK(writer.run("UPDATE parted SET id = id + 20 WHERE id BETWEEN 95 AND 99"));
    CHECK_FALSE(changer.run("CREATE TABLE p2 PARTITION OF parted FOR VALUES FROM (200) TO (300)"));
    CHECK(writer.run("DELETE FROM parted WHERE id = 90"));
    writer.end(true);
    changer.begin();
    CHECK(changer.run("CREATE TABLE p2 PARTITION OF parted FOR VALUES FROM (200) TO (300)"));
    CHECK(changer.run("UPDATE parted SET id = id + 100 WHERE id > 108"));
    CHECK_FALSE(writer.run("INSERT INTO parted VALUES (1, 1)"));
    CHECK(changer.run("CREATE TABLE p3 (LIKE parted INCLUDING ALL)"));
    CHECK(changer.run("ALTER TABLE parted ATTACH PARTITION p3 FOR VALUES FROM (300) TO (400)"));
    CHECK(changer.run("INSERT INTO parted VALUES (301, 1)"));
    changer.end(true);
    CHECK(writer.run("UPDATE parted SET id = id - 200 WHERE id BETWEEN 205 AND 300"));
    CHECK(writer.run("DELETE FROM parted WHERE id < 100"));
    CHECK(changer.run("ALTER TABLE parted DETACH PARTITION p0"));
    CHECK(changer.run("ALTER TABLE parted ADD c int DEFAULT 3"));
    CHECK(writer.run("INSERT INTO parted VALUES (150, 1, 1)"));
    REQUIRE(capture.stop());
  }
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  for (const char* table : {"p0", "p1", "p2", "p3", "parted"}) {
    CAPTURE(table, via_root);
    const bool has_events = via_root == (std::string(table) == "parted");
    if (has_events) CHECK(shaped_difference(database, table, log) == "");
    if (!has_events) CHECK_FALSE(log.tables.contains(std::string("public.") + table));
  }
}

}  // namespace
}  // namespace millrace::test
