#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "capture/capture_status.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

/// Who gets in, and who is let in: TLS and authentication as libpq offers them.
namespace millrace::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;

void openssl(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"openssl"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const CommandResult done = run_command(command);
  if (done.exit_code != 0) throw std::runtime_error("openssl " + arguments[0] + ": " + done.err);
}

/// A server with TLS, a certificate authority of its own, and one way in for each role.
struct SecureServer {
  PostgresServer server{{.settings = {},
                         .tcp = true,
                         .hba = "local all postgres trust\n"
                                "hostssl all certified all cert\n"
                                "hostssl all clear all password\n"
                                "hostssl all scram all scram-sha-256\n"
                                "hostnossl all plain all scram-sha-256\n"}};
  std::filesystem::path folder = server.directory() / "tls";

  SecureServer() {
    std::filesystem::create_directory(folder);
    authority("ca");
    authority("stranger");
    certificate("server", "ca", "/CN=db.test", "DNS:db.test", "30");
    certificate("expired", "ca", "/CN=db.test", "DNS:db.test", "-1");
    certificate("certified", "ca", "/CN=certified", "DNS:none", "30");
    certificate("stranger_client", "stranger", "/CN=certified", "DNS:none", "30");
    server.restart({{"ssl", "on"},
                    {"ssl_cert_file", file("server.crt")},
                    {"ssl_key_file", file("server.key")},
                    {"ssl_ca_file", file("ca.crt")}});
    for (const char* role : {"certified", "clear", "scram", "plain"})
      server.exec("postgres",
                  std::string("CREATE ROLE ") + role + " LOGIN SUPERUSER PASSWORD 'Geh3im'");
  }
  static SecureServer& shared() {
    static SecureServer server;
    return server;
  }

  std::string file(const std::string& name) const { return (folder / name).string(); }
  void authority(const std::string& name) const {
    openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "30", "-subj", "/CN=" + name, "-keyout", file(name + ".key"), "-out",
             file(name + ".crt")});
  }
  void certificate(const std::string& name, const std::string& authority,
                   const std::string& subject, const std::string& names,
                   const std::string& days) const {
    openssl({"req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
             subject, "-keyout", file(name + ".key"), "-out", file(name + ".csr")});
    std::ofstream(file(name + ".ext")) << "subjectAltName=" << names << "\n";
    openssl({"x509", "-req", "-in", file(name + ".csr"), "-CA", file(authority + ".crt"), "-CAkey",
             file(authority + ".key"), "-CAcreateserial", "-days", days, "-extfile",
             file(name + ".ext"), "-out", file(name + ".crt")});
    ::chmod(file(name + ".key").c_str(), 0600);
    if (server.user() && (name == "server" || name == "expired"))
      for (const char* end : {".key", ".crt"})
        if (::chown(file(name + end).c_str(), server.user()->user, server.user()->group) != 0)
          throw std::runtime_error("chown " + name);
  }

  std::string source(const std::string& user, const std::string& rest,
                     const std::string& database = "postgres") const {
    return "host=db.test hostaddr=127.0.0.1 port=" + std::to_string(server.port()) +
           " dbname=" + database + " user=" + user + " " + rest;
  }
};

/// What comes of connecting in each of the two ways: empty if both work.
std::string outcome(const std::string& source) {
  const SourceAddress address = SourceAddress::parse(source).value();
  const auto replication = PostgresConnection::open(address, true, {});
  const auto catalog = Catalog(address).server();
  CHECK(replication.has_value() == catalog.has_value());
  if (replication) return "";
  CHECK(replication.error().code() == ErrorCode::kUnavailable);
  const std::string text = replication.error().message() + " " + replication.error().hint() + " " +
                           catalog.error().message() + " " + catalog.error().hint();
  CHECK_THAT(text, !Contains("Geh3im") && !Contains("LOCATION") && !Contains("28P01"));
  return (was_refused(replication.error()) ? "refused: " : "failed: ") + text;
}

