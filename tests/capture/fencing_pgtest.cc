#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "capture/daemon/source_guard.h"
#include "capture/postgres/replication.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;

/// A store, and a copy of it from some time ago, both fed from one slot.
struct TwoStores : Scene {
  CaptureOptions copy_options() {
    CaptureOptions chosen = options();
    chosen.store = directory.path() / "copy";
    chosen.slot_patience = milliseconds(100);
    return chosen;
  }
  void copy_store() {
    std::filesystem::copy(store(), directory.path() / "copy",
                          std::filesystem::copy_options::recursive);
  }
};

TEST_CASE_METHOD(TwoStores,
                 "F58, B70, I16: of two captures on a slot the second is refused with the name of "
                 "the first, and moves nothing",
                 "[capture][fencing]") {
  REQUIRE(catch_up(options()));
  copy_store();
  BackgroundCapture first(options());
  REQUIRE(eventually([&] { return is_streaming(); }));
  const std::string holder = slot_column("active_pid");
  const auto second = run_capture(copy_options(), {});
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::kLocked);
  const auto id = summarize_store(store()).value().id;
  CHECK_THAT(second.error().message(), Contains("in use by pid " + holder) &&
                                           Contains("store " + to_string(id)) &&
                                           Contains("process " + std::to_string(::getpid())));
  CHECK(slot_column("active_pid") == holder);
  CHECK_FALSE(first.ended());
  database.exec("INSERT INTO orders VALUES (1)");
  CHECK(eventually([&] { return durable_changes() == 1; }));
  CHECK(first.stop());
  CHECK(read_captured_log(copy_options().store).events.empty());
}

TEST_CASE_METHOD(TwoStores,
                 "B70, I12: when the slot goes over to another store, the first one halts at the "
                 "gap instead of confirming",
                 "[capture][fencing]") {
  REQUIRE(catch_up(options()));
  copy_store();
  database.exec("INSERT INTO orders VALUES (1)");
  REQUIRE(catch_up(copy_options()));  // the other store has it now, and has confirmed it
  const std::string confirmed = slot_column("confirmed_flush_lsn");
  CHECK(state_of(run_capture(options(), {})) == "SOURCE_GAP");
  CHECK(slot_column("confirmed_flush_lsn") == confirmed);
  CHECK(read_captured_log(store()).events.empty());
}

TEST_CASE_METHOD(TwoStores,
                 "B70: of two first starts on one slot one wins, the other takes nothing",
                 "[capture][fencing]") {
  database.exec("INSERT INTO orders SELECT n FROM generate_series(1, 100) AS n");
  CaptureOptions other = copy_options();
  BackgroundCapture one(options()), two(other);
  REQUIRE(eventually([&] { return is_streaming() && (one.ended() || two.ended()); }));
  CHECK(one.ended() != two.ended());
  BackgroundCapture& loser = one.ended() ? one : two;
  BackgroundCapture& winner = one.ended() ? two : one;
  CHECK_FALSE(loser.wait());
  CHECK_FALSE(winner.ended());
  CHECK(winner.stop());
}

TEST_CASE_METHOD(TwoStores, "B69, I16: of two captures on a store the second is refused at once",
                 "[capture][fencing]") {
  BackgroundCapture first(options());
  REQUIRE(eventually([&] { return is_streaming(); }));
  const auto second = run_capture(options(), {});
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::kLocked);
  CHECK_THAT(second.error().message(), Contains("pid " + std::to_string(::getpid())));
  CHECK_FALSE(first.ended());
  CHECK(first.stop());
}

TEST_CASE_METHOD(TwoStores, "F58: a slot that somebody else holds is waited for, never taken away",
                 "[capture][fencing]") {
  REQUIRE(catch_up(options()));
  auto holder = std::make_unique<ChildProcess>(std::vector<std::string>{
      database.server().program("pg_recvlogical"), "-d", database.uri(), "--slot", database.name(),
      "--start", "-f", "-", "-o", "proto_version=1", "-o", "publication_names=millrace",
      "--status-interval", "0"});
  REQUIRE(eventually([&] { return slot_column("active") == "t"; }));
  BackgroundCapture capture(options());
  const std::string pid = slot_column("active_pid");
  database.exec("INSERT INTO orders VALUES (1)");
  holder->kill(SIGKILL);
  CHECK(eventually([&] { return durable_changes() == 1; }));
  CHECK(slot_column("active_pid") != pid);
  CHECK(capture.stop());
}

TEST_CASE("a capture's name at the server holds store, host and process, and fits",
          "[capture][fencing]") {
  const std::string name = capture_name(StoreId{});
  CHECK(name.size() <= 63);
  CHECK(name.starts_with("millrace/" + to_string(StoreId{}) + "/"));
  CHECK(name.ends_with("/" + std::to_string(::getpid())));
  SlotInfo slot;
  slot.active_pid = 12;
  slot.active_application = name;
  slot.active_address = "10.0.0.7";
  CHECK_THAT(in_use(slot, "s"), Contains("slot s is in use by pid 12 (the capture of store ") &&
                                    Contains(", from 10.0.0.7)"));
  slot.active_application = "psql\n";
  CHECK_THAT(in_use(slot, "s"), Contains("(psql\\x0a, from"));
}

TEST_CASE("F87: the slot follows a failover where the server knows how", "[capture][fencing]") {
  CHECK_FALSE(failover_command("s", 120'022));
  CHECK_FALSE(failover_command("s", 150'014));
  CHECK_FALSE(failover_command("s", 160'010));
  CHECK(failover_command("s", 170'000) == "ALTER_REPLICATION_SLOT \"s\" (FAILOVER true)");
  CHECK(failover_command("s", 180'001) == "ALTER_REPLICATION_SLOT \"s\" (FAILOVER true)");
}

}  // namespace
}  // namespace millrace::test
