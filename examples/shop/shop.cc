// The shop: two views of a PostgreSQL database, kept up to date from the event store that `millrace
// capture run` fills.
//
//   product_search    a full-text index of the products
//   customer_totals   one row per customer, with what the orders add up to
//
// The first is a function of changes: it gets every change of its table in commit order, from the
// first one on, and writes to the view. The second is declared, as a query is, and millrace works
// out what a change of either table does to it. Of both, millrace keeps the place, shows whole
// transactions only, and can compute them again at any time. README.md beside this file walks
// through it.

#include "projections/projections.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"
#include "public.products.pb.h"

using namespace millrace::projections;
using shop::Customers;
using shop::Orders;
using shop::Products;

namespace {

// change[&Products::name] is the column as PostgreSQL has it: null stays null, and a large text
// that an UPDATE did not touch is "unchanged", which leaves it in the index as it is.
void index_product(const Change<Products>& change, SearchIndex::Writer& index) {
  if (change.is_truncate()) return index.clear();
  if (change.is_delete()) return index.erase(change.key());
  index.put(change.key(), {{"name", change[&Products::name]},
                           {"description", change[&Products::description]},
                           {"category", change[&Products::category]},
                           {"price", change[&Products::price]}});
}

// Who has ordered nothing has no totals.
Record with_totals(const TableRow<Customers>& customer, const Record* totals) {
  return {
      {"name", customer[&Customers::name]},
      {"email", customer[&Customers::email]},
      {"city", customer[&Customers::city]},
      {"orders", totals ? (*totals)["orders"] : 0},
      {"spent_cents", totals ? (*totals)["spent_cents"] : 0},
      {"last_order_at", totals ? iso_timestamptz((*totals)["last_order_at"].integer()) : Datum()}};
}

}  // namespace

int main(int argc, char** argv) {
  App app("shop");

  app.add(
      SearchIndex(
          "product_search", Version{1},
          {.key = integer("id"), .text = {"name", "description"}, .stored = {"category", "price"}})
          .on<Products>("public.products", index_product));

  const auto totals = table<Orders>("public.orders")
                          .group_by(&Orders::customer_id)
                          .aggregate(count("orders"), sum("spent_cents", &Orders::total_cents),
                                     max("last_order_at", &Orders::created_at));
  app.add(view("customer_totals", Version{2})
              .from(table<Customers>("public.customers"))
              .left_join(totals, &Customers::id, with_totals)
              .into(cache_table{
                  .key = integer("id"),
                  .columns = {text("name"), text("email"), text("city"), integer("orders"),
                              integer("spent_cents"), text("last_order_at")}}));

  return app.main(argc, argv);
}
