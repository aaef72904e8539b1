#include <map>
#include <random>

#include "projections/testing.h"
#include "tests/projections/shop_store.h"

using namespace millrace;
using namespace millrace::projections;
using projections::test::customer;
using projections::test::order;
using projections::testing::appended;
using projections::testing::deleted;
using projections::testing::erased;
using projections::testing::first_difference;
using projections::testing::inserted;
using projections::testing::Transaction;
using projections::testing::truncated;
using projections::testing::updated;
using projections::testing::ViewTester;
using shop::Customers;
using shop::Orders;

namespace {

using Rows = std::vector<std::string>;

const auto orders = table<Orders>("public.orders");
const auto customers = table<Customers>("public.customers");

/// The amounts of a customer's orders in the order of time.
auto path() {
  return fold(
      "path", std::string(),
      [](std::string so_far, const Orders& o) {
        return so_far + (so_far.empty() ? "" : ">") + std::to_string(o.total_cents());
      },
      in_order_of(&Orders::created_at));
}

RelationalView paths() {
  return view("paths", Version{1})
      .from(orders)
      .group_by(&Orders::customer_id)
      .aggregate(path(), count("n"))
      .into(cache_table{});
}

/// A sum of squares, which is given back.
RelationalView squares() {
  const auto square = [](const Orders& o) { return o.total_cents() * o.total_cents(); };
  return view("squares", Version{1})
      .from(orders)
      .group_by(&Orders::customer_id)
      .aggregate(
          fold(
              "squares", std::int64_t{0},
              [square](std::int64_t sum, const Orders& o) { return sum + square(o); },
              take_back([square](std::int64_t sum, const Orders& o) { return sum - square(o); })),
          fold(
              "mean", Record{{"sum", 0}, {"n", 0}},
              [](Record state, const Orders& o) {
                return Record{{"sum", state["sum"].integer() + o.total_cents()},
                              {"n", state["n"].integer() + 1}};
              },
              shown_as([](const Record& state) {
                return state["sum"].integer() / state["n"].integer();
              }),
              take_back([](Record state, const Orders& o) {
                return Record{{"sum", state["sum"].integer() - o.total_cents()},
                              {"n", state["n"].integer() - 1}};
              })))
      .into(cache_table{});
}

/// Folds of a join, and a fold of those.
RelationalView of_a_join() {
  const auto lines = orders.left_join(
      customers, &Orders::customer_id, [](const TableRow<Orders>& o, const TableRow<Customers>* c) {
        return Record{{"city", c ? Datum((*c)[&Customers::city]) : Datum("none")},
                      {"cents", o->total_cents()}};
      });
  const auto by_city =
      lines.group_by(by("city", [](const Record& r) { return std::string(r["city"].text()); }))
          .aggregate(fold("list", std::string(),
                          [](std::string list, const Record& r) {
                            return list + r["cents"].key_text() + ";";
                          }),
                     count("n"));
  return view("cities", Version{1})
      .from(by_city)
      .group_by(by("n", [](const Record& r) { return r["n"].integer(); }))
      .aggregate(fold("lists", std::string(),
                      [](std::string all, const Record& r) {
                        return all + std::string(r["city"].text()) + "=" +
                               std::string(r["list"].text()) + " ";
                      }),
                 projections::max("greatest",
                                  [](const Record& r) { return std::string(r["list"].text()); }))
      .into(cache_table{});
}

/// Pairs of orders of one customer, over which the same fold goes.
RelationalView of_pairs() {
  return view("pairs", Version{1})
      .from(orders.left_join(orders, on(&Orders::customer_id, &Orders::total_cents),
                             [](const TableRow<Orders>& a, const TableRow<Orders>* b) {
                               return Record{{"customer", a->customer_id()},
                                             {"text", std::to_string(a->id()) + "-" +
                                                          (b ? std::to_string((*b)->id()) : "")}};
                             }))
      .group_by(by("customer", [](const Record& r) { return r["customer"].integer(); }))
      .aggregate(fold("all", std::string(),
                      [](std::string all, const Record& r) {
                        return all + std::string(r["text"].text()) + " ";
                      }))
      .into(cache_table{});
}

struct Model {
  std::map<int, Orders> orders;
  std::map<int, Customers> customers;

