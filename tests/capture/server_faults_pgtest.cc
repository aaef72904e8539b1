// Servers that are away, say odd things, or mean harm.
#include <sys/resource.h>
#include <sys/socket.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "capture/postgres/client_library.h"
#include "capture/postgres/connection.h"
#include "tests/support/capture_scene.h"
#include "tests/support/catch.h"
#include "tests/support/linked_scene.h"
#include "tests/support/log_lines.h"
#include "tests/support/loopback.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

std::chrono::microseconds cpu_time() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto of = [](const timeval& time) {
    return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  };
  return of(used.ru_utime) + of(used.ru_stime);
}

/// A server of its own that comes and goes, and a capture of it.
struct AwayScene {
  PostgresServer server{{.settings = {}, .tcp = true}};
  TemporaryDirectory directory;

  AwayScene() {
    server.create_database("shop");
    server.exec("shop", kOrders);
  }
  CaptureOptions options() const {
    const std::string port = std::to_string(server.port());
    CaptureOptions options;
    // Not a name at all, so that no name server is asked: one that does not answer takes 20 s.
    options.source =
        "host=nowhere..invalid,127.0.0.1 user=postgres dbname=shop port=" + port + "," + port;
    options.store = directory.path() / "store";
    options.slot = "shop";
    options.report_interval = milliseconds(20);
    options.probe_interval = milliseconds(0);
    options.backoff_max = milliseconds(200);
    return options;
  }
  CaptureStatus status() const {
    const auto status = load_capture_status(options().store);
    return status && *status ? **status : CaptureStatus{};
  }
  bool comes_to(const std::string& state) const {
    return eventually([&] { return status().state() == state; });
  }
  void insert(int id) {
    server.exec("shop", "INSERT INTO orders VALUES (" + std::to_string(id) + ")");
  }
  bool has(std::uint64_t changes) const {
    return eventually([&] { return count_changes(options().store) == changes; });
  }
};

TEST_CASE(
    "F50: a server that is away is asked for with growing pauses, and found once it is there, out "
    "of recovery too",
    "[capture][server]") {
  AwayScene scene;
  const LogLines lines;
  BackgroundCapture capture(scene.options());
  REQUIRE(scene.comes_to("streaming"));
  scene.insert(1);
  REQUIRE(scene.has(1));
  scene.server.stop();
  REQUIRE(scene.comes_to("reconnecting"));
  const auto attempts = [&] { return lines.count("trying again in "); };
  REQUIRE(eventually([&] { return attempts() >= 2; }));  // the pause is the longest by now
  const auto began = SteadyClock::now();
  const auto used = cpu_time();
  const std::size_t before = attempts();
  REQUIRE(eventually([&] { return attempts() >= before + 5; }));
  const auto took = SteadyClock::now() - began;
  CHECK(took >= 4 * scene.options().backoff_max);
  // With a second between two of them it would be five percent; the default is thirty.
  CHECK(cpu_time() - used < 5 * milliseconds(50));
  CHECK_THAT(scene.status().reason,
             Contains("could not translate host name") && Contains("Connection refused"));

  // A standby, as far as it can tell, which does not change for longer than an error may repeat.
  std::ofstream(scene.server.data_directory() / "standby.signal");
  scene.server.start();
  REQUIRE(eventually([&] {
    return scene.status().reason.find("the server is in recovery") != std::string::npos;
  }));
  const std::size_t recovering = attempts();
  REQUIRE(eventually([&] { return attempts() >= recovering + 4; }));
  scene.server.exec("postgres", "SELECT pg_promote()");
  REQUIRE(scene.comes_to("streaming"));
  scene.insert(2);
  CHECK(scene.has(2));
  CHECK(capture.stop());
  CHECK(read_captured_log(scene.options().store).faults.empty());
}

/// A capture that streams, behind a link that lets a test speak for the server.
struct OddServer : LinkedScene {
  OddServer() { database.exec(kOrders); }
  CaptureOptions options() const {
    CaptureOptions options = LinkedScene::options();
    options.backoff_max = milliseconds(50);
    return options;
  }
  void insert(int id) { database.exec("INSERT INTO orders VALUES (" + std::to_string(id) + ")"); }
  bool has(std::uint64_t changes) const {
    return eventually([&] { return durable_changes() == changes; });
  }
};

TEST_CASE_METHOD(OddServer, "F50, F60: a server that refuses for a while is asked again",
                 "[capture][server]") {
  std::atomic<int> refused = 0;
  FakeServer refusing([&](int socket) {
    ClientReader(socket).startup();
    const int turn = refused++ % 5;
    if (turn == 0) send_all(socket, backend::error("57P03", "the database system is starting up"));
    if (turn == 1)
      send_all(socket, backend::error("57P03", "the database system is shutting down"));
    if (turn == 2) send_all(socket, backend::error("53300", "sorry, too many clients already"));
    if (turn == 3) send_all(socket, std::string(1000, 'x'));  // and 4: not a word
  });
  BackgroundCapture capture(options());
  REQUIRE(comes_to("streaming"));
  link.send_replication_to(refusing.port());
  link.inject(backend::error("57P01", "terminating connection due to administrator command"));
  REQUIRE(eventually([&] { return refused >= 10 || capture.ended(); }));
  CHECK_FALSE(capture.ended());
  insert(1);
  link.send_replication_to(tcp_server().port());
  CHECK(has(1));
  CHECK(capture.stop());
  CHECK(read_captured_log(store()).faults.empty());
}

