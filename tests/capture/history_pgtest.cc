// Servers that were put back, restored or promoted: each with a PostgreSQL of its own, whose files
// are copied while it stands still.
#include <filesystem>

#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using test::catch_up;
using test::order;
using test::read_captured_log;
using test::state_of;

struct Server {
  test::PostgresServer server;
  test::TemporaryDirectory directory;

  Server() {
    server.create_database("shop");
    exec(test::kOrders);
    exec("CREATE TABLE other (n int)");
  }
  void exec(const std::string& sql) { server.exec("shop", sql); }
  CaptureOptions options() {
    CaptureOptions options;
    options.source = server.uri("shop");
    options.store = directory.path() / "store";
    options.tables = {"public.orders"};
    options.catch_up.from = 0;
    return options;
  }
  fs::path copy() const { return directory.path() / "copy"; }
  static void copy_tree(const fs::path& from, const fs::path& to) {
    const auto copied = test::run_command({"cp", "-a", from.string(), to.string()}, {}, {},
                                          std::chrono::minutes(1));
    REQUIRE(copied.exit_code == 0);
  }
  void save() {
    server.stop();
    copy_tree(server.data_directory(), copy());
    server.start();
  }
  /// Back to what save() saved.
  void put_back() {
    server.stop();
    fs::remove_all(server.data_directory());
    copy_tree(copy(), server.data_directory());
    server.start();
  }
  std::string position() { return server.value("shop", "SELECT pg_current_wal_lsn()"); }
  void write_beyond(const std::string& lsn) {
    while (server.value("shop", "SELECT pg_current_wal_lsn() > '" + lsn + "'") != "t")
      exec("INSERT INTO other SELECT generate_series(1, 1000)");
  }
  /// Ends as a recovery from an archive does, on a timeline of its own.
  void recover() {
    server.stop();
    const auto made = test::run_command(
        {"touch", (server.data_directory() / "recovery.signal").string()}, {}, {});
    REQUIRE(made.exit_code == 0);
    server.restart({{"restore_command", "false"}});
    REQUIRE(test::eventually(
        [&] { return server.value("shop", "SELECT pg_is_in_recovery()") == "f"; }));
  }
};

TEST_CASE(
    "F91: a server that was put back to an older copy is found out, also once it has written more",
    "[capture][history]") {
  Server source;
  CaptureOptions options = source.options();
  source.exec("INSERT INTO orders VALUES (1, 'new', 1)");
  REQUIRE(catch_up(options));
  source.exec("INSERT INTO orders VALUES (2, 'new', 2)");
  REQUIRE(catch_up(options));
  source.save();
  REQUIRE(catch_up(options));  // the same server, as far as anybody can tell
  source.exec("INSERT INTO orders VALUES (3, 'lost', 3)");
  SECTION("right after a transaction") { REQUIRE(catch_up(options)); }
  SECTION("after an idle time, and while it drains a backlog") {
    options.catch_up.from = 1;
    REQUIRE(catch_up(options));
    source.exec("INSERT INTO other SELECT generate_series(1, 1000)");
    REQUIRE(catch_up(options));
  }
  const std::string end = source.position();
  const auto events = read_captured_log(options.store).events.size();
  source.put_back();

  CHECK(state_of(catch_up(options)) == "SOURCE_REWOUND");
  source.exec("INSERT INTO orders VALUES (4, 'other', 4)");
  source.write_beyond(end);
  source.exec("INSERT INTO orders VALUES (5, 'other', 5)");
  for (int again = 0; again < 3; ++again)  // having found it out changes nothing on the server
    CHECK(state_of(catch_up(options)) == "SOURCE_REWOUND");
  CHECK(read_captured_log(options.store).events.size() == events);
}

TEST_CASE("F91: one that was put back to where the log had already read on without changes",
          "[capture][history]") {
  Server source;
  const CaptureOptions options = source.options();
  source.exec("INSERT INTO orders VALUES (1, 'new', 1)");
  REQUIRE(catch_up(options));
  source.exec("INSERT INTO orders VALUES (2, 'new', 2)");
  REQUIRE(catch_up(options));
  source.save();
  source.exec("INSERT INTO other SELECT generate_series(1, 1000)");
  REQUIRE(catch_up(options));
  const std::string end = source.position();
  source.put_back();
  SECTION("and nothing is lost: it goes on") {
    source.write_beyond(end);
    source.exec("INSERT INTO orders VALUES (3, 'new', 3)");
    REQUIRE(catch_up(options));
    const auto log = read_captured_log(options.store);
    CHECK(log.faults == std::vector<std::string>());
    CHECK(log.events.back()["after"] == order(3, "new", "3.00"));
  }
  SECTION("but this time there was one: it halts") {
    source.exec("INSERT INTO orders VALUES (3, 'new', 3)");
    source.write_beyond(end);
    for (int again = 0; again < 3; ++again) CHECK(state_of(catch_up(options)) == "SOURCE_REWOUND");
  }
}

TEST_CASE("F67: a slot that a crash of the server puts back is no other history",
          "[capture][history]") {
  Server source;
  const CaptureOptions options = source.options();
  REQUIRE(catch_up(options));
  for (int i = 1; i <= 5; ++i) {
    source.exec("INSERT INTO orders VALUES (" + std::to_string(i) + ", 'new', 1)");
    if (i % 2 == 0) source.exec("INSERT INTO other VALUES (1)");
    REQUIRE(catch_up(options));
    source.server.stop(test::PostgresServer::Stop::kImmediate);
    source.server.start();
    REQUIRE(catch_up(options));
  }
  const auto log = read_captured_log(options.store);
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.of("public.orders", "c").size() == 5);
}

TEST_CASE(
    "F87, F90: a new timeline that holds all that the log has is gone along with, another halts",
    "[capture][history]") {
  Server source;
  const CaptureOptions options = source.options();
  source.exec("INSERT INTO orders VALUES (1, 'new', 1)");
  REQUIRE(catch_up(options));
  source.save();
  source.exec("INSERT INTO orders VALUES (2, 'new', 2)");
  REQUIRE(catch_up(options));
  SECTION("promoted with everything") {
    source.recover();
    source.exec("INSERT INTO orders VALUES (3, 'new', 3)");
    REQUIRE(catch_up(options));
    source.exec("INSERT INTO orders VALUES (4, 'new', 4)");
    REQUIRE(catch_up(options));
    const auto log = read_captured_log(options.store);
    CHECK(log.faults == std::vector<std::string>());
    CHECK(log.of("public.orders", "c").size() == 3);
    CHECK(log.of("$capture", "a").size() == 1);
  }
  SECTION("promoted without the last transaction") {
    source.put_back();
    source.recover();
    source.exec("INSERT INTO orders VALUES (3, 'other', 3)");
    CHECK(state_of(catch_up(options)) == "TIMELINE_CHANGED");
    source.write_beyond(source.position());
    CHECK(state_of(catch_up(options)) == "TIMELINE_CHANGED");
    CHECK(read_captured_log(options.store).of("public.orders", "c").size() == 1);
  }
}

}  // namespace
}  // namespace millrace
