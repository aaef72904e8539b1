#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "projections/projections.h"
#include "public.orders.pb.h"
#include "sinks/postgres_table.h"
#include "sinks/redis_keys.h"
#include "tests/projections/shop_store.h"

// Orders as bookings: each transaction moves cents between customers, so that all balances together
// are 0 wherever whole transactions are seen.

namespace millrace::projections::test {

/// What each customer has, kept in `sink` as well.
inline RelationalView balances(std::shared_ptr<const SinkKind> sink,
                               const std::string& name = "balances", Version version = {}) {
  using shop::Orders;
  return view(name, version)
      .from(projections::table<Orders>("public.orders"))
      .group_by(by("id", &Orders::customer_id))
      .aggregate(sum("cents", &Orders::total_cents), count("bookings"))
      .into(cache_table{.sink = std::move(sink)});
}

/// Random bookings, with what they add up to.
class Bookings {
 public:
  explicit Bookings(std::uint64_t seed) : random_(seed) {}

  std::vector<EncodedChange> transaction() {
    std::vector<EncodedChange> changes;
    const std::int64_t cents = 1 + static_cast<std::int64_t>(random_() % 100);
    book(changes, customer(), cents);
    book(changes, customer(), -cents);
    if (random_() % 4 == 0 && orders_.size() > 10) take_back(changes);
    return changes;
  }

  /// "7|-35|2", as rows_of() has them.
  std::vector<std::string> expected() const {
    std::map<std::int64_t, std::pair<std::int64_t, int>> sums;
    for (const auto& [id, order] : orders_) {
      sums[order.customer_id()].first += order.total_cents();
      ++sums[order.customer_id()].second;
    }
    std::vector<std::string> rows;
    for (const auto& [id, sum] : sums)
      rows.push_back(std::to_string(id) + "|" + std::to_string(sum.first) + "|" +
                     std::to_string(sum.second));
    return rows;
  }

 private:
  std::int64_t customer() { return 1 + static_cast<std::int64_t>(random_() % 30); }

  void book(std::vector<EncodedChange>& changes, std::int64_t customer, std::int64_t cents) {
    const std::int64_t id = ++last_;
    changes.push_back(inserted(orders_[id] = order(id, customer, cents)));
  }

  /// Both halves of one booking, which stand side by side.
  void take_back(std::vector<EncodedChange>& changes) {
    const std::int64_t half = orders_.begin()->first;
    for (const std::int64_t id : {half, half + 1}) {
      changes.push_back(deleted(orders_.at(id)));
      orders_.erase(id);
    }
  }

  std::mt19937_64 random_;
  std::map<std::int64_t, shop::Orders> orders_;
  std::int64_t last_ = 0;
};

}  // namespace millrace::projections::test
