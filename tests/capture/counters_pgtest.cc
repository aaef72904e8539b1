// Numbers of a server that are near the end of their range: transactions that wrap around, WAL
// positions that no signed number holds. pg_resetwal takes a server of its own there.
#include <array>
#include <cstdio>

#include "capture/verify.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

struct OldServer {
  PostgresServer server;
  std::optional<TestDatabase> database;
  TemporaryDirectory directory;

  /// Stopped meanwhile, and without slots.
  void reset(const std::vector<std::string>& arguments) {
    server.stop();
    std::vector<std::string> command{server.program("pg_resetwal"), "-f"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"-D", server.data_directory().string()});
    const CommandResult done =
        run_command(command, {.directory = server.directory(), .user = server.user()});
    INFO(done.err);
    REQUIRE(done.exit_code == 0);
    server.start();
  }
  CaptureOptions options(const std::string& store) {
    CaptureOptions options;
    options.source = database->uri();
    options.store = directory / store;
    options.slot = store;
    options.status_interval = std::chrono::milliseconds(100);
    return options;
  }
  bool is_streaming() {
    return database->value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
           "1";
  }
  void check(const CaptureOptions& options, const Workload& workload) {
    REQUIRE(catch_up(options));
    int differences = 0;
    const auto reports = verify_source({.source = options.source, .store = options.store}, {},
                                       [&](const TableDifference&) -> Result<void> {
                                         ++differences;
                                         return {};
                                       });
    INFO((reports ? "" : reports.error().to_string()));
    REQUIRE(reports);
    CHECK(differences == 0);
    const CapturedLog log = read_captured_log(options.store);
    CHECK(log.faults == std::vector<std::string>());
    CHECK(log.tables.at("public.audit").size() == workload.committed().size());
    CHECK(workload_differences(*database, log) == std::vector<std::string>());
  }
};

TEST_CASE("F94: WAL positions beyond 2^63 and near 2^64 are positions like others",
          "[.][capture][counters]") {
  OldServer old;
  std::optional<Workload> workload;
  for (const std::string first : {"000000017FFFFFFF000000FF", "00000001FFFFFFFE000000FF"}) {
    CAPTURE(first);
    old.reset({"-l", first});
    if (!workload) {
      old.database.emplace(old.server);
      old.database->exec(kWorkloadTables);
      workload.emplace(*old.database, 94);
    }
    CaptureOptions options = old.options(first[8] == '7' ? "half" : "full");
    REQUIRE(catch_up(options));
    const std::string before = old.database->value("SELECT pg_current_wal_lsn()");
    {
      BackgroundCapture capture(options);
      REQUIRE(eventually([&] { return old.is_streaming(); }));
      for (int i = 0; i < 60; ++i) {
        workload->one_transaction();
        if (i % 20 == 0) old.database->exec("SELECT pg_switch_wal()");
      }
      REQUIRE(capture.stop());
    }
    const std::string after = old.database->value("SELECT pg_current_wal_lsn()");
    CHECK(before.substr(0, 8) == first.substr(8, 8));
    CHECK(after.substr(0, 8) != first.substr(8, 8));
    for (int i = 0; i < 20; ++i) workload->one_transaction();
    options.catch_up.from = 1;  // and in stretches
    old.check(options, *workload);
    old.server.stop(PostgresServer::Stop::kImmediate);
    old.server.start();
    workload->one_transaction();
    old.check(options, *workload);
    old.database->exec("SELECT pg_drop_replication_slot('" + options.slot + "')");
  }
}

TEST_CASE("F93: transaction numbers wrap around beside snapshot and stream",
          "[.][capture][counters]") {
  OldServer old;
  old.server.exec("postgres", "ALTER DATABASE template0 ALLOW_CONNECTIONS true");
  constexpr std::uint64_t kFileXids = 1 << 20;  // in a file of pg_xact
  // No further than half way round at once, or the rows that are there would be of the future.
  for (const std::uint64_t next : {1'400'000'000u, 2'800'000'000u, 4'294'967'150u}) {
    std::array<char, 8> name{};
    std::snprintf(name.data(), name.size(), "%04X", static_cast<unsigned>(next / kFileXids));
    const auto made =
        run_command({"dd", "if=/dev/zero",
                     "of=" + (old.server.data_directory() / "pg_xact" / name.data()).string(),
                     "bs=256k", "count=1"},
                    {.directory = old.server.directory(), .user = old.server.user()});
    REQUIRE(made.exit_code == 0);
    old.reset({"-x", std::to_string(next)});
    for (const char* database : {"template0", "template1", "postgres"})
      old.server.exec(database, "VACUUM (FREEZE)");
  }
  old.server.restart();  // and leave the templates alone
  old.database.emplace(old.server);
  old.database->exec(kWorkloadTables);
  Workload workload(*old.database, 93);
  for (int i = 0; i < 20; ++i) workload.one_transaction();
  const CaptureOptions options = old.options("wrapped");
  REQUIRE(catch_up(options));
  const auto epoch = [&] {
    return std::stoull(old.database->value("SELECT pg_current_xact_id()")) >> 32;
  };
  CHECK(epoch() == 0);
  {
    BackgroundCapture capture(options);
    REQUIRE(eventually([&] { return old.is_streaming(); }));
    for (int i = 0; i < 300; ++i) workload.one_transaction();
    REQUIRE(capture.stop());
  }
  CHECK(epoch() == 1);
  old.check(options, workload);
  // One that begins after the wrap reads rows from before it.
  old.check(old.options("after"), workload);
}

}  // namespace
}  // namespace millrace::test
