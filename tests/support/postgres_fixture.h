#pragma once

#include <libpq-fe.h>

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/process.h"

namespace millrace::test {

/// Rows of a query, as text; a null is nothing.
using Rows = std::vector<std::vector<std::optional<std::string>>>;

struct PostgresOptions {
  /// On top of what a test server has anyway (wal_level=logical, fsync=off, room for slots).
  std::map<std::string, std::string> settings = {};
  bool tcp = false;  ///< Listens on 127.0.0.1 too; else only on a Unix socket in its own folder.
  std::string hba = {};  ///< Replaces pg_hba.conf ("host all app 127.0.0.1/32 scram-sha-256\n...");
                         ///< empty: trust everybody.
  std::vector<std::string> initdb_arguments = {};  ///< As "--wal-segsize=1".
};

/// A private PostgreSQL in a folder of its own below temporary_root(). It goes with its object,
/// also when a test fails, and with the process, should the test be killed. Run by root, the server
/// becomes user `postgres` (or `nobody`), since it refuses root.
///
/// Everything throws std::runtime_error with the server's own words. Threads: exec() and query()
/// from any, the rest from one.
class PostgresServer {
 public:
  enum class Stop { kFast, kImmediate, kKill };
  using Settings = std::map<std::string, std::string>;

  explicit PostgresServer(PostgresOptions options = {});
  ~PostgresServer();
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  /// The one server that the test cases of a program share; started when first asked for. Use a
  /// fresh database each.
  static PostgresServer& shared();

  /// "postgresql:///shop?host=/tmp/...&port=...&user=postgres"
  std::string uri(const std::string& database = "postgres",
                  const std::string& user = "postgres") const;
  /// "postgresql://postgres@127.0.0.1:PORT/shop"; only with `tcp`.
  std::string tcp_uri(const std::string& database = "postgres",
                      const std::string& user = "postgres") const;

  /// Both run on one superuser connection per database, which stays open: a transaction may span
  /// calls. Several statements in one call are one transaction.
  void exec(const std::string& database, const std::string& sql);
  /// Rows of the last statement.
  Rows query(const std::string& database, const std::string& sql);
  /// First value of the first row; empty for none or null.
  std::string value(const std::string& database, const std::string& sql);

  void create_database(const std::string& name);
  /// Ends its sessions, drops its replication slots, then the database itself.
  void drop_database(const std::string& name);

  void stop(Stop mode = Stop::kFast);
  void start();
  /// Stops and starts; `settings` are added to those in force.
  void restart(const Settings& settings = {}, Stop mode = Stop::kFast);

  pid_t pid() const { return server_ ? server_->pid() : -1; }
  int port() const { return port_; }
  int version() const { return version_; }                               ///< Major: 15.
  const std::filesystem::path& directory() const { return directory_; }  ///< Socket, log, data/.
  std::filesystem::path data_directory() const { return directory_ / "data"; }
  std::string log() const;  ///< All that the server wrote since it last started.
  /// Path of one of the server's programs: "pg_recvlogical".
  std::string program(const std::string& name) const { return (binaries_ / name).string(); }
  /// To become the server's user (for pg_ctl, files in its folder); nothing unless run by root.
  const std::optional<UserId>& user() const { return user_; }

 private:
  using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;
  using Answer = std::unique_ptr<PGresult, decltype(&PQclear)>;

  void write_file(const std::filesystem::path& path, const std::string& text) const;
  void write_settings() const;
  bool wait_ready();
  Answer run(const std::string& database, const std::string& sql);

  PostgresOptions options_;
  std::filesystem::path binaries_, directory_;
  std::optional<UserId> user_;
  int port_ = 0, version_ = 0;
  std::unique_ptr<ChildProcess> server_;
  std::mutex mutex_;  // guards connections_ and what runs on them
  std::map<std::string, Connection> connections_;
};

/// A fresh database on a server, dropped with its object.
class TestDatabase {
 public:
  explicit TestDatabase(PostgresServer& server = PostgresServer::shared());
  ~TestDatabase();
  TestDatabase(const TestDatabase&) = delete;
  TestDatabase& operator=(const TestDatabase&) = delete;

  const std::string& name() const { return name_; }
  std::string uri() const { return server_.uri(name_); }
  void exec(const std::string& sql) { server_.exec(name_, sql); }
  Rows query(const std::string& sql) { return server_.query(name_, sql); }
  std::string value(const std::string& sql) { return server_.value(name_, sql); }
  PostgresServer& server() { return server_; }

 private:
  PostgresServer& server_;
  std::string name_;
};

}  // namespace millrace::test
