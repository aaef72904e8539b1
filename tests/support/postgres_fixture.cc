#include "tests/support/postgres_fixture.h"

#include <arpa/inet.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

constexpr auto kStartTimeout = std::chrono::seconds(60);

/// Where initdb and postgres are: the newest of Debian's folders, else where pg_config points.
std::filesystem::path find_binaries() {
  std::filesystem::path best;
  int best_version = 0;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", missing)) {
    const int version = std::atoi(entry.path().filename().c_str());
    if (version > best_version && std::filesystem::exists(entry.path() / "bin/initdb")) {
      best = entry.path() / "bin";
      best_version = version;
    }
  }
  if (!best.empty()) return best;
  std::string told = run_command({"pg_config", "--bindir"}).out;
  while (!told.empty() && told.back() == '\n') told.pop_back();
  if (std::filesystem::exists(std::filesystem::path(told) / "initdb")) return told;
  throw std::runtime_error("no PostgreSQL server found: apt-get install postgresql");
}

std::optional<UserId> server_user() {
  if (getuid() != 0) return std::nullopt;
  for (const char* name : {"postgres", "nobody"})
    if (const passwd* entry = getpwnam(name)) return UserId{entry->pw_uid, entry->pw_gid};
  throw std::runtime_error(
      "PostgreSQL does not run as root, and there is no user postgres or nobody");
}

/// A port that is free on the loopback interface now.
int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool found = bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  if (!found) throw std::runtime_error("no free port on 127.0.0.1");
  return ntohs(address.sin_port);
}

std::string quoted(std::string text, char quote) {
  for (std::size_t at = 0; (at = text.find(quote, at)) != std::string::npos; at += 2)
    text.insert(at, 1, quote);
  return quote + text + quote;
}

const std::vector<std::string> kForeignSettings = {
    "PGHOST", "PGPORT",    "PGUSER",    "PGDATABASE", "PGPASSWORD",
    "PGDATA", "PGSERVICE", "PGOPTIONS", "PGSSLMODE",  "NOTIFY_SOCKET"};

}  // namespace

PostgresServer::PostgresServer(PostgresOptions options)
    : options_(std::move(options)), binaries_(find_binaries()), user_(server_user()) {
  directory_ = make_temporary_directory("millrace-pg");  // scripts/test knows servers by that name
  try {
    if (user_ && chown(directory_.c_str(), user_->user, user_->group) != 0)
      throw std::runtime_error("chown " + directory_.string());
    std::vector<std::string> arguments = {program("initdb"),
                                          "-D",
                                          data_directory(),
                                          "-U",
                                          "postgres",
                                          "--auth=trust",
                                          "-E",
                                          "UTF8",
                                          "--locale=C.UTF-8",
                                          "--no-sync"};
    arguments.insert(arguments.end(), options_.initdb_arguments.begin(),
                     options_.initdb_arguments.end());
    const CommandResult made =
        run_command(arguments, {.unset = kForeignSettings, .directory = directory_, .user = user_});
    if (made.exit_code != 0) throw std::runtime_error("initdb: " + made.out + made.err);

    const Settings defaults = {{"wal_level", "logical"},
                               {"max_wal_senders", "40"},
                               {"max_replication_slots", "40"},
                               {"max_connections", "100"},
                               {"shared_buffers", "32MB"},
                               {"fsync", "off"},
                               {"max_wal_size", "2GB"},
                               {"autovacuum", "off"},
                               {"log_min_messages", "warning"},
                               {"timezone", "UTC"},
                               {"listen_addresses", options_.tcp ? "127.0.0.1" : ""},
                               {"unix_socket_directories", directory_}};
    options_.settings.insert(defaults.begin(), defaults.end());  // what the test wants comes first
    std::ofstream(data_directory() / "postgresql.conf", std::ios::app) << "include 'test.conf'\n";
    if (!options_.hba.empty()) write_file(data_directory() / "pg_hba.conf", options_.hba);
    port_ = options_.tcp ? free_port() : 5432;
    start();
    version_ = std::atoi(value("postgres", "SHOW server_version_num").c_str()) / 10000;
  } catch (...) {
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
    throw;
  }
}

