// Draining a backlog in stretches: the log is the same as through the replication protocol,
// wherever the stretches' borders lie, whatever else goes on, and whenever capture is killed.
#include <csignal>
#include <random>
#include <thread>

#include "capture/daemon/catch_up.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/log_lines.h"
#include "tests/support/process.h"

namespace millrace {
namespace {

using test::BackgroundCapture;
using test::CapturedLog;
using test::catch_up;
using test::eventually;
using test::LogLines;
using test::read_captured_log;
using test::Scene;

using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;

constexpr CatchUpBounds kSmall{
    .from = 1, .stretch_min = 4096, .stretch_max = 64 << 10, .confirm = 32 << 10};

/// A scene with the workload's tables instead of its own.
struct Backlog : Scene {
  unsigned seed = std::random_device{}() & 0x7fffffff;
  test::Workload workload{database, seed};

  Backlog() {
    database.exec("DROP TABLE orders");
    database.exec(test::kWorkloadTables);
  }
  void write(int transactions) {
    for (int i = 0; i < transactions; ++i) workload.one_transaction();
  }
  std::size_t slots_left_behind() {
    return std::stoul(database.value(
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND "
        "slot_name <> current_database()"));
  }
  void check(const CapturedLog& log) {
    CHECK(log.faults == std::vector<std::string>());
    CHECK(test::workload_differences(database, log) == std::vector<std::string>());
    std::vector<int> audited;
    for (const auto& event : log.events)
      if (event["category"] == "public.audit") audited.push_back(event["after"]["id"]);
    CHECK(audited == workload.committed());
    CHECK(slots_left_behind() == 0);
  }
};

TEST_CASE("how much is read at once grows with what is read again, until streaming is better",
          "[capture][catch_up]") {
  constexpr CatchUpBounds bounds{.from = 1, .stretch_min = 16, .stretch_max = 256};
  CHECK(CatchUp::stretch_size(bounds, 0) == 16);
  CHECK(CatchUp::stretch_size(bounds, 100) == 100);
  CHECK(CatchUp::stretch_size(bounds, 700) == 256);
  CHECK(CatchUp::stretch_size(bounds, 1024) == 256);
  CHECK(CatchUp::stretch_size(bounds, 1025) == 0);
}

TEST_CASE("a drained backlog makes the same log as a streamed one", "[capture][catch_up]") {
  Backlog scene;
  CAPTURE(scene.seed);
  CaptureOptions drained = scene.options(), streamed = scene.options();
  streamed.store = scene.directory.path() / "streamed";
  streamed.slot += "_streamed";
  streamed.catch_up.from = 0;
  drained.catch_up = kSmall;
  REQUIRE(catch_up(drained));
  REQUIRE(catch_up(streamed));
  scene.write(400);

  const LogLines lines;
  REQUIRE(catch_up(streamed));
  CHECK(lines.count("draining it in stretches") == 0);
  REQUIRE(catch_up(drained));
  CHECK(lines.count("draining it in stretches") >= 1);

  const CapturedLog log = read_captured_log(scene.store());
  const CapturedLog other = read_captured_log(streamed.store);
  scene.database.exec("SELECT pg_drop_replication_slot('" + streamed.slot + "')");
  scene.check(log);
  REQUIRE(log.events.size() == other.events.size());
  for (std::size_t i = log.snapshot_events; i < log.events.size(); ++i) {
    INFO(i);
    REQUIRE(log.events[i] == other.events[i]);
  }
}

TEST_CASE("stretches of any size lose and repeat nothing at their borders", "[capture][catch_up]") {
  Backlog scene;
  CAPTURE(scene.seed);
  CaptureOptions options = scene.options();
  REQUIRE(catch_up(options));
  std::minstd_rand random(scene.seed);
  for (int round = 0; round < 25; ++round) {
    scene.write(12);
    const std::uint64_t size = 8 * std::uniform_int_distribution<std::uint64_t>(1, 600)(random);
    options.catch_up = {.from = size, .stretch_min = size, .stretch_max = 1 << 20, .confirm = 1};
    INFO("round " << round << ", stretches of " << size);
    REQUIRE(catch_up(options));
  }
  scene.check(read_captured_log(scene.store()));
}

TEST_CASE("F59: one that fell behind, its disk was slow, drains and streams again",
          "[capture][catch_up]") {
  Backlog scene;
  CAPTURE(scene.seed);
  test::TroubledDisk disk;
  CaptureOptions options = scene.options();
  options.files = &disk;
  options.look_interval = std::chrono::milliseconds(20);
  options.catch_up = {.from = 1 << 20, .stretch_min = 256 << 10, .stretch_max = 8 << 20};
  REQUIRE(catch_up(options));
  const LogLines lines;
  BackgroundCapture capture(options);
  const test::Release release{disk};
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  disk.stalled = true;
  // More by far than the store takes in beside a disk that stands still: the rest is behind. Where
  // it stops is most likely within one of these large transactions.
  const auto is_far_behind = [&] {
    return scene.slot_column("pg_current_wal_insert_lsn() - confirmed_flush_lsn > 8 << 20") == "t";
  };
  while (!is_far_behind()) {
    REQUIRE(!capture.ended());
    scene.write(5);
    scene.database.exec("UPDATE items SET big = repeat(md5(random()::text), 200)");
  }
  disk.release();
  REQUIRE(eventually([&] { return lines.count("drained up to") == 1; }));
  CHECK(lines.count("and falls further behind") == 1);
  REQUIRE(eventually([&] { return scene.is_streaming(); }));
  scene.write(5);
  REQUIRE(capture.stop());
  REQUIRE(catch_up(options));
  scene.check(read_captured_log(scene.store()));
}

TEST_CASE("beside a transaction that is open for long it streams", "[capture][catch_up]") {
  Backlog scene;
  CAPTURE(scene.seed);
  CaptureOptions options = scene.options();
  options.catch_up = {.from = 4096, .stretch_min = 4096, .stretch_max = 16 << 10, .confirm = 1};
  REQUIRE(catch_up(options));
  const Connection open(PQconnectdb(scene.database.uri().c_str()), PQfinish);
  const auto exec = [&](const char* sql) {
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(open.get(), sql), PQclear);
    REQUIRE(PQresultStatus(result.get()) == PGRES_COMMAND_OK);
  };
  exec("BEGIN; INSERT INTO pairs VALUES (5000, 'long', 1)");
  scene.database.exec("CHECKPOINT");
  scene.write(300);
  const LogLines lines;
  REQUIRE(catch_up(options));
  CHECK(lines.count("as beside a transaction that is open for long: streaming") == 1);
  exec("COMMIT");
  REQUIRE(catch_up(options));
  scene.check(read_captured_log(scene.store()));
}

TEST_CASE("where the server has no room for it, it says so and streams", "[capture][catch_up]") {
  Backlog scene;
  CAPTURE(scene.seed);
  CaptureOptions options = scene.options();
  options.catch_up = {.from = 4096, .stretch_min = 4096, .stretch_max = 1 << 20};
  REQUIRE(catch_up(options));

  SECTION("no slot is free") {
    const int all = std::stoi(scene.database.value("SHOW max_replication_slots"));
    const int used = std::stoi(scene.database.value("SELECT count(*) FROM pg_replication_slots"));
    for (int i = used; i < all - 1; ++i)  // one of the two that it wants is there
      scene.database.exec("SELECT pg_create_physical_replication_slot('filler_" +
                          std::to_string(i) + "')");
  }
  SECTION("temporary files may not be that large") {
    options.catch_up.stretch_min = options.catch_up.from = options.catch_up.stretch_max;
    scene.database.exec(
        "INSERT INTO items SELECT g, repeat('w', 100) FROM generate_series(1000, 12000) g");
    scene.database.exec("ALTER DATABASE " + scene.database.name() +
                        " SET temp_file_limit = '256kB'");
    scene.database.exec("ALTER DATABASE " + scene.database.name() + " SET work_mem = '64kB'");
  }
  scene.write(100);
  const LogLines lines;
  const Result<void> outcome = catch_up(options);
  INFO((outcome ? "" : outcome.error().to_string()));
  REQUIRE(outcome);
  CHECK(lines.count("can't be drained in stretches") == 1);
  scene.database.exec(
      "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE "
      "'filler%'");
  scene.check(read_captured_log(scene.store()));
}

TEST_CASE("a backlog of others' WAL is passed over once", "[capture][catch_up]") {
  Backlog scene;
  CaptureOptions options = scene.options();
  options.catch_up = {.from = 64 << 10, .stretch_min = 16 << 10, .stretch_max = 1 << 20};
  REQUIRE(catch_up(options));
  scene.database.exec(
      "CREATE TABLE other AS SELECT g, md5(g::text) FROM generate_series(1, 5000) g");
  const std::string end = scene.database.value("SELECT pg_current_wal_lsn()");
  REQUIRE(catch_up(options));
  CHECK(scene.slot_column("confirmed_flush_lsn >= '" + end + "'") == "t");
  const LogLines lines;
  REQUIRE(catch_up(options));
  CHECK(lines.count("draining") == 0);
}

TEST_CASE("F4: capture killed while it drains loses nothing and repeats nothing",
          "[capture][catch_up][kill]") {
  const char* wanted = std::getenv("MILLRACE_KILLS");
  const int kills = wanted == nullptr ? 12 : std::atoi(wanted);
  Backlog scene;
  CAPTURE(scene.seed, kills);
  REQUIRE(catch_up(scene.options()));
  std::minstd_rand random(scene.seed);
  const std::vector<std::string> command{MILLRACE_PROGRAM,
                                         "capture",
                                         "run",
                                         "--source",
                                         scene.database.uri(),
                                         "--store",
                                         scene.store().string(),
                                         "--slot",
                                         scene.database.name(),
                                         "--catch-up-from",
                                         "20000"};
  for (int i = 0; i < kills; ++i) {
    scene.write(60);
    test::ChildProcess capture(command);
    REQUIRE(eventually([&] {
      return capture.error_output().find("draining it in stretches") != std::string::npos;
    }));
    std::this_thread::sleep_for(
        std::chrono::milliseconds(std::uniform_int_distribution<int>(0, 40)(random)));
    capture.kill(SIGKILL);
    const int code = capture.wait().value_or(-1);
    INFO("kill " << i << "\n" << capture.error_output());
    REQUIRE(code == 128 + SIGKILL);
  }
  REQUIRE(catch_up(scene.options()));
  // The server drops a killed session's temporary slots as soon as it notices.
  REQUIRE(eventually([&] { return scene.slots_left_behind() == 0; }));
  scene.check(read_captured_log(scene.store()));
}

}  // namespace
}  // namespace millrace
