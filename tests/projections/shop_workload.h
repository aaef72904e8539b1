#pragma once

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/projections/shop_store.h"

namespace millrace::projections::test {

/// Random transactions on the shop's tables, beside a model of what the tables hold then: what a
/// view must show.
class ShopWorkload {
 public:
  explicit ShopWorkload(std::uint32_t seed) : random_(seed) {}

  std::vector<EncodedChange> transaction() {
    std::vector<EncodedChange> changes;
    for (int count = 1 + below(6); count > 0; --count) add_change(changes);
    return changes;
  }

  std::vector<std::string> expected_search() const {
    std::vector<std::string> rows;
    for (const auto& [id, row] : products_)
      rows.push_back(std::to_string(id) + "|" + row.name() + "|" + row.description() + "|" +
                     row.category() + "|" + row.price());
    return rows;
  }
  std::vector<std::string> expected_totals() const {
    std::map<std::int64_t, std::pair<int, std::int64_t>> sums;
    for (const auto& [id, row] : orders_)
      ++sums[row.customer_id()].first, sums[row.customer_id()].second += row.total_cents();
    std::vector<std::string> rows;
    for (const auto& [id, row] : customers_)
      rows.push_back(std::to_string(id) + "|" + row.name() + "|" + std::to_string(sums[id].first) +
                     "|" + std::to_string(sums[id].second));
    return rows;
  }

 private:
  int below(int end) { return std::uniform_int_distribution<>(0, end - 1)(random_); }

  template <typename Rows>
  auto any(Rows& rows) {
    return std::next(rows.begin(), below(static_cast<int>(rows.size())));
  }

  void add_change(std::vector<EncodedChange>& changes) {
    switch (below(24)) {
      case 0: return remove_product(changes);
      case 1:
      case 2: return renumber_product(changes);
      case 3:
      case 4:
      case 5:
      case 6: return change_product(changes);
      case 7:
      case 8:
      case 9: return add_product(changes);
      case 10:
      case 11: return add_customer(changes);
      case 12: return remove_customer(changes);
      case 13:
      case 14: return change_customer(changes);
      case 15:
      case 16:
      case 17:
      case 18: return add_order(changes);
      case 19:
      case 20: return change_order(changes);
      case 21:
      case 22: return remove_order(changes);
      default: return truncate(changes);
    }
  }

  std::string words() { return "w" + std::to_string(below(50)) + " w" + std::to_string(below(50)); }

  void add_product(std::vector<EncodedChange>& changes) {
    const auto row = product(next_id_++, words(), words());
    products_[row.id()] = row;
    changes.push_back(inserted(row));
  }
  void change_product(std::vector<EncodedChange>& changes) {
    if (products_.empty()) return;
    auto& row = any(products_)->second;
    row.set_name(words());
    if (below(2) == 0) return changes.push_back(updated<shop::Products>(row, nullptr, {3}));
    row.set_description(words());
    changes.push_back(updated<shop::Products>(row));
  }
  void renumber_product(std::vector<EncodedChange>& changes) {
    if (products_.empty()) return;
    auto row = any(products_)->second;
    const std::int64_t old = row.id();
    changes.push_back(deleted(row));
    products_.erase(old);
    row.set_id(next_id_++);
    products_[row.id()] = row;
    changes.push_back(below(2) == 0 ? moved(row, old, {3}) : moved(row, old));
  }
  void remove_product(std::vector<EncodedChange>& changes) {
    if (products_.empty()) return;
    const auto at = any(products_);
    changes.push_back(deleted(at->second));
    products_.erase(at);
  }
  void add_customer(std::vector<EncodedChange>& changes) {
    const auto row = customer(next_id_++, words());
    customers_[row.id()] = row;
    changes.push_back(inserted(row));
  }
  void change_customer(std::vector<EncodedChange>& changes) {
    if (customers_.empty()) return;
    auto& row = any(customers_)->second;
    row.set_name(words());
    changes.push_back(updated<shop::Customers>(row));
  }
  /// As ON DELETE CASCADE does it: the customer first, then the orders.
  void remove_customer(std::vector<EncodedChange>& changes) {
    if (customers_.empty()) return;
    const auto at = any(customers_);
    changes.push_back(deleted(at->second));
    for (auto row = orders_.begin(); row != orders_.end();) {
      if (row->second.customer_id() != at->first) {
        ++row;
        continue;
      }
      changes.push_back(deleted(row->second, true));
      row = orders_.erase(row);
    }
    customers_.erase(at);
  }
  void add_order(std::vector<EncodedChange>& changes) {
    if (customers_.empty()) return;
    const auto row = order(next_id_++, any(customers_)->first, below(1000));
    orders_[row.id()] = row;
    changes.push_back(inserted(row));
  }
  void change_order(std::vector<EncodedChange>& changes) {
    if (orders_.empty()) return;
    auto& row = any(orders_)->second;
    const shop::Orders before = row;
    row.set_total_cents(below(1000));
    row.set_customer_id(any(customers_)->first);
    changes.push_back(updated(row, &before));
  }
  void remove_order(std::vector<EncodedChange>& changes) {
    if (orders_.empty()) return;
    const auto at = any(orders_);
    changes.push_back(deleted(at->second, true));
    orders_.erase(at);
  }
  void truncate(std::vector<EncodedChange>& changes) {
    if (below(12) != 0) return add_product(changes);
    if (below(2) == 0) {
      products_.clear();
      return changes.push_back(truncated("products"));
    }
    orders_.clear();
    changes.push_back(truncated("orders"));
    if (below(2) == 0) return;
    customers_.clear();
    changes.push_back(truncated("customers"));
  }

  std::mt19937 random_;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, shop::Products> products_;
  std::map<std::int64_t, shop::Customers> customers_;
  std::map<std::int64_t, shop::Orders> orders_;
};

}  // namespace millrace::projections::test
