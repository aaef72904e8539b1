// What docs/projections.md shows of functions and their tests: see examples_test.cc.

#include "projections/projections.h"
#include "projections/testing.h"
#include "public.orders.pb.h"
#include "tests/support/catch.h"

using namespace millrace::projections;
using namespace millrace::projections::testing;
using shop::Orders;

namespace {

Orders make_order(std::int64_t id, std::int64_t customer_id, std::int64_t cents) {
  Orders row;
  row.set_id(id);
  row.set_customer_id(customer_id);
  row.set_total_cents(cents);
  return row;
}

}  // namespace

TEST_CASE("projections.md: old rows are taken back", "[docs]") {
  const auto by_customer =
      CacheTable("totals", Version{1}, {.key = integer("id"), .columns = {counter("orders")}})
          .on<Orders>("public.orders", kNeedsOldRows,
                      [](const Change<Orders>& change, CacheTable::Writer& totals) {
                        if (change.is_truncate()) return totals.update_all({{"orders", 0}});
                        if (const Orders* old = change.before())
                          totals.subtract(old->customer_id(), {{"orders", 1}});
                        if (const Orders* now = change.after())
                          totals.add(now->customer_id(), {{"orders", 1}});
                      });
  const Orders first = make_order(1, 7, 100), second = make_order(2, 7, 50),
               moved_to_8 = make_order(2, 8, 50);
  ViewTester tester(by_customer);
  tester.given({inserted("public.orders", "1", first), inserted("public.orders", "2", second)});
  CHECK(tester.rows() == std::vector<std::string>{"7|2"});
  tester.given({updated("public.orders", "2", moved_to_8, &second)});
  CHECK(tester.rows() == std::vector<std::string>{"7|1", "8|1"});
  tester.given({deleted("public.orders", "1", &first)});
  CHECK(tester.rows() == std::vector<std::string>{"7|0", "8|1"});
  tester.given({truncated("public.orders")});
  CHECK(tester.rows() == std::vector<std::string>{"7|0", "8|0"});
}

TEST_CASE("projections.md: a view is tested in memory", "[docs]") {
  const auto totals = view("totals", Version{1})
                          .from(table<Orders>("public.orders"))
                          .group_by(&Orders::customer_id)
                          .aggregate(count("orders"), sum("spent", &Orders::total_cents))
                          .into(cache_table{});
  const Orders order = make_order(1, 7, 100), other = make_order(2, 7, 50);
  const std::vector<Transaction> transactions{{inserted("public.orders", "1", order)},
                                              {inserted("public.orders", "2", other)},
                                              {deleted("public.orders", "1")}};
  const std::uint64_t seed = 1;

  ViewTester tester(totals);
  tester.given({inserted("public.orders", "1", order), inserted("public.orders", "2", other)});
  tester.given({deleted("public.orders", "2")});
  CHECK(tester.rows() == std::vector<std::string>{"7|1|100"});

  CHECK(first_difference(totals, transactions, seed) == std::nullopt);
  CHECK(first_difference_when_read_again(totals, transactions, seed) == std::nullopt);
}