TEST_CASE("B75: TLS is verified as sslmode says, and what can't be trusted is refused",
          "[capture][access]") {
  const SecureServer& secure = SecureServer::shared();
  const std::string ca = "password=Geh3im sslrootcert=" + secure.file("ca.crt");
  CHECK(outcome(secure.source("scram", ca + " sslmode=verify-full")).empty());
  CHECK(
      outcome(secure.source("scram", ca + " sslmode=verify-full channel_binding=require")).empty());
  CHECK(outcome(secure.source("scram", "password=Geh3im sslmode=require")).empty());
  CHECK_THAT(
      outcome("host=localhost hostaddr=127.0.0.1 port=" + std::to_string(secure.server.port()) +
              " dbname=postgres user=scram sslmode=verify-full " + ca),
      Contains("refused: ") && Contains("does not match host name"));
  CHECK_THAT(outcome(secure.source("scram", "password=Geh3im sslmode=verify-full sslrootcert=" +
                                                secure.file("stranger.crt"))),
             Contains("refused: ") && Contains("certificate verify failed"));
  CHECK_THAT(outcome(secure.source("scram", "password=Geh3im sslmode=verify-full sslrootcert=" +
                                                secure.file("nowhere.crt"))),
             Contains("does not exist"));
  CHECK_THAT(outcome(secure.source("plain", ca + " sslmode=verify-full")), Contains("refused: "));
  CHECK_THAT(outcome(secure.source("scram", ca + " sslmode=disable")), Contains("refused: "));
  // The server asks for the password itself: who demands channel binding does not give it away.
  CHECK(outcome(secure.source("clear", ca + " sslmode=verify-full")).empty());
  CHECK_THAT(outcome(secure.source("clear", ca + " sslmode=verify-full channel_binding=require")),
             Contains("refused: ") && Contains("channel binding"));
  CHECK_THAT(outcome(secure.source("plain",
                                   "password=Geh3im sslmode=disable "
                                   "channel_binding=require")),
             Contains("refused: ") && Contains("channel binding"));
}

TEST_CASE("B75: client certificates open the door that they are for", "[capture][access]") {
  const SecureServer& secure = SecureServer::shared();
  const auto with = [&](const std::string& name) {
    return secure.source("certified", "sslmode=verify-full sslrootcert=" + secure.file("ca.crt") +
                                          " sslcert=" + secure.file(name + ".crt") +
                                          " sslkey=" + secure.file(name + ".key"));
  };
  CHECK(outcome(with("certified")).empty());
  CHECK_THAT(outcome(with("stranger_client")), Contains("refused: "));
  CHECK_THAT(outcome(secure.source("certified", "sslmode=require sslcert= sslkey=")),
             Contains("refused: "));
}

TEST_CASE("B75: an expired certificate of the server is refused", "[capture][access]") {
  SecureServer secure;
  secure.server.restart({{"ssl_cert_file", secure.file("expired.crt")},
                         {"ssl_key_file", secure.file("expired.key")}});
  CHECK_THAT(outcome(secure.source("scram", "password=Geh3im sslmode=verify-full sslrootcert=" +
                                                secure.file("ca.crt"))),
             Contains("refused: ") && Contains("certificate verify failed"));
}

TEST_CASE("B65, B76: passwords come from where libpq looks, and stay hidden", "[capture][access]") {
  const SecureServer& secure = SecureServer::shared();
  const TemporaryDirectory directory;
  const std::string passfile = (directory.path() / "passfile").string();
  std::ofstream(passfile) << "*:*:*:scram:Geh3im\n";
  ::chmod(passfile.c_str(), 0600);
  const std::string by_file = secure.source("scram", "sslmode=require passfile=" + passfile);
  CHECK(outcome(by_file).empty());
  ::chmod(passfile.c_str(), 0644);  // libpq says it on stderr at most
  CHECK_THAT(outcome(by_file), Contains("refused: ") && Contains("chmod 600") &&
                                   Contains(passfile) && Contains("no password supplied"));
  CHECK_THAT(outcome(secure.source("scram", "sslmode=require password=Geh3im2")),
             Contains("refused: ") && Contains("password authentication failed"));
  CHECK_THAT(outcome(secure.source("nobody_there", "sslmode=require password=Geh3im")),
             Contains("refused: "));
  const std::string services = (directory.path() / "services").string();
  std::ofstream(services) << "[shop]\nhost=db.test\nhostaddr=127.0.0.1\nport="
                          << secure.server.port()
                          << "\nuser=scram\npassword=Geh3im\ndbname=postgres\nsslmode=require\n";
  ::setenv("PGSERVICEFILE", services.c_str(), 1);
  CHECK(outcome("service=shop").empty());
  ::unsetenv("PGSERVICEFILE");
}