  Rows paths() const {
    std::map<std::int64_t, std::vector<const Orders*>> groups;
    for (const auto& [id, row] : orders) groups[row.customer_id()].push_back(&row);
    Rows rows;
    for (auto& [group, of_group] : groups) {
      std::sort(of_group.begin(), of_group.end(), [](const Orders* a, const Orders* b) {
        return std::pair(a->created_at(), std::to_string(a->id())) <
               std::pair(b->created_at(), std::to_string(b->id()));
      });
      std::string text;
      for (const Orders* row : of_group)
        text += (text.empty() ? "" : ">") + std::to_string(row->total_cents());
      rows.push_back(std::to_string(group) + "|" + text + "|" + std::to_string(of_group.size()));
    }
    return rows;
  }
  Rows squares() const {
    std::map<std::int64_t, std::array<std::int64_t, 3>> groups;
    for (const auto& [id, row] : orders) {
      auto& group = groups[row.customer_id()];
      group[0] += row.total_cents() * row.total_cents();
      group[1] += row.total_cents();
      ++group[2];
    }
    Rows rows;
    for (const auto& [group, sums] : groups)
      rows.push_back(std::to_string(group) + "|" + std::to_string(sums[0]) + "|" +
                     std::to_string(sums[1] / sums[2]));
    return rows;
  }
  Rows cities() const {
    std::map<std::string, std::pair<std::string, int>> cities;
    for (const auto& [key, row] : by_text(orders)) {
      const auto of = customers.find(static_cast<int>(row->customer_id()));
      auto& city = cities[of == customers.end() ? "none" : of->second.city()];
      city.first += std::to_string(row->total_cents()) + ";";
      ++city.second;
    }
    std::map<int, std::pair<std::string, std::string>> counts;
    for (const auto& [city, list] : cities) {
      auto& count = counts[list.second];
      count.first += city + "=" + list.first + " ";
      count.second = std::max(count.second, list.first);
    }
    Rows rows;
    for (const auto& [n, texts] : counts)
      rows.push_back(std::to_string(n) + "|" + texts.first + "|" + texts.second);
    return rows;
  }
  Rows pairs() const {
    std::map<std::int64_t, std::string> groups;
    for (const auto& [key, left] : by_text(orders)) {
      std::string& text = groups[left->customer_id()];
      bool any = false;
      for (const auto& [other_key, right] : by_text(orders)) {
        if (left->customer_id() != right->total_cents()) continue;
        any = true;
        text += key + "-" + other_key + " ";
      }
      if (!any) text += key + "- ";
    }
    Rows rows;
    for (const auto& [group, text] : groups) rows.push_back(std::to_string(group) + "|" + text);
    return rows;
  }

 private:
  /// As keys sort.
  static std::map<std::string, const Orders*> by_text(const std::map<int, Orders>& rows) {
    std::map<std::string, const Orders*> sorted;
    for (const auto& [id, row] : rows) sorted[std::to_string(id)] = &row;
    return sorted;
  }
};

Transaction random_transaction(std::mt19937_64& random, Model& model) {
  const auto below = [&](int end) {
    return static_cast<int>(random() % static_cast<unsigned>(end));
  };
  Transaction changes;
  for (int n = 1 + below(6); n > 0; --n) {
    const int id = 1 + below(12), person = below(4);
    const std::string key = std::to_string(id);
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        if (model.orders.erase(id)) changes.push_back(deleted("public.orders", key));
        break;
      case 3:
      case 4: {
        auto row = customer(person, "x");
        row.set_city("city" + std::to_string(below(2)));
        changes.push_back(inserted("public.customers", std::to_string(person), row));
        model.customers[person] = row;
        break;
      }
      case 5:
        if (model.customers.erase(person))
          changes.push_back(deleted("public.customers", std::to_string(person)));
        break;
      case 6:
        if (below(10) != 0) break;
        changes.push_back(truncated("public.orders"));
        model.orders.clear();
        break;
      default: {
        const auto row = order(id, below(4), below(6), below(3));
        changes.push_back(inserted("public.orders", key, row));
        model.orders[id] = row;
      }
    }
  }
  return changes;
}

}  // namespace

