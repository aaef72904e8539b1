#pragma once

#include <random>
#include <string>
#include <vector>

#include "tests/support/captured_log.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {

/// Three tables with all kinds of identity, and one row in `audit` for each transaction, in it.
inline constexpr const char* kWorkloadTables = R"(
  CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,3), tags text[], doc jsonb, big text);
  ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE pairs (a int, b text, n bigint, PRIMARY KEY (a, b));
  ALTER TABLE pairs REPLICA IDENTITY FULL;
  CREATE TABLE codes (id int PRIMARY KEY, code text NOT NULL UNIQUE, at timestamptz);
  ALTER TABLE codes REPLICA IDENTITY USING INDEX codes_code_key;
  CREATE TABLE audit (id int PRIMARY KEY);
  INSERT INTO items SELECT g, 'item ' || g, g * 1.5, ARRAY['a', g::text], '{"n": 1}', repeat('x', 3000) FROM generate_series(1, 200) g)";

/// Random transactions on them, the same for the same seed: each leaves its number in `audit`; one
/// in eight is rolled back.
class Workload {
 public:
  Workload(TestDatabase& database, unsigned seed) : database_(database), random_(seed) {}

  /// Throws where the server goes away in it; settle() then, before the next one.
  void one_transaction();
  /// Asks the server, once it is back, whether it committed the last one. Throws while it is not.
  void settle();
  /// Numbers of those that were committed, in order.
  const std::vector<int>& committed() const { return committed_; }

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string id() { return std::to_string(pick(1, 300)); }

  std::string statement();

  TestDatabase& database_;
  std::minstd_rand random_;
  int number_ = 0;
  std::vector<int> committed_;
};

/// Which of those tables is not what the log folds to, and the first key where they differ.
std::vector<std::string> workload_differences(TestDatabase& database, const CapturedLog& log);

}  // namespace millrace::test
