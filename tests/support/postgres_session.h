#pragma once

#include <libpq-fe.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "tests/support/postgres_fixture.h"

namespace millrace::test {

/// A connection of its own, for a transaction that stays open.
class Session {
 public:
  explicit Session(const TestDatabase& database)
      : connection_(PQconnectdb(database.uri().c_str()), &PQfinish) {
    if (PQstatus(connection_.get()) != CONNECTION_OK)
      throw std::runtime_error(PQerrorMessage(connection_.get()));
  }
  /// Throws std::runtime_error with the statement and the server's words.
  void exec(const std::string& sql) {
    const std::unique_ptr<PGresult, decltype(&PQclear)> answer(
        PQexec(connection_.get(), sql.c_str()), &PQclear);
    const auto status = PQresultStatus(answer.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
      throw std::runtime_error(sql + ": " + PQresultErrorMessage(answer.get()));
  }

 private:
  std::unique_ptr<PGconn, decltype(&PQfinish)> connection_;
};

}  // namespace millrace::test
