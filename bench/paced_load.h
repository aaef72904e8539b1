#pragma once

#include <atomic>
#include <string>
#include <thread>

#include "bench/bench.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {

/// pgbench, which commits transactions of one statement at a pace, each waiting for the disk.
class PacedLoad {
 public:
  struct Options {
    std::string database;
    std::string script;  ///< Of a transaction, in pgbench's words.
    int clients = 8;
    int transactions = 8000;  ///< Of all clients together.
    int per_second = 2000;
  };
  PacedLoad(const Settings& settings, test::PostgresServer& server, const Options& options);

  bool failed() const { return failed_; }

 private:
  std::atomic<bool> failed_ = false;
  std::jthread thread_;
};

/// Waits until somebody reads the slot.
void wait_until_read(test::PostgresServer& server, const std::string& database,
                     const std::string& slot);

/// Since a moment of the machine's clock, which is that of the server's commits.
double micros_since(std::int64_t unix_micros);

}  // namespace millrace::bench
