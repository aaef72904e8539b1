// The shop: two views of a PostgreSQL database, kept up to date from the event store that `millrace
// capture run` fills.
//
//   product_search    a full-text index of the products
//   customer_totals   one row per customer, with what the orders add up to
//
// Each view is a function of changes. It gets every change of its tables in commit order, from the
// first one on, and writes to the view; millrace keeps the place, shows whole transactions only,
// and can compute the view again at any time. README.md beside this file walks through it.

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

// Customers and orders meet in one row: each writes its own columns of it.
void copy_customer(const Change<Customers>& change, CacheTable::Writer& totals) {
  if (change.is_truncate()) return totals.clear();
  if (change.is_delete()) return totals.erase(change.key());
  totals.put(change.key(), {{"name", change[&Customers::name]},
                            {"email", change[&Customers::email]},
                            {"city", change[&Customers::city]}});
}

// An order is taken back as it was, then counted as it is: that is right for inserts, updates and
// deletes alike. A maximum can't be taken back, so last_order_at is the time of the newest order
// that there ever was.
void count_order(const Change<Orders>& change, CacheTable::Writer& totals) {
  if (change.is_truncate())
    return totals.update_all({{"orders", 0}, {"spent_cents", 0}, {"last_order_at", nullptr}});
  if (const Orders* old = change.before())
    totals.subtract(old->customer_id(), {{"orders", 1}, {"spent_cents", old->total_cents()}});
  if (const Orders* order = change.after()) {
    totals.add(order->customer_id(), {{"orders", 1}, {"spent_cents", order->total_cents()}});
    totals.raise(order->customer_id(),
                 {{"last_order_at", change.map(&Orders::created_at, iso_timestamptz)}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  App app("shop");

  app.add(
      SearchIndex(
          "product_search", Version{1},
          {.key = integer("id"), .text = {"name", "description"}, .stored = {"category", "price"}})
          .on<Products>("public.products", index_product));

  app.add(CacheTable("customer_totals", Version{1},
                     {.key = integer("id"),
                      .columns = {text("name"), text("email"), text("city"), counter("orders"),
                                  counter("spent_cents"), text("last_order_at")}})
              .on<Customers>("public.customers", copy_customer)
              .on<Orders>("public.orders", kNeedsOldRows, count_order));

  return app.main(argc, argv);
}
