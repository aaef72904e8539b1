// What docs/projections.md shows of views in memory: see examples_test.cc.

#include <map>
#include <set>
#include <sstream>

#include "tests/projections/shop_store.h"

using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Orders;

namespace {

struct Ranking {
  std::map<std::int64_t, std::int64_t> spent;            // cents by customer
  std::set<std::pair<std::int64_t, std::int64_t>> best;  // the other way round

  void add(std::int64_t customer, std::int64_t cents) {
    std::int64_t& sum = spent[customer];
    best.erase({sum, customer});
    best.emplace(sum += cents, customer);
  }

  std::string encode() const {
    std::string bytes;
    for (const auto& [customer, cents] : spent)
      bytes += std::to_string(customer) + " " + std::to_string(cents) + "\n";
    return bytes;
  }
  static millrace::Result<Ranking> decode(std::string_view bytes) {
    Ranking ranking;
    std::istringstream in{std::string(bytes)};
    for (std::int64_t customer = 0, cents = 0; in >> customer >> cents;)
      ranking.add(customer, cents);
    return ranking;
  }
};

int run(App& app, const ShopStore& store) {
  std::vector<std::string> words{
      "docs",    "run",         "--until-caught-up", "--store", store.directory(),
      "--views", store.views(), "--log-level",       "off"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  return app.main(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

TEST_CASE("projections.md: a ranking in memory", "[docs]") {
  App app("docs");
  const auto ranking = memory_view<Ranking>("ranking", Version{1})
                           .on<Orders>("public.orders", kNeedsOldRows,
                                       [](const Change<Orders>& change, Ranking& state) {
                                         if (change.is_truncate()) state = {};
                                         if (const Orders* old = change.before())
                                           state.add(old->customer_id(), -old->total_cents());
                                         if (const Orders* now = change.after())
                                           state.add(now->customer_id(), now->total_cents());
                                       });
  app.add(ranking);
  const auto best_now = [&] {
    const auto best =
        ranking.read([](const Ranking& state) { return state.best.rbegin()->second; });
    return best;
  };
  CHECK(best_now().error().code() == millrace::ErrorCode::kUnavailable);
  ShopStore store;
  const Orders first = order(1, 7, 100);
  store.commit({inserted(first), inserted(order(2, 8, 150)), inserted(order(3, 7, 60))});
  REQUIRE(run(app, store) == 0);
  CHECK(best_now() == 7);
  store.commit({deleted(first, true)});
  REQUIRE(run(app, store) == 0);
  CHECK(best_now() == 8);
}
