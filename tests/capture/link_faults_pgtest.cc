// Networks that cut, dawdle and hold back, between a capture and a real server.
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include "capture/daemon/store_out.h"
#include "capture/daemon/stream_session.h"
#include "capture/postgres/replication.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/capture_scene.h"
#include "tests/support/capture_workload.h"
#include "tests/support/catch.h"
#include "tests/support/linked_scene.h"
#include "tests/support/log_lines.h"
#include "tests/support/loopback.h"

namespace millrace::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyClock = std::chrono::steady_clock;

/// After 1, 1 + `step`, ... up to `last` bytes.
std::deque<std::uint64_t> cuts(std::uint64_t last, std::uint64_t step) {
  std::deque<std::uint64_t> all;
  for (std::uint64_t at = 1; at <= last; at += step) all.push_back(at);
  return all;
}

TEST_CASE("F52: whatever byte a connection ends after, every transaction comes once",
          "[capture][link]") {
  LinkedScene scene;
  Workload workload(scene.database, 52);
  scene.database.exec(kWorkloadTables);
  REQUIRE(catch_up(scene.options()));
  scene.link.cut_after(cuts(8000, 397));
  BackgroundCapture capture(scene.options());
  while (scene.link.cuts_left() > 0 && !capture.ended()) workload.one_transaction();
  REQUIRE(capture.stop());
  REQUIRE(catch_up(scene.options()));
  const CapturedLog log = read_captured_log(scene.store());
  CHECK(log.faults == std::vector<std::string>());
  CHECK(log.of("public.audit", "c").size() == workload.committed().size());
  CHECK(workload_differences(scene.database, log) == std::vector<std::string>());
}

/// One replication session as a real server spoke it.
struct Recording {
  std::vector<std::string> answers;  ///< To the startup packet, and to each command.
  std::size_t size = 0;              ///< Of all of them.
  /// Where in it a transaction has come whole, and its commit's LSN.
  std::vector<std::pair<std::size_t, Lsn>> commits = {};
  std::vector<nlohmann::json> events = {};  ///< What it comes to.
};

/// A store, and what turns one connection's stream into its events.
struct Receiver {
  TemporaryDirectory directory;
  std::unique_ptr<EventStore> store = EventStore::open(directory / "store", {}).value();
  std::unique_ptr<SchemaRegistry> registry =
      SchemaRegistry::open(directory / "store", FileSystem::real()).value();
  FakeCatalog catalog;
  StoreOut out{*store, Lsn{}};
  ChangeEncoder encoder{*registry, catalog, out};
  StreamApplier applier{encoder, out, 1, Lsn{}};

  /// One connection, to its end or to `until`.
  Result<void> run(const std::string& source, const std::string& slot, std::optional<Lsn> until) {
    MILLRACE_RETURN_IF_ERROR(applier.reset());
    encoder.reset();
    MILLRACE_ASSIGN_OR_RETURN(
        auto connection, PostgresConnection::open(SourceAddress::parse(source).value(), true, {}));
    MILLRACE_RETURN_IF_ERROR(start_replication(*connection, slot, Lsn{}, "millrace"));
    StreamSession session(*connection, *store, out, applier, {.epoch = 1, .until = until});
    return session.run({});
  }
  std::vector<nlohmann::json> events() {
    REQUIRE(registry->flush());
    REQUIRE(wait_until_durable(*store, store->appended_end(), 0, {}));
    return read_captured_log(directory / "store").events;
  }
};