TEST_CASE("a fold of one's own goes over a group's rows in the order it names",
          "[projections][relational][own_fold]") {
  const auto of = paths();
  ViewTester tester(of);
  tester.given({inserted("public.orders", "1", order(1, 7, 10, 300)),
                inserted("public.orders", "2", order(2, 7, 20, 100)),
                inserted("public.orders", "3", order(3, 8, 30, 100))});
  CHECK(tester.rows() == Rows{"7|20>10|2", "8|30|1"});
  tester.given({updated("public.orders", "2", order(2, 7, 21, 400)),
                updated("public.orders", "3", order(3, 7, 30, 350))});
  CHECK(tester.rows() == Rows{"7|10>30>21|3"});
  tester.given({deleted("public.orders", "3")});
  CHECK(tester.rows() == Rows{"7|10>21|2"});
}

TEST_CASE("a fold of one's own that takes back needs the state alone",
          "[projections][relational][own_fold]") {
  const auto of = squares();
  ViewTester tester(of);
  tester.given({inserted("public.orders", "1", order(1, 7, 10)),
                inserted("public.orders", "2", order(2, 7, 20))});
  CHECK(tester.rows() == Rows{"7|500|15"});
  tester.restart();
  tester.given({updated("public.orders", "2", order(2, 8, 3))});
  CHECK(tester.rows() == Rows{"7|100|10", "8|9|3"});
}

TEST_CASE("events of a stream are folded in their order", "[projections][events][own_fold]") {
  const auto last = view("last", Version{1})
                        .from(events("cart"))
                        .group_by(by("cart", &Event<>::key))
                        .aggregate(fold("types", std::string(),
                                        [](std::string types, const Event<>& event) {
                                          return types + std::string(event.type()) + " ";
                                        }))
                        .into(cache_table{.key = text("cart")});
  std::vector<Transaction> all;
  for (const char* type : {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K"})
    all.push_back({appended("cart", "a", type, ""), appended("cart", "b", type, "")});
  all.push_back({erased("cart", "b")});
  ViewTester tester(last);
  for (const Transaction& transaction : all) tester.given(transaction);
  CHECK(tester.rows() == Rows{"a|A B C D E F G H I J K "});
  CHECK(first_difference(last, all) == std::nullopt);
}

TEST_CASE("folds of one's own give what a model gives, however the changes come",
          "[projections][relational][own_fold][random]") {
  const char* given = std::getenv("MILLRACE_SEEDS");
  const std::uint64_t seeds = given ? std::strtoull(given, nullptr, 10) : 20;
  const RelationalView of_orders = paths(), back = squares(), joined = of_a_join(),
                       paired = of_pairs();
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    INFO("seed " << seed);
    std::mt19937_64 random(seed);
    Model model;
    std::vector<Transaction> all;
    ViewTester path_tester(of_orders), back_tester(back), join_tester(joined), pair_tester(paired);
    for (int i = 0; i < 25; ++i) {
      all.push_back(random_transaction(random, model));
      REQUIRE(path_tester.given(all.back()).rows() == model.paths());
      REQUIRE(back_tester.given(all.back()).rows() == model.squares());
      REQUIRE(join_tester.given(all.back()).rows() == model.cities());
      REQUIRE(pair_tester.given(all.back()).rows() == model.pairs());
    }
    for (const View* view : {&of_orders, &back, &joined, &paired}) {
      const auto difference = first_difference(*view, all, seed);
      INFO(view->name() << ": " << difference.value_or(""));
      REQUIRE_FALSE(difference);
    }
  }
}
