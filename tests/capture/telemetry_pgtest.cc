#include <set>

#include "capture/capture_status.h"
#include "eventstore/inspect.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/tcp_client.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;

/// A capture that is looked at from outside.
struct Watched : Scene {
  CaptureOptions options() {
    CaptureOptions options = Scene::options();
    options.listen = "127.0.0.1:0";
    options.watch_interval = milliseconds(50);
    options.report_interval = milliseconds(50);
    return options;
  }
  CaptureStatus status() const {
    const auto status = load_capture_status(store());
    return status && *status ? **status : CaptureStatus{};
  }
  bool comes_to(const std::string& state) {
    return eventually([&] { return status().state() == state; });
  }
  int port() const {
    const std::string listen = status().listen;
    return std::stoi(listen.substr(listen.rfind(':') + 1));
  }
};

/// "412" of "millrace_capture_changes_total 412"; -1 if there is none.
double metric(const std::string& text, const std::string& name) {
  const std::size_t at = text.find("\n" + name + " ");
  return at == text.npos ? -1 : std::stod(text.substr(at + name.size() + 2));
}

TEST_CASE_METHOD(Watched, "a running capture tells its state, its lag and what it has appended",
                 "[capture][telemetry]") {
  database.exec("CREATE TABLE lines (id bigint PRIMARY KEY)");
  CaptureOptions chosen = options();
  chosen.probe_interval = milliseconds(50);
  BackgroundCapture capture(chosen);
  REQUIRE(comes_to("streaming"));
  CHECK_THAT(http_get(port(), "/healthz"), Contains("200 OK") && Contains("streaming"));
  CHECK_THAT(http_get(port(), "/readyz"), Contains("200 OK"));
  database.exec("INSERT INTO orders SELECT n FROM generate_series(1, 10) AS n");
  database.exec("INSERT INTO lines VALUES (1); UPDATE orders SET note = 'x' WHERE id < 3");
  std::string text;
  REQUIRE(eventually([&] {
    text = http_get(port(), "/metrics");
    return metric(text, "millrace_capture_changes_total") == 13 &&
           metric(text, "millrace_capture_lag_bytes") == 0 &&
           metric(text, "millrace_slot_retained_wal_bytes") > 0 &&
           metric(text, "millrace_capture_commit_to_durable_seconds_count") > 0;
  }));
  CHECK(metric(text, "millrace_capture_transactions_total") == 2);
  CHECK(metric(text, "millrace_capture_table_changes_total{table=\"public.orders\"}") == 12);
  CHECK(metric(text, "millrace_capture_table_changes_total{table=\"public.lines\"}") == 1);
  CHECK(metric(text, "millrace_capture_state{state=\"streaming\"}") == 1);
  CHECK(metric(text, "millrace_store_end_offset") ==
        static_cast<double>(summarize_store(store())->durable_end.value));
  CHECK(metric(text, "millrace_capture_lag_seconds") == 0);
  CHECK(eventually([&] { return status().changes == 13 && status().latency.p99; }));
  CHECK(capture.stop());
  CHECK(status().state() == "stopped");
  CHECK(read_captured_log(store()).events.size() == 13);  // probes are no events
}

TEST_CASE_METHOD(Watched, "an idle server is left idle by the probes", "[capture][telemetry]") {
  PostgresServer server;
  server.create_database("quiet");
  server.exec("quiet", kOrders);
  CaptureOptions chosen = options();
  chosen.source = server.uri("quiet");
  chosen.probe_interval = milliseconds(20);
  BackgroundCapture capture(chosen);
  REQUIRE(eventually([&] { return status().latency.count >= 1; }));
  const auto end = [&] { return server.value("quiet", "SELECT pg_current_wal_insert_lsn()"); };
  const std::string before = end();
  std::set<std::int64_t> written;  // by a loop that goes round beside the probes'
  while (written.size() < 20) written.insert(status().written.value);
  CHECK(server.value("quiet", "SELECT pg_current_wal_insert_lsn() - '" + before +
                                  "'::pg_lsn < 4096") == "t");
  CHECK(status().latency.count < 4);
  server.exec("quiet", "INSERT INTO orders SELECT n FROM generate_series(1, 1000) AS n");
  const std::uint64_t count = status().latency.count;
  CHECK(eventually([&] { return status().latency.count > count; }));
  CHECK(capture.stop());
}

TEST_CASE_METHOD(Watched, "a server that goes away shows as reconnecting, and as a reconnect later",
                 "[capture][telemetry][F50]") {
  PostgresServer server;
  server.create_database("shop");
  server.exec("shop", kOrders);
  CaptureOptions chosen = options();
  chosen.source = server.uri("shop");
  chosen.backoff_max = milliseconds(300);
  BackgroundCapture capture(chosen);
  REQUIRE(comes_to("streaming"));
  server.stop();
  REQUIRE(comes_to("reconnecting"));
  CHECK_THAT(http_get(port(), "/readyz"), Contains(" 503 ") && Contains("reconnecting"));
  CHECK_THAT(http_get(port(), "/healthz"), Contains(" 200 "));
  CHECK_FALSE(status().reason.empty());
  server.start();
  REQUIRE(comes_to("streaming"));
  CHECK(status().reconnects == 1);
  CHECK(status().reason.empty());
  CHECK(capture.stop());
}

TEST_CASE_METHOD(Watched, "what a capture halted with stays to be read",
                 "[capture][telemetry][F63]") {
  CaptureOptions chosen = options();
  chosen.look_interval = milliseconds(50);
  BackgroundCapture capture(chosen);
  REQUIRE(comes_to("streaming"));
  database.exec("DROP PUBLICATION millrace");
  CHECK(state_of(capture.wait()) == "PUBLICATION_MISSING");
  CHECK(status().state() == "halted:PUBLICATION_MISSING");
  CHECK_THAT(status().reason, Contains("is gone"));
}

TEST_CASE_METHOD(Watched, "a port that is taken ends capture before anything is made",
                 "[capture][telemetry]") {
  CaptureOptions chosen = options();
  TestDatabase other_database;
  TemporaryDirectory other_directory;
  BackgroundCapture capture(chosen);
  REQUIRE(comes_to("streaming"));
  CaptureOptions other = Scene::options();
  other.source = other_database.uri();
  other.slot = other_database.name();
  other.store = other_directory.path() / "store";
  other.listen = status().listen;
  const auto outcome = run_capture(other, {});
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code() == ErrorCode::kUnavailable);
  CHECK_FALSE(std::filesystem::exists(other.store));
  CHECK(other_database.value("SELECT count(*) FROM pg_publication") == "0");
  CHECK(capture.stop());
}

TEST_CASE_METHOD(Watched, "a disk that stands still shows, and a full one ends as a failure",
                 "[capture][telemetry]") {
  TroubledDisk disk;
  CaptureOptions chosen = options();
  chosen.files = &disk;
  BackgroundCapture capture(chosen);
  REQUIRE(comes_to("streaming"));
  {
    const Release release{disk};
    disk.stalled = true;
    database.exec("INSERT INTO orders VALUES (1)");
    CHECK(eventually([&] {
      return metric(http_get(port(), "/metrics"), "millrace_capture_stalled_seconds") > 0;
    }));
  }
  CHECK(eventually([&] {
    return metric(http_get(port(), "/metrics"), "millrace_capture_stalled_seconds") == 0;
  }));
  disk.full = true;
  database.exec("INSERT INTO orders VALUES (2)");
  const auto outcome = capture.wait();
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().code() == ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace millrace::test
