#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <pqxx/pqxx>
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::projections::postgres {

/// Where a PostgreSQL server is. Holds the password: print only describe().
class ServerAddress {
 public:
  /// kInvalidArgument, without a word of `text` that might be a secret.
  static Result<ServerAddress> parse(const std::string& text);

  /// For libpqxx, with time-outs that find a dead peer within half a minute where `text` was
  /// silent.
  std::string connection_string() const;
  /// "database shop on db:5432"
  std::string describe() const;

 private:
  std::string value(const std::string& name) const;

  std::vector<std::pair<std::string, std::string>> given_;
};

using Parameters = std::vector<std::string>;

/// A connection through libpqxx, of which the exceptions become errors here. Errors of run() and
/// open(): kUnavailable for what may pass (the network, a server that goes down or is read-only,
/// deadlocks, a full disk, a COMMIT whose outcome is not known), else kFailedPrecondition with
/// PostgreSQL's own words. Of no use after an error. Threads: one.
class Session {
 public:
  /// set_up() is the first thing to do: open() waits for no longer than the address's
  /// connect_timeout.
  static Result<std::unique_ptr<Session>> open(const ServerAddress& address);
  /// Has values come and go as text that depends on no setting of the server's.
  Result<void> set_up();

  template <typename Work>
  Result<void> run(const Work& work) {
    try {
      work();
      return {};
    } catch (...) {
      return failure();
    }
  }

  // --- within run(), these throw as libpqxx does ---
  void begin() { transaction_ = std::make_unique<pqxx::work>(*connection_); }
  void commit();
  void rollback() { transaction_.reset(); }
  bool in_transaction() const { return transaction_ != nullptr; }
  pqxx::result exec(const std::string& sql) { return transaction_->exec(sql); }
  pqxx::result exec(const std::string& sql, const Parameters& parameters);

  int socket() const { return connection_->sock(); }

 private:
  explicit Session(const ServerAddress& address) : where_(address.describe()) {}
  Error failure() const;  ///< Of the exception that is being handled.

  std::string where_;
  std::unique_ptr<pqxx::connection> connection_;
  std::unique_ptr<pqxx::work> transaction_;
};

}  // namespace millrace::projections::postgres
