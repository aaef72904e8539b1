// Servers that lose what they have told their clients, or have no room to write.
#include <csignal>
#include <filesystem>

#include "capture/capture_status.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;

struct CrashScene {
  PostgresServer server;
  TestDatabase database{server};
  TemporaryDirectory directory;
  Workload workload{database, 99};

  explicit CrashScene(PostgresOptions chosen) : server(std::move(chosen)) {
    database.exec(kWorkloadTables);
  }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = database.uri();
    options.store = directory / "store";
    options.slot = "crash";
    options.report_interval = std::chrono::milliseconds(20);
    options.backoff_max = std::chrono::milliseconds(100);
    return options;
  }
  bool comes_to(const std::string& state) const {
    return eventually([&] {
      const auto status = load_capture_status(options().store);
      return status && *status && (*status)->state() == state;
    });
  }
  /// The log against what the tables hold after all.
  void check() {
    REQUIRE(catch_up(options()));
    const CapturedLog log = read_captured_log(options().store);
    CHECK(log.faults == std::vector<std::string>());
    CHECK(workload_differences(database, log) == std::vector<std::string>());
    std::vector<std::string> there, captured;
    for (const auto& row : database.query("SELECT id FROM audit ORDER BY id"))
      there.push_back(*row[0]);
    for (const auto& event : log.of("public.audit", "c"))
      captured.push_back(event["after"]["id"].dump());
    CHECK(captured == there);
  }
};

TEST_CASE("F99: what a crash takes back of asynchronous commits was never captured",
          "[capture][server_crash]") {
  CrashScene scene({.settings = {{"synchronous_commit", "off"}, {"wal_writer_delay", "10s"}}});
  std::size_t told = 0;
  BackgroundCapture capture(scene.options());
  for (int round = 0; round < 5; ++round) {
    REQUIRE(scene.comes_to("streaming"));
    for (int i = 0; i < 40; ++i) scene.workload.one_transaction();
    told = scene.workload.committed().size();
    ::kill(scene.server.pid(), SIGQUIT);
    scene.server.stop(PostgresServer::Stop::kImmediate);
    scene.server.start();
  }
  REQUIRE(scene.comes_to("streaming"));
  scene.workload.one_transaction();
  REQUIRE(capture.stop());
  // Or the test has tested nothing.
  CHECK(std::stoul(scene.database.value("SELECT count(*) FROM audit")) < told);
  scene.check();
}

/// A small file system in memory, which can be made larger.
class SmallDisk {
 public:
  explicit SmallDisk(fs::path at) : at_(std::move(at)) {
    fs::create_directory(at_);
    mounted_ = mount({"-t", "tmpfs", "-o", "size=24m", "tmpfs"});
  }
  ~SmallDisk() {
    if (mounted_) run_command({"umount", "-l", at_.string()});
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  bool enlarge() const { return mount({"-o", "remount,size=256m"}); }

 private:
  bool mount(std::vector<std::string> how) const {
    how.insert(how.begin(), "mount");
    how.push_back(at_.string());
    return run_command(how).exit_code == 0;
  }
  fs::path at_;
  bool mounted_ = false;
};

TEST_CASE("F99: a server that panics for want of room for its WAL is waited for",
          "[.][capture][server_crash_disk]") {
  const TemporaryDirectory folder;
  fs::permissions(folder.path(), fs::perms::others_exec | fs::perms::others_read,
                  fs::perm_options::add);
  const SmallDisk disk(folder / "wal");
  if (!disk.mounted()) {
    WARN("no file system can be mounted here: nothing was tested");
    return;
  }
  fs::permissions(folder / "wal", fs::perms::all);
  CrashScene scene(
      {.settings = {{"max_wal_size", "1GB"}}, .initdb_arguments = {"--wal-segsize=1"}});
  scene.server.stop();
  const fs::path wal = scene.server.data_directory() / "pg_wal";
  REQUIRE(run_command({"cp", "-a", wal.string() + "/.", folder / "wal"}).exit_code == 0);
  fs::remove_all(wal);
  fs::create_symlink(folder / "wal", wal);
  scene.server.start();
  BackgroundCapture capture(scene.options());
  REQUIRE(scene.comes_to("streaming"));
  for (int i = 0; i < 20; ++i) scene.workload.one_transaction();
  std::string failure;
  while (failure.empty()) {
    REQUIRE_FALSE(capture.ended());
    try {
      scene.database.exec("UPDATE items SET big = repeat(md5(random()::text), 300)");
    } catch (const std::runtime_error& error) {
      failure = error.what();
    }
  }
  INFO(failure);
  REQUIRE(scene.comes_to("reconnecting"));
  scene.server.stop(PostgresServer::Stop::kKill);
  REQUIRE(disk.enlarge());
  scene.server.start();
  REQUIRE(scene.comes_to("streaming"));
  for (int i = 0; i < 20; ++i) scene.workload.one_transaction();
  REQUIRE(capture.stop());
  scene.check();
}

}  // namespace
}  // namespace millrace::test
