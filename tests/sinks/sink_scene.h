#pragma once

#include <sstream>

#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "tests/projections/running.h"
#include "tests/sinks/balances.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/redis_fixture.h"

// What PostgreSQL and Redis show of a view that is kept there.

namespace millrace::projections::test {
using millrace::test::PostgresServer;
using millrace::test::RedisServer;
using millrace::test::TestDatabase;

/// Of workers that are not to be waited for.
inline WorkerOptions impatient() {
  using std::chrono::milliseconds;
  return {.retry_first = milliseconds(5), .retry_max = milliseconds(20)};
}

inline std::vector<std::string> rows_in(PostgresServer& server, const std::string& database,
                                        const std::string& table = "balances") {
  std::vector<std::string> rows;
  for (const auto& row :
       server.query(database, "SELECT id, cents, bookings FROM " + table + " ORDER BY id"))
    rows.push_back(*row[0] + "|" + row[1].value_or("null") + "|" + *row[2]);
  return rows;
}
inline std::vector<std::string> rows_in(TestDatabase& database,
                                        const std::string& table = "balances") {
  return rows_in(database.server(), database.name(), table);
}

/// One transaction, as readers have it.
inline std::vector<std::string> rows_in(const RedisServer& redis,
                                        const std::string& view = "balances") {
  const std::string script =
      "local rows = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do "
      "local row = redis.call('HMGET', key, 'id', 'cents', 'bookings') "
      "rows[#rows + 1] = row[1] .. '|' .. row[2] .. '|' .. row[3] end return rows";
  const std::string out = redis.run({"EVAL", script, "0", view + ":*"});
  std::map<int, std::string> rows;
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) rows[std::stoi(line)] = line;
  std::vector<std::string> sorted;
  for (const auto& [id, row] : rows) sorted.push_back(row);
  return sorted;
}

inline std::int64_t sum_of(const std::vector<std::string>& rows) {
  std::int64_t sum = 0;
  for (const std::string& row : rows) sum += std::stoll(row.substr(row.find('|') + 1));
  return sum;
}

inline bool is_equal(ShopStore& store, const View& view) {
  const VerifyReport report = must(verify_view(view, store.context()));
  for (const Difference& difference : report.differences)
    UNSCOPED_INFO(difference.what << " " << difference.key << ": " << difference.live
                                  << " should be " << difference.computed);
  return report.different == 0;
}

}  // namespace millrace::projections::test