std::uint64_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (const char c : bytes.substr(at, size)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

/// Commit: 'd' i32(length) 'w' u64 u64 i64 'C' u8(flags) u64(commit LSN) ...
void find_commits(Recording& session) {
  std::size_t at = 0;
  for (const std::string& answer : session.answers) {
    for (std::size_t begin = 0; begin < answer.size();) {
      const std::size_t size = 1 + number_at(answer, begin + 1, 4);
      if (answer[begin] == 'd' && size > 40 && answer[begin + 5] == 'w' &&
          answer[begin + 30] == 'C')
        session.commits.emplace_back(at + begin + size, Lsn{number_at(answer, begin + 32, 8)});
      begin += size;
    }
    at += answer.size();
  }
  session.size = at;
}

/// Random transactions of at least so many bytes.
Recording record(std::size_t bytes) {
  LinkedScene scene;
  const std::string slot = scene.database.name();
  scene.database.exec(kWorkloadTables);
  scene.database.exec("CREATE PUBLICATION millrace FOR ALL TABLES");
  scene.database.exec("SELECT pg_create_logical_replication_slot('" + slot + "', 'pgoutput')");
  Workload workload(scene.database, 7);
  do {
    workload.one_transaction();
  } while (std::stoul(scene.database.value(
               "SELECT coalesce(sum(length(data)), 0) FROM pg_logical_slot_peek_binary_changes('" +
               slot + "', NULL, NULL, 'proto_version', '1', 'publication_names', 'millrace')")) <
           bytes);
  Receiver receiver;
  const auto done = receiver.run(
      scene.source(), slot, parse_lsn(scene.database.value("SELECT pg_current_wal_lsn()")).value());
  INFO((done ? "" : done.error().to_string()));
  REQUIRE(done);
  Recording made{.answers = scene.link.recorded()};
  // To the end of the stream belongs what we say last.
  for (; made.answers.size() > 3; made.answers.pop_back())
    made.answers[made.answers.size() - 2] += made.answers.back();
  find_commits(made);
  made.events = receiver.events();
  REQUIRE(made.commits.size() == workload.committed().size());
  return made;
}

/// Plays the session again to every client, and ends after so many bytes.
void play(int socket, const Recording& session, std::size_t left) {
  ClientReader client(socket);
  bool there = client.startup().has_value();
  for (const std::string& answer : session.answers) {
    if (!there) return;
    const std::size_t size = std::min(left, answer.size());
    if (!send_all(socket, std::string_view(answer).substr(0, size))) return;
    left -= size;
    if (left == 0) break;
    if (&answer != &session.answers.back()) there = client.message().has_value();
  }
  ::shutdown(socket, SHUT_WR);
  client.drain();
}

/// A server that sends all of it every time, but one byte more than the last time: after each
/// connection the store has the transactions that have come whole by then, and no other.
void cut_at_every_byte(std::size_t bytes) {
  const Recording session = record(bytes);
  std::atomic<std::size_t> cut = 0;
  FakeServer server([&](int socket) { play(socket, session, cut); });
  const std::string source = "host=127.0.0.1 user=postgres dbname=postgres sslmode=disable port=" +
                             std::to_string(server.port());
  Receiver receiver;
  std::size_t whole = 0, wrong = 0;
  for (cut = 0; cut <= session.size; ++cut) {
    const auto outcome = receiver.run(source, "any", std::nullopt);
    while (whole < session.commits.size() && session.commits[whole].first <= cut) ++whole;
    const Lsn expected = whole == 0 ? Lsn{} : session.commits[whole - 1].second;
    const bool right = !outcome && outcome.error().code() == ErrorCode::kUnavailable &&
                       receiver.applier.last_commit() == expected &&
                       receiver.applier.transactions() == whole;
    if (right || ++wrong > 5) continue;
    UNSCOPED_INFO("cut at " << cut << ": " << (outcome ? "no error" : outcome.error().to_string()));
    CHECK(receiver.applier.transactions() == whole);
  }
  CHECK(wrong == 0);
  CHECK(whole == session.commits.size());
  CHECK(receiver.events() == session.events);
}

TEST_CASE("F52: a session that is cut after every one of its bytes loses and repeats nothing",
          "[capture][link]") {
  cut_at_every_byte(1500);
}

TEST_CASE("F52: a session of 64 KiB that is cut after every one of its bytes",
          "[.][capture][link_slow]") {
  cut_at_every_byte(64 << 10);
}

TEST_CASE("F53: over a slow line it makes progress, and a message that takes long is no silence",
          "[capture][link]") {
  LinkedScene scene;
  scene.database.exec(kOrders);
  CaptureOptions options = scene.options();
  options.silence_max = milliseconds(1500);
  const LogLines lines;
  BackgroundCapture capture(options);
  REQUIRE(scene.comes_to("streaming"));
  scene.link.throttle(64'000 / 8);
  const auto began = SteadyClock::now();
  // The last row alone takes more than twice the longest silence.
  scene.database.exec(
      "INSERT INTO orders SELECT g, 'new', g, repeat('x', 100) FROM "
      "generate_series(1, 40) g");
  scene.database.exec("INSERT INTO orders VALUES (41, 'new', 41, repeat('y', 30000))");
  REQUIRE(eventually([&] { return scene.durable_changes() == 41 || capture.ended(); }));
  CHECK(SteadyClock::now() - began > seconds(1));
  CHECK(scene.status().reconnects == 0);
  CHECK(lines.count("trying again") == 0);
  scene.link.throttle(0);
  CHECK(capture.stop());
  CHECK(read_captured_log(scene.store()).faults.empty());
}

/// Makes the shared server take TLS, with a certificate that nobody verifies.
void turn_tls_on(PostgresServer& server) {
  const std::string key = (server.directory() / "link.key").string();
  const std::string certificate = (server.directory() / "link.crt").string();
  const CommandResult made = run_command(
      {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
       "-nodes", "-days", "30", "-subj", "/CN=db.test", "-keyout", key, "-out", certificate});
  REQUIRE(made.exit_code == 0);
  if (server.user())
    for (const std::string& file : {key, certificate})
      REQUIRE(::chown(file.c_str(), server.user()->user, server.user()->group) == 0);
  for (const std::string& setting : {"ssl_cert_file = '" + certificate + "'",
                                     "ssl_key_file = '" + key + "'", std::string("ssl = on")})
    server.exec("postgres", "ALTER SYSTEM SET " + setting);
  server.exec("postgres", "SELECT pg_reload_conf()");
}

TEST_CASE("F55: what TLS has decrypted does not wait for more to come", "[capture][link]") {
  LinkedScene scene;
  scene.database.exec(kOrders);
  turn_tls_on(tcp_server());
  CaptureOptions options = scene.options();
  options.source = scene.source("sslmode=require");
  options.status_interval = seconds(60);  // no wait ends by itself
  BackgroundCapture capture(options);
  REQUIRE(scene.comes_to("streaming"));
  REQUIRE(scene.database.value("SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_replication r "
                               "USING (pid) WHERE s.ssl") != "0");
  std::minstd_rand random(5);
  std::uint64_t rows = 0;
  for (int round = 0; round < 20; ++round) {
    scene.link.hold(true);
    for (int i = 0; i < 3; ++i, rows += 100)
      scene.database.exec(
          "INSERT INTO orders SELECT g, 'new', g, repeat('x', " + std::to_string(random() % 700) +
          " + g::int % 97) FROM generate_series(" + std::to_string(rows) + ", " +
          std::to_string(rows + 99) + ") g; UPDATE orders SET note = repeat('y', " +
          std::to_string(16'000 + random() % 3000) + ") WHERE id = " + std::to_string(rows));
    const auto before = scene.link.from_server();
    scene.link.hold(false);
    const std::uint64_t expected = rows + rows / 100;
    REQUIRE(eventually([&] { return scene.durable_changes() == expected; }));
    CHECK(scene.link.from_server() > before);
  }
  CHECK(capture.stop());
  CHECK(read_captured_log(scene.store()).faults.empty());
}

}  // namespace
}  // namespace millrace::test
