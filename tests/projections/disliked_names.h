#pragma once

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "projections/engine/retry.h"
#include "projections/engine/verify.h"
#include "projections/projections.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"

/// Declared views with functions that throw at some names, and what is seen of what they set aside.
namespace millrace::projections::test {

using shop::Customers;
using shop::Orders;
using shop::Products;

using Rows = std::vector<std::string>;

inline const AuditNote kByTest{"the test", "it may pass now"};

inline const auto products = projections::table<Products>("public.products");
inline const auto customers = projections::table<Customers>("public.customers");
inline const auto orders = projections::table<Orders>("public.orders");

/// Names that functions of these views throw at, also on a worker's thread.
inline std::mutex disliked_mutex;
inline std::set<std::string> disliked;
inline std::atomic<std::uint64_t> calls = 0;

inline void dislike(std::set<std::string> names) {
  const std::lock_guard lock(disliked_mutex);
  disliked = std::move(names);
}

inline const std::string& liked(const std::string& name) {
  ++calls;
  const std::lock_guard lock(disliked_mutex);
  if (disliked.contains(name)) throw std::runtime_error("I don't like " + name);
  return name;
}

class Dislike {
 public:
  explicit Dislike(std::set<std::string> names = {"poison"}) { dislike(std::move(names)); }
  ~Dislike() { dislike({}); }
};

inline ViewName named(const std::string& name = "picky") {
  return projections::view(name, Version{1});
}

inline RelationalView names() {
  return named().from(products).into(
      cache_table{.key = integer("id"), .columns = {text("name"), text("description")}},
      [](const Products& p) {
        return Record{{"name", liked(p.name())}, {"description", p.description()}};
      });
}

/// Products by category, each counted where its name is liked.
inline RelationalView categories() {
  return named()
      .from(products)
      .where([](const Products& p) { return !liked(p.name()).empty(); })
      .group_by(&Products::category)
      .aggregate(count("n"), projections::max("last", &Products::name))
      .into(cache_table{.key = text("id")});
}

inline shop::Orders order_of(std::int64_t id, std::int64_t customer_id, const std::string& status) {
  auto row = order(id, customer_id, 100);
  row.set_status(status);
  return row;
}

inline Rows shown(const ShopStore& store) { return rows_of(store, "picky"); }

inline Rows waiting_in(const ShopStore& store) {
  return query(store.views() / "picky.db",
               "SELECT \"offset\", key, reason NOT NULL FROM millrace_quarantine ORDER BY "
               "\"offset\"");
}

inline Rows audit_of(const ShopStore& store) {
  return query(store.views() / "picky.db",
               "SELECT action, \"offset\", key FROM millrace_quarantine_audit ORDER BY id");
}

inline std::uint64_t differences(ShopStore& store, const View& view) {
  return must(verify_view(view, store.context())).different;
}

inline RetryReport retried(ShopStore& store, const View& view) {
  return must(retry_set_aside(view, store.context(), {}, kByTest));
}

inline std::string failure_of(ShopStore& store, const View& view) {
  const auto run = catch_up(store, view);
  return run ? std::string() : run.error().to_string();
}

}  // namespace millrace::projections::test
