// What docs/projections.md shows of events and of folds of one's own: see examples_test.cc.

#include "examples/cart/cart.h"
#include "projections/projections.h"
#include "projections/testing.h"
#include "public.orders.pb.h"
#include "tests/support/catch.h"

using namespace millrace::projections;
using namespace millrace::projections::testing;
using shop::Orders;
using Strings = std::vector<std::string>;

TEST_CASE("projections.md: views of events", "[docs]") {
  // Cart as in examples/cart: a category, events as a std::variant, decode()
  const auto by_cart =
      CacheTable("carts", Version{1},
                 {.key = text("cart"), .columns = {counter("items"), counter("checked_out")}})
          .on_event<Cart>([](const Event<Cart::Event>& event, CacheTable::Writer& carts) {
            if (event.is_erased()) return carts.erase(event.key());
            event.match(
                [&](const Cart::ItemAdded& added) {
                  carts.add(event.key(), {{"items", added.count}});
                },
                [&](const Cart::ItemRemoved& gone) {
                  carts.subtract(event.key(), {{"items", gone.count}});
                },
                [&](const Cart::CheckedOut&) {
                  carts.put(event.key(), {{"checked_out", 1}});
                });
          });

  const auto popular = view("popular", Version{1})
                           .from(events("cart"))
                           .where([](const Event<>& event) { return event.type() == "ItemAdded"; })
                           .group_by(member("sku"))
                           .aggregate(count("times"), sum("pieces", member("count")))
                           .into(cache_table{.key = text("sku")});

  const std::vector<Transaction> history{{appended<Cart>("9f3a", Cart::ItemAdded{"A-1", 2, 250})},
                                         {appended<Cart>("77", Cart::ItemAdded{"A-1", 1, 250}),
                                          appended<Cart>("9f3a", Cart::ItemRemoved{"A-1", 1})},
                                         {appended<Cart>("9f3a", Cart::CheckedOut{250})}};
  ViewTester of_carts(by_cart), of_articles(popular);
  for (const Transaction& transaction : history) {
    of_carts.given(transaction);
    of_articles.given(transaction);
  }
  CHECK(of_carts.rows() == Strings{"77|1|0", "9f3a|1|1"});
  CHECK(of_articles.rows() == Strings{"A-1|2|3"});
}

TEST_CASE("projections.md: a fold of one's own", "[docs]") {
  const auto orders = table<Orders>("public.orders");

  const auto histories =
      orders.group_by(&Orders::customer_id)
          .aggregate(
              fold(
                  "history", std::string(),
                  [](std::string so_far, const Orders& o) { return so_far + o.status() + " "; },
                  in_order_of(&Orders::created_at)),
              fold(
                  "squares", std::int64_t{0},
                  [](std::int64_t sum, const Orders& o) {
                    return sum + o.total_cents() * o.total_cents();
                  },
                  take_back([](std::int64_t sum, const Orders& o) {
                    return sum - o.total_cents() * o.total_cents();
                  })));

  const auto order = [](std::int64_t id, const std::string& status, std::int64_t cents) {
    Orders row;
    row.set_id(id);
    row.set_customer_id(7);
    row.set_status(status);
    row.set_total_cents(cents);
    row.set_created_at(-id);
    return row;
  };
  const auto shown = view("histories", Version{1}).from(histories).into(cache_table{});
  ViewTester tester(shown);
  tester.given({inserted("public.orders", "1", order(1, "sent", 3)),
                inserted("public.orders", "2", order(2, "open", 2))});
  CHECK(tester.rows() == Strings{"7|open sent |13"});
  tester.given({deleted("public.orders", "2")});
  CHECK(tester.rows() == Strings{"7|sent |9"});
}
