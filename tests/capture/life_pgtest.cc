#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <sstream>

#include "capture/capture_status.h"
#include "capture/postgres/connection.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/faulty_link.h"

/// How a capture lives beside a server: idle, busy for others, going down, out of reach.
namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;

/// A server of its own with a database that is captured and another that is not.
struct OwnServer {
  PostgresServer server;
  TemporaryDirectory directory;

  explicit OwnServer(PostgresOptions chosen = {}) : server(std::move(chosen)) {
    server.create_database("shop");
    server.create_database("neighbour");
    server.exec("shop", kOrders);
  }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = server.uri("shop");
    options.store = directory.path() / "store";
    options.slot = "shop";
    options.status_interval = milliseconds(100);
    options.report_interval = milliseconds(20);
    options.watch_interval = milliseconds(50);
    options.probe_interval = milliseconds(0);
    options.backoff_max = milliseconds(300);
    return options;
  }
  CaptureStatus status() const {
    const auto status = load_capture_status(options().store);
    return status && *status ? **status : CaptureStatus{};
  }
  bool comes_to(const std::string& state) const {
    return eventually([&] { return status().state() == state; });
  }
  std::uint64_t durable_changes() const { return test::count_changes(options().store); }
  void write_wal(int mebibytes) {
    server.exec("neighbour",
                "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1048576)) FROM "
                "generate_series(1, " +
                    std::to_string(mebibytes) + ")");
  }
  std::int64_t retained() {
    return std::stoll(server.value("shop",
                                   "SELECT pg_current_wal_insert_lsn() - restart_lsn FROM "
                                   "pg_replication_slots WHERE slot_name = 'shop'"));
  }
};

/// All that is logged while it lives. Threads: any.
class LogText {
 public:
  LogText() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~LogText() { spdlog::set_default_logger(before_); }
  /// Only once nobody logs any more.
  std::string text() const { return text_.str(); }

 private:
  std::shared_ptr<spdlog::logger> before_;
  std::ostringstream text_;
};

TEST_CASE("F86: an idle captured database does not hold the WAL of a busy neighbour",
          "[.][capture][life]") {
  OwnServer own({.settings = {}, .initdb_arguments = {"--wal-segsize=1"}});
  BackgroundCapture capture(own.options());
  REQUIRE(own.comes_to("streaming"));
  own.write_wal(100);
  CHECK(own.retained() > (90 << 20));
  CHECK(eventually([&] {
    own.server.exec("neighbour", "CHECKPOINT");  // a restart position comes with one at the latest
    return own.retained() < (16 << 20);
  }));
  CHECK(capture.stop());
  CHECK(own.durable_changes() == 0);
}

TEST_CASE("F49: a server that shuts down does not wait for us, and everything is confirmed",
          "[.][capture][life]") {
  OwnServer own;
  BackgroundCapture capture(own.options());
  REQUIRE(own.comes_to("streaming"));
  for (int round = 1; round <= 3; ++round) {
    own.server.exec("shop", "INSERT INTO orders VALUES (" + std::to_string(round) + ")");
    const auto began = std::chrono::steady_clock::now();
    own.server.stop();  // fast; a client that says nothing would hold it for wal_sender_timeout
    CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(20));
    CHECK(own.durable_changes() == static_cast<std::uint64_t>(round));
    own.server.start();
    REQUIRE(own.comes_to("streaming"));
  }
  CHECK(capture.stop());
  // The last transaction may come once more to be compared: a slot's position is not always saved.
  CHECK(own.status().repeated <= 3);
  CHECK(read_captured_log(own.options().store).faults.empty());
}

TEST_CASE("F6, F54: a capture that stood still longer than wal_sender_timeout goes on",
          "[.][capture][life]") {
  OwnServer own({.settings = {{"wal_sender_timeout", "1s"}}});
  ChildProcess capture({MILLRACE_PROGRAM, "capture", "run", "--source", own.server.uri("shop"),
                        "--store", own.options().store.string(), "--slot", "shop"});
  REQUIRE(own.comes_to("streaming"));
  capture.kill(SIGSTOP);
  CHECK(eventually(
      [&] { return own.server.value("shop", "SELECT active FROM pg_replication_slots") == "f"; }));
  own.server.exec("shop", "INSERT INTO orders SELECT n FROM generate_series(1, 1000) AS n");
  capture.kill(SIGCONT);
  CHECK(eventually([&] { return own.durable_changes() == 1000; }));
  CHECK(eventually([&] { return own.status().reconnects >= 1; }));
  capture.kill(SIGTERM);
  CHECK(capture.wait() == 0);
  CHECK(read_captured_log(own.options().store).faults.empty());
}

