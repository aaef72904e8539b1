// The property checks of projections/testing.h: each kind of broken function is caught by the one
// that is there for it, and right ones pass all of them.

#include <map>
#include <memory>
#include <set>

#include "projections/projections.h"
#include "projections/testing.h"
#include "public.orders.pb.h"
#include "tests/projections/tally.h"
#include "tests/support/catch.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::testing;
using shop::Customers;
using shop::Orders;

namespace {

Orders an_order(std::int64_t id, std::int64_t customer_id, std::int64_t cents) {
  Orders row;
  row.set_id(id);
  row.set_customer_id(customer_id);
  row.set_total_cents(cents);
  return row;
}

/// Orders come, change, and go.
std::vector<Transaction> history() {
  std::vector<Transaction> transactions;
  for (int id = 1; id <= 12; ++id) {
    const Orders was = an_order(id, id % 3, 10 * id), is = an_order(id, (id + 1) % 3, 7 * id);
    const std::string key = std::to_string(id);
    transactions.push_back({inserted("public.orders", key, was)});
    transactions.push_back({updated("public.orders", key, is, &was)});
    if (id % 4 == 0) transactions.back().push_back(deleted("public.orders", key, &is));
  }
  return transactions;
}

/// A table of counts by customer, which `count` maintains.
template <typename Count>
CacheTable counts(Count count) {
  return CacheTable("counts", Version{1}, {.key = integer("id"), .columns = {counter("n")}})
      .on<Orders>("public.orders", std::move(count));
}

std::string difference_of(const View& view) {
  return first_difference(view, history()).value_or("");
}

}  // namespace

TEST_CASE("functions that depend on their arguments alone pass every check",
          "[projections][testing]") {
  const auto copy =
      CacheTable("copy", Version{1}, {.key = integer("id"), .columns = {integer("cents")}})
          .on<Orders>("public.orders", [](const Change<Orders>& change, CacheTable::Writer& rows) {
            if (change.is_delete()) return rows.erase(change.key());
            rows.put(change.key(), {{"cents", change[&Orders::total_cents]}});
          });
  const auto declared = view("declared", Version{1})
                            .from(table<Orders>("public.orders"))
                            .group_by(&Orders::customer_id)
                            .aggregate(count("n"), sum("cents", &Orders::total_cents))
                            .into(cache_table{});
  for (const View* view : std::initializer_list<const View*>{&copy, &declared})
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      CHECK(first_difference(*view, history(), seed) == std::nullopt);
      CHECK(first_difference_when_read_again(*view, history(), seed) == std::nullopt);
    }
}

TEST_CASE("a function that remembers what it has seen differs in a rebuild",
          "[projections][testing]") {
  const auto seen = std::make_shared<std::set<std::string>>();
  const auto view = counts([seen](const Change<Orders>& change, CacheTable::Writer& counts) {
    if (seen->insert(std::string(change.key())).second)
      counts.add(change.row().customer_id(), {{"n", 1}});
  });
  CHECK(difference_of(view).starts_with("all at once: no row where"));
}

TEST_CASE("a function that counts beside the view differs after a crash",
          "[projections][testing]") {
  const auto in_memory = std::make_shared<std::map<std::int64_t, std::int64_t>>();
  const auto view = counts([in_memory](const Change<Orders>& change, CacheTable::Writer& counts) {
    const std::int64_t customer = change.row().customer_id();
    if (!counts.find(customer)) (*in_memory)[customer] = 0;  // as at a start
    counts.put(customer, {{"n", ++(*in_memory)[customer]}});
  });
  CHECK(difference_of(view).starts_with("with a crash after each change: "));
}

TEST_CASE("a state that is not written down completely differs after a crash",
          "[projections][testing]") {
  struct Forgetful : test::Tally {
    std::int64_t changes = 0;
    std::map<std::string, std::string> rows() const {
      return {{"changes", std::to_string(changes)}};
    }
    std::string encode() const { return std::to_string(changes / 2 * 2); }
    static Result<Forgetful> decode(std::string_view bytes) {
      Forgetful state;
      state.changes = std::stoll(std::string(bytes));
      return state;
    }
  };
  const auto view =
      memory_view<Forgetful>("forgetful", Version{1})
          .on<Orders>("public.orders", [](const auto&, Forgetful& state) { ++state.changes; });
  CHECK(difference_of(view).starts_with("with a crash after each change: "));
}

TEST_CASE("a function that counts rows that it knows differs when they are read again",
          "[projections][testing]") {
  const auto view =
      CacheTable("counts", Version{1}, {.key = integer("id"), .columns = {counter("n")}})
          .on<Orders>("public.orders", kNeedsOldRows,
                      [](const Change<Orders>& change, CacheTable::Writer& counts) {
                        if (const Orders* old = change.before())
                          counts.subtract(old->customer_id(), {{"n", 1}});
                        if (const Orders* now = change.after())
                          counts.add(now->customer_id(), {{"n", 1}});
                      });
  CHECK(first_difference(view, history()) == std::nullopt);
  const auto difference = first_difference_when_read_again(view, history());
  REQUIRE(difference);
  CHECK(difference->starts_with("with rows read again (seed 1): "));
}

TEST_CASE("rows of which a part was not sent, or that are gone, are not read again",
          "[projections][testing]") {
  // It would be told by a row of its own.
  const auto view =
      CacheTable("read", Version{1}, {.key = text("id"), .columns = {counter("n")}})
          .on<Orders>("public.orders", [](const Change<Orders>& change, CacheTable::Writer& read) {
            if (change.op() == Op::kRead) read.add(change.key(), {{"n", 1}});
          });
  TestChange partial = updated("public.orders", "1", an_order(1, 1, 1));
  partial.unchanged = {3};
  const std::vector<Transaction> transactions{{inserted("public.orders", "1", an_order(1, 1, 1)),
                                               inserted("public.orders", "2", an_order(2, 1, 1)),
                                               inserted("public.orders", "3", an_order(3, 1, 1)),
                                               partial, deleted("public.orders", "2")}};
  const auto difference = first_difference_when_read_again(view, transactions);
  REQUIRE(difference);
  CHECK(difference->find("'3|") != std::string::npos);
  CHECK(first_difference_when_read_again(view, {{inserted("public.orders", "1", an_order(1, 1, 1)),
                                                 truncated("public.orders")}}) == std::nullopt);
}