PostgresServer::~PostgresServer() {
  try {
    stop(Stop::kImmediate);
  } catch (const std::exception&) {
    server_.reset();  // SIGKILL
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

PostgresServer& PostgresServer::shared() {
  static PostgresServer server;
  return server;
}

std::string PostgresServer::uri(const std::string& database, const std::string& user) const {
  return "postgresql:///" + database + "?host=" + directory_.string() +
         "&port=" + std::to_string(port_) + "&user=" + user;
}

std::string PostgresServer::tcp_uri(const std::string& database, const std::string& user) const {
  return "postgresql://" + user + "@127.0.0.1:" + std::to_string(port_) + "/" + database;
}

void PostgresServer::write_file(const std::filesystem::path& path, const std::string& text) const {
  std::ofstream(path, std::ios::trunc) << text;
  if (user_ && chown(path.c_str(), user_->user, user_->group) != 0)
    throw std::runtime_error("chown " + path.string());
}

void PostgresServer::write_settings() const {
  std::string text = "port = " + std::to_string(port_) + "\n";
  for (const auto& [name, value] : options_.settings)
    text += name + " = " + quoted(value, '\'') + "\n";
  write_file(data_directory() / "test.conf", text);
}

void PostgresServer::start() {
  if (server_) return;
  write_settings();
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  for (;;) {
    // SIGQUIT: what a dying test leaves behind shuts down at once and takes its children along.
    server_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{program("postgres"), "-D", data_directory()},
        ProcessOptions{.unset = kForeignSettings,
                       .directory = directory_,
                       .user = user_,
                       .parent_death_signal = SIGQUIT});
    if (wait_ready()) return;
    const std::string said = log();
    server_.reset();
    // Children of a server that was killed notice it a moment later.
    const bool in_use = said.find("pre-existing shared memory") != std::string::npos;
    if (!in_use || std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("PostgreSQL did not start: " + said);
  }
}

/// False when the server ended or took too long.
bool PostgresServer::wait_ready() {
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  const std::string where = uri() + "&connect_timeout=2";
  while (PQping(where.c_str()) != PQPING_OK) {
    if (!server_->running() || std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(
        std::chrono::milliseconds(5));  // between two looks at the condition
  }
  return true;
}

void PostgresServer::stop(Stop mode) {
  {
    const std::lock_guard lock(mutex_);
    connections_.clear();
  }
  if (!server_) return;
  const int signal = mode == Stop::kFast ? SIGINT : mode == Stop::kImmediate ? SIGQUIT : SIGKILL;
  server_->kill(signal);
  const bool ended = server_->wait(kStartTimeout).has_value();
  const std::string said = ended ? "" : log();
  server_.reset();
  if (!ended) throw std::runtime_error("PostgreSQL did not stop: " + said);
}

void PostgresServer::restart(const Settings& settings, Stop mode) {
  stop(mode);
  for (const auto& [name, value] : settings) options_.settings[name] = value;
  start();
}

std::string PostgresServer::log() const { return server_ ? server_->error_output() : ""; }

PostgresServer::Answer PostgresServer::run(const std::string& database, const std::string& sql) {
  const std::lock_guard lock(mutex_);
  auto found = connections_.find(database);
  if (found == connections_.end() || PQstatus(found->second.get()) != CONNECTION_OK) {
    Connection opened(PQconnectdb(uri(database).c_str()), &PQfinish);
    if (PQstatus(opened.get()) != CONNECTION_OK)
      throw std::runtime_error(PQerrorMessage(opened.get()));
    PQsetNoticeProcessor(
        opened.get(), [](void*, const char*) {}, nullptr);
    found = connections_.insert_or_assign(database, std::move(opened)).first;
  }
  Answer answer(PQexec(found->second.get(), sql.c_str()), &PQclear);
  const ExecStatusType status = PQresultStatus(answer.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY)
    throw std::runtime_error(PQerrorMessage(found->second.get()) + sql);
  return answer;
}

void PostgresServer::exec(const std::string& database, const std::string& sql) {
  run(database, sql);
}

Rows PostgresServer::query(const std::string& database, const std::string& sql) {
  const Answer answer = run(database, sql);
  Rows rows(static_cast<std::size_t>(PQntuples(answer.get())));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    for (int column = 0; column < PQnfields(answer.get()); ++column) {
      const int at = static_cast<int>(row);
      if (PQgetisnull(answer.get(), at, column)) {
        rows[row].emplace_back();
      } else {
        rows[row].emplace_back(
            std::string(PQgetvalue(answer.get(), at, column),
                        static_cast<std::size_t>(PQgetlength(answer.get(), at, column))));
      }
    }
  }
  return rows;
}

std::string PostgresServer::value(const std::string& database, const std::string& sql) {
  const Rows rows = query(database, sql);
  return rows.empty() || rows[0].empty() ? "" : rows[0][0].value_or("");
}

void PostgresServer::create_database(const std::string& name) {
  exec("postgres", "CREATE DATABASE " + quoted(name, '"'));
}

void PostgresServer::drop_database(const std::string& name) {
  {
    const std::lock_guard lock(mutex_);
    connections_.erase(name);
  }
  const std::string literal = quoted(name, '\'');
  exec("postgres",
       "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = " + literal);
  exec("postgres",
       "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = " +
           literal);
  exec("postgres", "DROP DATABASE IF EXISTS " + quoted(name, '"') + " WITH (FORCE)");
}

TestDatabase::TestDatabase(PostgresServer& server) : server_(server) {
  static std::atomic<int> next{1};
  name_ = "t" + std::to_string(next++);
  server_.create_database(name_);
}

TestDatabase::~TestDatabase() {
  try {
    server_.drop_database(name_);
  } catch (const std::exception&) {
    // The server may be down by the test's own will; the database goes with it.
  }
}

}  // namespace millrace::test