TEST_CASE("F51: a connection over a network that was cut is given up and made again",
          "[.][capture][life]") {
  OwnServer own({.settings = {}, .tcp = true});
  FaultyLink proxy(own.server.port());
  CaptureOptions chosen = own.options();
  chosen.source = "host=127.0.0.1 connect_timeout=2 dbname=shop user=postgres port=" +
                  std::to_string(proxy.port());
  chosen.silence_max = milliseconds(500);
  chosen.slot_patience = std::chrono::seconds(30);
  BackgroundCapture capture(chosen);
  REQUIRE(own.comes_to("streaming"));
  own.server.exec("shop", "INSERT INTO orders VALUES (1)");
  REQUIRE(eventually([&] { return own.durable_changes() == 1; }));
  proxy.freeze(true);
  own.server.exec("shop", "INSERT INTO orders VALUES (2)");
  REQUIRE(own.comes_to("reconnecting"));
  CHECK_THAT(own.status().reason, Contains("silent"));
  proxy.freeze(false);
  REQUIRE(own.comes_to("streaming"));
  CHECK(eventually([&] { return own.durable_changes() == 2; }));
  CHECK(capture.stop());
  CHECK(read_captured_log(own.options().store).faults.empty());
}

TEST_CASE("F57: WAL senders that are used up are waited for, and named", "[.][capture][life]") {
  OwnServer own({.settings = {{"max_wal_senders", "3"}}});
  BackgroundCapture capture(own.options());
  REQUIRE(own.comes_to("streaming"));
  const SourceAddress address = SourceAddress::parse(own.server.uri("shop")).value();
  std::vector<std::unique_ptr<PostgresConnection>> others;
  REQUIRE(eventually([&] {  // until it is we who were faster
    own.server.exec("shop",
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE "
                    "application_name LIKE 'millrace/%'");
    if (auto other = PostgresConnection::open(address, true, {}))
      others.push_back(*std::move(other));
    return others.size() == 3;
  }));
  REQUIRE(
      eventually([&] { return own.status().reason.find("max_wal_senders") != std::string::npos; }));
  CHECK(own.status().state() == "reconnecting");
  own.server.exec("shop", "INSERT INTO orders VALUES (1)");
  others.clear();
  REQUIRE(own.comes_to("streaming"));
  CHECK(eventually([&] { return own.durable_changes() == 1; }));
  CHECK(capture.stop());
}

TEST_CASE("F65: a slot that runs out of its budget, and who holds it, is told in time",
          "[.][capture][life]") {
  OwnServer own({.settings = {{"max_slot_wal_keep_size", "40MB"}, {"max_wal_size", "1GB"}},
                 .initdb_arguments = {"--wal-segsize=1"}});
  const LogText log;
  CaptureOptions chosen = own.options();
  chosen.held_back_wal_bytes = 8 << 20;
  chosen.long_transaction = milliseconds(1);
  chosen.probe_interval = milliseconds(100);  // each of them moves the confirmed position
  {
    BackgroundCapture capture(chosen);
    REQUIRE(own.comes_to("streaming"));
    // Holds the slot's restart position back, whatever is confirmed.
    own.server.exec("neighbour", "BEGIN; SELECT pg_current_xact_id()");
    const auto safe_below = [&](std::int64_t bytes) {
      return eventually([&] {
        const auto safe = own.status().safe_wal_bytes;
        return safe && *safe < bytes;
      });
    };
    own.write_wal(33);
    REQUIRE(safe_below(10 << 20));
    REQUIRE(eventually([&] {  // all but the transaction's is confirmed
      return own.server.value("shop",
                              "SELECT pg_current_wal_insert_lsn() - confirmed_flush_lsn < 4000000 "
                              "FROM pg_replication_slots WHERE slot_name = 'shop'") == "t";
    }));
    own.write_wal(5);
    REQUIRE(safe_below(4 << 20));
    CHECK(own.status().retained_bytes.value_or(0) > (30u << 20));
    CHECK(own.status().wal_status == "reserved");
    const auto looked = own.status().written;
    REQUIRE(eventually([&] { return own.status().written.value > looked.value + 300'000; }));
    own.server.exec("neighbour", "ROLLBACK");
    CHECK(capture.stop());
  }
  const std::string text = log.text();
  INFO(text);
  const auto count = [&](const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  CHECK(count("is left of what max_slot_wal_keep_size lets the slot keep") == 2);
  CHECK(count("holds it back, pid ") >= 1);
  CHECK_THAT(text, Contains("its query began at") && !Contains("pg_logical_emit_message"));
}

}  // namespace
}  // namespace millrace::test
