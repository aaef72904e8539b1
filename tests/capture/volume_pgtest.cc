// Very many small things: transactions, tables.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>

#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/process.h"

namespace millrace::test {
namespace {

using SteadyClock = std::chrono::steady_clock;

/// `capture run --until-caught-up` in a process of its own.
struct Run {
  double seconds = 0, peak_mib = 0;  ///< Of its resident memory.
};

/// A database of its own, perhaps on a server of its own.
struct Place {
  TestDatabase database;
  TemporaryDirectory directory;

  Place() = default;
  explicit Place(PostgresServer& server) : database(server) {}
  Path store() const { return directory.path() / "store"; }
};

Run run_capture_process(Place& scene) {
  const auto began = SteadyClock::now();
  ChildProcess capture({MILLRACE_PROGRAM, "capture", "run", "--source", scene.database.uri(),
                        "--store", scene.store().string(), "--slot", scene.database.name(),
                        "--until-caught-up", "--log-level", "error"});
  Run run;
  std::optional<int> code;
  while (!(code = capture.wait(std::chrono::milliseconds(5)))) {
    std::ifstream status("/proc/" + std::to_string(capture.pid()) + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmHWM:")) run.peak_mib = std::stod(line.substr(6)) / 1024;
  }
  INFO(capture.error_output());
  REQUIRE(code == 0);
  CHECK(run.peak_mib > 0);
  run.seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  return run;
}

void many_transactions(int count) {
  Place scene;
  scene.database.exec(test::kOrders);
  scene.database.exec(
      "CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP INSERT INTO "
      "orders VALUES (i, 'new', i); COMMIT; END LOOP; END $$");
  run_capture_process(scene);
  scene.database.exec("CALL fill(" + std::to_string(count) + ")");
  const Run run = run_capture_process(scene);
  std::printf("%d transactions of a row: %.1f s, %.0f a second, %.0f MiB at most\n", count,
              run.seconds, count / run.seconds, run.peak_mib);
  CHECK(run.peak_mib < 256);
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  const auto created = log.of("public.orders", "c");
  REQUIRE(created.size() == static_cast<std::size_t>(count));
  bool in_order = true;
  for (int i = 0; i < count; ++i)
    in_order = in_order && created[static_cast<std::size_t>(i)]["after"]["id"] == i + 1;
  CHECK(in_order);
}

TEST_CASE("F81: fifty thousand transactions of one row come in order, in little memory",
          "[capture][volume]") {
  many_transactions(50'000);
}

TEST_CASE("F81: a million transactions of one row", "[.][capture][volume_slow]") {
  many_transactions(1'000'000);
}

void make_tables(TestDatabase& database, int count, int at_once) {
  for (int first = 1; first <= count; first += at_once)
    database.exec("DO $$ BEGIN FOR i IN " + std::to_string(first) + ".." +
                  std::to_string(std::min(first + at_once - 1, count)) +
                  " LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, a text, b "
                  "numeric, c timestamptz)', i); END LOOP; END $$");
}

void many_tables(int count) {
  PostgresServer server({.settings = {{"max_locks_per_transaction", "1024"}}});
  Place scene(server);
  const std::string all = std::to_string(count);
  make_tables(scene.database, count, 500);
  const auto change_each = [&](int id) {
    scene.database.exec("DO $$ BEGIN FOR i IN 1.." + all +
                        " LOOP EXECUTE format('INSERT INTO many_%s VALUES (" + std::to_string(id) +
                        ", ''x'', %s)', i, i); END LOOP; END $$");
  };
  const Run first = run_capture_process(scene);
  change_each(1);
  const Run stream = run_capture_process(scene);
  const Run restart = run_capture_process(scene);
  change_each(2);
  const Run again = run_capture_process(scene);
  std::printf(
      "%d tables: first start %.1f s, a change of each %.1f s and %.0f MiB, restart %.1f s and "
      "%.0f MiB\n",
      count, first.seconds, stream.seconds, stream.peak_mib, restart.seconds, restart.peak_mib);
  CHECK(restart.seconds <= 5);
  CHECK(stream.peak_mib < 128 + 0.03 * count);
  CHECK(again.peak_mib < stream.peak_mib * 1.2 + 16);
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  std::size_t rows = 0;
  for (const auto& [name, table] : log.tables)
    rows += name.starts_with("public.") ? table.size() : 0;
  CHECK(rows == 2 * static_cast<std::size_t>(count));
}

TEST_CASE("F82: a snapshot that needs more locks than there are is refused before anything is made",
          "[capture][volume]") {
  PostgresServer server({.settings = {{"max_locks_per_transaction", "10"},
                                      {"max_connections", "20"},
                                      {"max_wal_senders", "4"},
                                      {"max_prepared_transactions", "0"}}});
  Place place(server);
  make_tables(place.database, 300, 20);
  CaptureOptions options;
  options.source = place.database.uri();
  options.store = place.store();
  const auto refused = test::catch_up(options);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("locks") != std::string::npos);
  CHECK(refused.error().to_string().find("ALTER SYSTEM SET max_locks_per_transaction = ") !=
        std::string::npos);
  CHECK_FALSE(std::filesystem::exists(place.store()));
  CHECK(place.database.value("SELECT count(*) FROM pg_publication") == "0");
  CHECK(place.database.value("SELECT count(*) FROM pg_replication_slots") == "0");
  options.tables = {"public.many_1*"};
  CHECK(test::catch_up(options));
}

TEST_CASE("F82: a thousand tables", "[.][capture][volume_slow]") { many_tables(1000); }

TEST_CASE("F82: ten thousand tables", "[.][capture][volume_slow]") { many_tables(10'000); }

}  // namespace
}  // namespace millrace::test
