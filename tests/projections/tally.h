#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "projections/memory_view.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"

namespace millrace::projections::test {

/// What customers have ordered: the state of a view in memory that says the same as
/// customer_totals().
struct Tally {
  struct Customer {
    std::string name;
    std::int64_t orders = 0, cents = 0;
  };
  std::map<std::int64_t, Customer> customers;

  /// "id|name|orders|cents", a line each.
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    for (const auto& [id, customer] : customers)
      lines.push_back(std::to_string(id) + "|" + customer.name + "|" +
                      std::to_string(customer.orders) + "|" + std::to_string(customer.cents));
    return lines;
  }
  std::string encode() const {
    std::string bytes;
    for (const std::string& line : lines()) bytes += line + "\n";
    return bytes;
  }
  static Result<Tally> decode(std::string_view bytes) {
    Tally tally;
    while (!bytes.empty()) {
      std::vector<std::string_view> parts;
      for (const char end : {'|', '|', '|', '\n'}) {
        const std::size_t at = bytes.find(end);
        if (at == bytes.npos) return Error(ErrorCode::kCorruption, "a line has no end");
        parts.push_back(bytes.substr(0, at));
        bytes.remove_prefix(at + 1);
      }
      tally.customers[number(parts[0])] = {std::string(parts[1]), number(parts[2]),
                                           number(parts[3])};
    }
    return tally;
  }
  std::map<std::string, std::string> rows() const {
    std::map<std::string, std::string> rows;
    for (const auto& [id, customer] : customers)
      rows[std::to_string(id)] = customer.name + ", " + std::to_string(customer.orders) +
                                 " orders, " + std::to_string(customer.cents) + " cents";
    return rows;
  }

 private:
  static std::int64_t number(std::string_view text) {
    std::int64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
  }
};

/// Is told of each change of a customer or an order before the tally takes it; what it throws comes
/// when half of that is done.
using OnChange = std::function<void(std::string_view category, std::string_view key, Offset)>;

inline MemoryView<Tally> tally(MemoryViewOptions options = {}, OnChange on_change = {},
                               Version version = {}) {
  using shop::Customers;
  using shop::Orders;
  if (!on_change) on_change = [](auto&&...) {};
  return memory_view<Tally>("tally", version, options)
      .on<Customers>("public.customers",
                     [on_change](const Change<Customers>& change, Tally& tally) {
                       if (change.is_truncate()) return tally.customers.clear();
                       const std::int64_t id = std::stoll(std::string(change.key()));
                       Tally::Customer& customer = tally.customers[id];
                       if (change.is_delete())
                         tally.customers.erase(id);
                       else
                         customer.name = "half";
                       on_change("public.customers", change.key(), change.offset());
                       if (!change.is_delete()) customer.name = change.after()->name();
                     })
      .on<Orders>("public.orders", kNeedsOldRows,
                  [on_change](const Change<Orders>& change, Tally& tally) {
                    if (change.is_truncate()) {
                      for (auto& [id, customer] : tally.customers)
                        customer.orders = customer.cents = 0;
                      return;
                    }
                    const auto add = [&](const Orders* order, int sign) {
                      if (order == nullptr) return;
                      if (sign < 0 && !tally.customers.contains(order->customer_id())) return;
                      Tally::Customer& customer = tally.customers[order->customer_id()];
                      customer.orders += sign;
                      customer.cents += sign * order->total_cents();
                    };
                    add(change.before(), -1);
                    on_change("public.orders", change.key(), change.offset());
                    add(change.after(), 1);
                  });
}

/// What readers in this process see; nothing where there is nothing.
inline std::vector<std::string> lines_of(const MemoryView<Tally>& view) {
  const auto lines = view.read([](const Tally& tally) { return tally.lines(); });
  return lines ? *lines : std::vector<std::string>{"(" + lines.error().message() + ")"};
}

}  // namespace millrace::projections::test
