#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/support/captured_log.h"
#include "tests/support/domain_events.h"
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
  enum class Kind : std::uint8_t {
    kRows,
    kEverything,  ///< Domain events too, and a table that changes its shape: make_tables().
  };
  Workload(TestDatabase& database, unsigned seed, Kind kind = Kind::kRows)
      : database_(database), random_(seed), kind_(kind), events_(seed) {}

  /// kWorkloadTables; of kEverything also an outbox, `public.outbox`, and `shapes`.
  void make_tables();

  /// Throws where the server goes away in it; settle() then, before the next one.
  void one_transaction();
  /// Asks the server, once it is back, whether it committed the last one. Throws while it is not.
  void settle();
  /// Numbers of those that were committed, in order.
  const std::vector<int>& committed() const { return committed_; }
  /// Where the domain events that a log holds (read_domain_events().captured) are first not those
  /// of committed(), in its order. The last `streamed` of these came through the stream: of those
  /// before there is what they left in the outbox, in any order.
  std::string event_difference(std::size_t streamed, std::vector<std::string> found) const;

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  std::string id() { return std::to_string(pick(1, 300)); }

  std::string statement();
  std::string shape();
  std::string events_and_shapes(WrittenEvents& written);
  void keep();

  TestDatabase& database_;
  std::minstd_rand random_;
  const Kind kind_;
  DomainEventWriter events_;
  WrittenEvents written_;  // by the last transaction
  int number_ = 0, columns_ = 0;
  std::vector<int> committed_;
  std::vector<WrittenEvents> committed_events_;  // of each of them
};

/// Which of those tables, `shapes` among them if it is there, is not what the log folds to, and the
/// first key where they differ.
std::vector<std::string> workload_differences(TestDatabase& database, const CapturedLog& log);

/// Where a table with a key `id`, whose shape has changed, is first not what the log folds to;
/// empty if it is. PostgreSQL tells nothing of what a change of the shape alone does to rows: a
/// column that a row has not in the log is one that came after it was written. So no name of a
/// column may be given twice; `v` is one that was always there, if it is.
std::string shaped_difference(TestDatabase& database, const std::string& table,
                              const CapturedLog& log);

}  // namespace millrace::test
