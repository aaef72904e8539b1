// What docs/projections.md shows of sinks: see examples_test.cc.

#include <cstdlib>

#include "projections/sink_testing.h"
#include "sinks/postgres_table.h"
#include "sinks/redis_keys.h"
#include "tests/projections/shop_store.h"
#include "tests/support/postgres_fixture.h"

using namespace millrace::projections;
using namespace millrace::projections::test;
using namespace millrace::projections::testing;
using millrace::test::TestDatabase;
using shop::Orders;

TEST_CASE("projections.md: a view is kept in PostgreSQL as well", "[docs]") {
  TestDatabase database;
  ShopStore store;
  store.commit({millrace::projections::test::inserted(order(1, 7, 100)),
                millrace::projections::test::inserted(order(2, 7, 50))});
  ::setenv("REPORTS_DATABASE", database.uri().c_str(), 1);
  const auto orders = millrace::projections::table<Orders>("public.orders");
  App app("docs");

  const std::string reports = std::getenv("REPORTS_DATABASE");  // "postgresql://reports@db/reports"
  app.add(view("customer_totals", Version{1})
              .from(orders)
              .group_by(&Orders::customer_id)
              .aggregate(count("orders"), sum("spent", &Orders::total_cents))
              .into(cache_table{.sink = postgres_table({.server = reports})}));

  std::vector<std::string> words{"docs",    "run",         "--store",           store.directory(),
                                 "--views", store.views(), "--until-caught-up", "--log-level",
                                 "warn"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  REQUIRE(app.main(static_cast<int>(arguments.size()), arguments.data()) == 0);
  CHECK(
      database.value("SELECT customer_id || ' ' || orders || ' ' || spent FROM customer_totals") ==
      "7 2 150");
}

TEST_CASE("projections.md: a sink is put through its promises", "[docs]") {
  TestDatabase database;
  const auto my_kind = postgres_table({.server = database.uri()});
  const SinkShape shape{"mine", integer("id"), {text("name"), counter("orders")}, {}};

  CHECK(broken_promise(*my_kind, shape) == std::nullopt);
}