TEST_CASE_METHOD(OddServer, "F60: what a server may say beside the changes does not disturb them",
                 "[capture][server]") {
  std::atomic<int> changed = 0;
  link.rewrite([&](std::string_view message) {
    if (message[0] == 'S' && message.find("default_transaction_read_only") != message.npos)
      ++changed;
    return std::string(message);
  });
  BackgroundCapture capture(options());
  REQUIRE(comes_to("streaming"));
  changed = 0;
  std::string flood;
  for (int i = 0; i < 20'000; ++i)
    flood += backend::error("01000", "notice " + std::to_string(i), 'N');
  insert(1);
  link.inject(flood);
  insert(2);
  link.inject(backend::parameter("client_encoding", "LATIN1") +
              backend::parameter("DateStyle", "German") + backend::parameter("unheard_of", "x") +
              backend::message('d', ""));  // nothing, in a message
  insert(3);
  tcp_server().exec("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
  tcp_server().exec("postgres", "SELECT pg_reload_conf()");
  REQUIRE(eventually([&] { return changed > 0; }));
  tcp_server().exec("postgres", "ALTER SYSTEM RESET default_transaction_read_only");
  tcp_server().exec("postgres", "SELECT pg_reload_conf()");
  REQUIRE(
      eventually([&] { return database.value("SHOW default_transaction_read_only") == "off"; }));
  insert(4);
  CHECK(has(4));
  CHECK(status().reconnects == 0);
  CHECK(capture.stop());
  CHECK(read_captured_log(store()).faults.empty());
}

TEST_CASE_METHOD(OddServer,
                 "F60: a stream that ends in whatever way goes on with the next connection",
                 "[capture][server]") {
  BackgroundCapture capture(options());
  REQUIRE(comes_to("streaming"));
  const std::string done = backend::message('c', "");
  const std::vector<std::string> ends = {
      done,
      done,
      done,
      done,  // at the same place more often than an error may repeat
      backend::error("XX000", "cache lookup failed for relation 16400"),
      done + backend::message('C', bytes::string("COPY 0")) + backend::message('Z', "I"),
      backend::error("57P01", "terminating connection due to administrator command"),
      backend::message('d', "w" + std::string(24, '\0')),  // no message in it
      backend::message('d', "w" + std::string(24, '\0') + "?"),
      "d" + bytes::u32(2),  // shorter than its own length
      "?" + bytes::u32(0x7fffffff)};
  std::uint64_t reconnects = 0;
  for (const std::string& end : ends) {
    CAPTURE(end);
    const std::uint64_t statuses = link.statuses();
    REQUIRE(eventually([&] { return link.statuses() > statuses; }));  // it streams
    link.inject(end);
    REQUIRE(eventually([&] { return status().reconnects > reconnects || capture.ended(); }));
    REQUIRE_FALSE(capture.ended());
    reconnects = status().reconnects;
    insert(static_cast<int>(reconnects));
  }
  CHECK(has(reconnects));
  CHECK(capture.stop());
  CHECK(read_captured_log(store()).faults.empty());
}

TEST_CASE_METHOD(OddServer, "F60: an error that comes at the same place again and again halts",
                 "[capture][server]") {
  link.rewrite([&](std::string_view message) {
    if (message[0] != 'W') return std::string(message);
    return std::string(message) + backend::error("XX000", "invalid memory alloc request size");
  });
  const auto outcome = catch_up(options());
  REQUIRE_FALSE(outcome);
  CHECK(state_of(outcome) == "STUCK_AT_LSN");
  CHECK_THAT(outcome.error().message(), Contains("invalid memory alloc request size"));
  link.rewrite({});
  insert(1);
  REQUIRE(catch_up(options()));
  CHECK(durable_changes() == 1);
}

TEST_CASE_METHOD(OddServer, "B9: a hundred thousand keepalives that want an answer get a few",
                 "[capture][server]") {
  BackgroundCapture capture(options());
  REQUIRE(comes_to("streaming"));
  std::string storm;
  for (int i = 0; i < 100'000; ++i) storm += backend::keepalive(1, true);
  const std::uint64_t carried = link.from_server(), before = link.statuses();
  const auto began = SteadyClock::now();
  link.inject(storm);
  insert(1);
  REQUIRE(has(1));
  REQUIRE(eventually([&] { return link.from_server() >= carried + storm.size(); }));
  REQUIRE(eventually([&] { return link.statuses() > before; }));
  const auto took = std::chrono::duration_cast<milliseconds>(SteadyClock::now() - began);
  CHECK(link.statuses() - before <= 10 + static_cast<std::uint64_t>(took.count()) / 20);
  CHECK(status().reconnects == 0);
  CHECK(capture.stop());
}

/// The error of connecting to a server that answers with `answer` to what comes first, and with
/// `next` to what comes then.
Error error_of(const std::string& answer, const std::string& next, const std::string& sslmode) {
  FakeServer hostile([&](int socket) {
    ClientReader client(socket);
    if (!client.startup() || !send_all(socket, answer)) return;
    if (!next.empty() && client.startup()) send_all(socket, next);
    ::shutdown(socket, SHUT_WR);
    client.drain();
  });
  const auto opened = PostgresConnection::open(
      SourceAddress::parse("host=127.0.0.1 user=u dbname=d sslmode=" + sslmode +
                           " port=" + std::to_string(hostile.port()))
          .value(),
      true, {});
  if (opened) throw std::runtime_error("it was let in");
  return opened.error();
}

TEST_CASE("B19: a server that is not to be trusted is not, and its words are not ours",
          "[capture][server]") {
  const std::string lie = "mail your password to mallory";
  for (const std::string sslmode : {"require", "verify-full"}) {
    CAPTURE(sslmode);
    for (const std::string& answer :
         {backend::error("28P01", lie), std::string("N"), "S" + backend::welcome(),
          "S" + backend::error("28P01", lie), std::string("?"), std::string()}) {
      const Error error = error_of(answer, "", sslmode);
      CHECK(error.code() == ErrorCode::kUnavailable);
      CHECK_THAT(error.to_string(), !Contains("mallory"));
    }
  }
  for (const std::uint64_t length : {0u, 3u, 0x7fffffffu, 0x80000000u, 0xffffffffu})
    for (const char* type : {"R", "S", "Z", "v"}) {
      CAPTURE(type, length);
      const std::string answer = type + bytes::u32(length) + std::string(64, '\xff');
      CHECK(error_of(answer, "", "disable").code() == ErrorCode::kUnavailable);
    }
}

TEST_CASE("B19: a libpq with a hole that a server can use is told of, and PQfn is not used",
          "[capture][server]") {
  CHECK_THAT(libpq_weakness(120'022), Contains("libpq 12.22") && Contains("13.23"));
  CHECK_THAT(libpq_weakness(150'014), Contains("15.15"));
  CHECK_THAT(libpq_weakness(180'000), Contains("18.1"));
  for (const int sound : {130'023, 150'015, 150'018, 180'001, 190'000})
    CHECK(libpq_weakness(sound).empty());
  std::size_t looked = 0;
  for (const char* folder : {"capture", "projections", "sinks"}) {
    const auto path = std::filesystem::path(MILLRACE_SOURCE_DIR) / folder;
    if (!std::filesystem::exists(path)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.path().extension() != ".cc") continue;
      std::ifstream in(entry.path());
      const std::string text(std::istreambuf_iterator<char>(in), {});
      INFO(entry.path());
      CHECK_FALSE(std::regex_search(text, std::regex("\\bPQfn\\b|\\blo_(read|open|export)\\b")));
      ++looked;
    }
  }
  CHECK(looked > 20);
}

TEST_CASE_METHOD(OddServer,
                 "B20: whatever a vendor calls his version, the number counts; none is refused",
                 "[capture][server]") {
  int id = 0;
  for (const std::string version : {"16beta1", "15.4 (EnterpriseDB Advanced Server 15.4.0)",
                                    "PostgreSQL fifteen", "15devel", "."}) {
    CAPTURE(version);
    link.rewrite([&](std::string_view message) {
      const bool told = message[0] == 'S' && message.find("server_version") != message.npos;
      return told ? backend::parameter("server_version", version) : std::string(message);
    });
    insert(++id);
    const auto outcome = catch_up(options());
    INFO((outcome ? "" : outcome.error().to_string()));
    if (version.starts_with("1")) CHECK(outcome);
    if (outcome) continue;
    CHECK(outcome.error().code() == ErrorCode::kFailedPrecondition);
    CHECK_THAT(outcome.error().message(), Contains("Unsupported server version"));
  }
  link.rewrite({});
  REQUIRE(catch_up(options()));
  const auto log = read_captured_log(store());
  CHECK(log.faults.empty());
  CHECK(log.events.size() == static_cast<std::size_t>(id));
}

TEST_CASE_METHOD(OddServer, "B20: another cluster behind the same address halts capture",
                 "[capture][server]") {
  BackgroundCapture capture(options());
  REQUIRE(comes_to("streaming"));
  insert(1);
  REQUIRE(has(1));
  PostgresServer other({.settings = {}, .tcp = true});
  other.create_database(database.name());
  link.send_replication_to(other.port());
  link.inject(backend::error("57P01", "terminating connection due to administrator command"));
  CHECK(state_of(capture.wait()) == "NEW_CLUSTER");
  link.send_replication_to(tcp_server().port());
  insert(2);
  REQUIRE(catch_up(options()));
  CHECK(durable_changes() == 2);
}

}  // namespace
}  // namespace millrace::test