TEST_CASE("F62: of several hosts the one that is wanted is found, a silent one is passed over",
          "[capture][access]") {
  const SecureServer& secure = SecureServer::shared();
  const std::string port = std::to_string(secure.server.port());
  const std::string rest =
      " dbname=postgres user=scram password=Geh3im sslmode=require target_session_attrs=read-write";
  // Nobody listens at port 1 of the first.
  CHECK(outcome("host=127.0.0.2,127.0.0.1 port=1," + port + rest).empty());
  // One that takes connections and never answers.
  const int silent = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(silent, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(silent, 8) == 0);
  REQUIRE(::getsockname(silent, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const std::string dead = std::to_string(ntohs(address.sin_port));
  CHECK(outcome("host=127.0.0.1,127.0.0.1 port=" + dead + "," + port + rest + " connect_timeout=2")
            .empty());
  CHECK_THAT(outcome("host=127.0.0.1 port=" + dead + rest + " connect_timeout=2"),
             Contains("failed: ") && Contains("does not answer"));
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = PostgresConnection::open(
      SourceAddress::parse("host=127.0.0.1 connect_timeout=60 port=" + dead).value(), true,
      stop.get_token());
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  ::close(silent);
  const auto opens = [&] {
    return PostgresConnection::open(
               SourceAddress::parse("host=127.0.0.1 port=" + port + rest).value(), true, {})
        .has_value();
  };
  PostgresServer& server = SecureServer::shared().server;
  server.exec("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
  server.exec("postgres", "SELECT pg_reload_conf()");
  CHECK(eventually([&] { return !opens(); }));
  server.exec("postgres", "ALTER SYSTEM RESET default_transaction_read_only");
  server.exec("postgres", "SELECT pg_reload_conf()");
  CHECK(eventually(opens));
}

/// A port that was free a moment ago.
int free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = ::bind(probe, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(probe);
  return bound ? ntohs(address.sin_port) : 0;
}

TEST_CASE("F61: a pooler in between is refused, and said to be one", "[capture][access]") {
  PostgresServer& server = PostgresServer::shared();
  const int port = free_port();
  const std::string settings = (server.directory() / "pgbouncer.ini").string();
  std::ofstream(settings) << "[databases]\npostgres = host=" << server.directory().string()
                          << " port=" << server.port() << " user=postgres\n[pgbouncer]\n"
                          << "listen_addr = 127.0.0.1\nlisten_port = " << port
                          << "\nauth_type = any\nunix_socket_dir =\n";
  ProcessOptions options;
  options.user = server.user();
  ChildProcess pooler({"/usr/sbin/pgbouncer", settings}, options);
  const std::string source =
      "host=127.0.0.1 dbname=postgres user=postgres port=" + std::to_string(port);
  REQUIRE(eventually([&] {
    return PostgresConnection::open(SourceAddress::parse(source).value(), true, {})
               .error()
               .message()
               .find("refused") == std::string::npos;
  }));
  CHECK_THAT(outcome(source), Contains("unsupported startup parameter") &&
                                  Contains("A pooler such as pgbouncer is in between"));
}

TEST_CASE("F56: a password that was changed stops the attempts to one in a while, then it goes on",
          "[capture][access]") {
  SecureServer& secure = SecureServer::shared();
  secure.server.create_database("vault");
  secure.server.exec("vault", kOrders);
  const TemporaryDirectory directory;
  CaptureOptions options;
  options.source = secure.source("scram",
                                 "password=Geh3im sslmode=verify-full channel_binding=require "
                                 "sslrootcert=" +
                                     secure.file("ca.crt"),
                                 "vault");
  options.store = directory.path() / "store";
  options.slot = "vault";
  options.report_interval = milliseconds(20);
  options.refused_pause = milliseconds(400);
  BackgroundCapture capture(options);
  const auto status = [&] {
    const auto read = load_capture_status(options.store);
    return read && *read ? **read : CaptureStatus{};
  };
  const auto comes_to = [&](const std::string& state) {
    return eventually([&] { return status().state() == state; });
  };
  const auto drop_connections = [&] {
    secure.server.exec("vault",
                       "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = "
                       "'scram' AND pid <> pg_backend_pid()");
  };
  REQUIRE(comes_to("streaming"));
  secure.server.exec("vault", "INSERT INTO orders VALUES (1)");
  secure.server.exec("vault", "ALTER ROLE scram PASSWORD 'Anders'");
  drop_connections();
  REQUIRE(comes_to("auth_failed"));
  CHECK_THAT(status().reason, Contains("password authentication failed"));
  const auto began = std::chrono::steady_clock::now();
  const auto failures = [&] {
    const std::string log = secure.server.log();
    std::size_t count = 0;
    for (std::size_t at = log.find("authentication failed for user \"scram\""); at != log.npos;
         at = log.find("authentication failed for user \"scram\"", at + 1))
      ++count;
    return count;
  };
  const std::size_t before = failures();
  REQUIRE(eventually([&] { return failures() >= before + 2; }));
  CHECK(std::chrono::steady_clock::now() - began >= options.refused_pause);
  secure.server.exec("vault", "ALTER ROLE scram PASSWORD 'Geh3im'");
  REQUIRE(comes_to("streaming"));
  secure.server.exec("vault", "ALTER ROLE scram NOLOGIN");
  drop_connections();
  REQUIRE(comes_to("auth_failed"));
  secure.server.exec("vault", "ALTER ROLE scram LOGIN; INSERT INTO orders VALUES (2)");
  REQUIRE(comes_to("streaming"));
  CHECK(eventually([&] { return test::count_changes(options.store) == 2; }));
  CHECK(capture.stop());
  CHECK(read_captured_log(options.store).faults.empty());
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options.store)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    INFO(entry.path());
    CHECK(bytes.find("Geh3im") == std::string::npos);
  }
}

}  // namespace
}  // namespace millrace::test
