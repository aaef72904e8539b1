#pragma once

#include "tests/projections/shop_store.h"

namespace millrace::projections::test {

/// A declared view that keeps state of its own beside its rows, in the same file. It shows what
/// ShopWorkload::expected_totals() says.
inline RelationalView joined_totals() {
  using shop::Customers;
  using shop::Orders;
  const auto totals = projections::table<Orders>("public.orders")
                          .group_by(&Orders::customer_id)
                          .aggregate(count("orders"), sum("spent", &Orders::total_cents));
  return view("joined_totals", Version{1})
      .from(projections::table<Customers>("public.customers"))
      .left_join(totals, &Customers::id,
                 [](const Customers& customer, const Record* sums) {
                   return Record{{"name", customer.name()},
                                 {"orders", sums ? (*sums)["orders"] : 0},
                                 {"spent", sums ? (*sums)["spent"] : 0}};
                 })
      .into(cache_table{.key = integer("id"),
                        .columns = {text("name"), integer("orders"), integer("spent")}});
}

}  // namespace millrace::projections::test
