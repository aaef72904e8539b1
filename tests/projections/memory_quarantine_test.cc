// Events that a view in memory can't take: the state must keep nothing of them.

#include <spdlog/spdlog.h>

#include <set>

#include "projections/engine/retry.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/wait.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/projections/tally.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using namespace std::chrono_literals;
using shop::Customers;
using Lines = std::vector<std::string>;

namespace {

const AuditNote kByTest{"the test", "it may pass now"};

/// A tally that dislikes what the test says before it folds; it fails half-way.
struct Picky {
  std::set<std::string> customers{};
  std::set<std::uint64_t> offsets{};
  MemoryViewOptions options{.snapshot_events = UINT64_MAX, .snapshot_interval = 24h};
  std::atomic<int> calls = 0;
  MemoryView<Tally> view =
      tally(options, [this](std::string_view category, std::string_view key, Offset offset) {
        ++calls;
        if ((category == "public.customers" && customers.contains(std::string(key))) ||
            offsets.contains(offset.value))
          throw std::runtime_error("I don't like " + std::string(key));
      });
};

Lines waiting_in(const ShopStore& store) {
  return query(store.views() / "tally.db",
               "SELECT \"offset\", key, reason FROM millrace_quarantine ORDER BY \"offset\"");
}

bool shows(const MemoryView<Tally>& view, Offset end) {
  return view.shown() && *view.shown() >= end;
}

}  // namespace

TEST_CASE("a view in memory keeps nothing of an event that it can't take, and goes on with others",
          "[projections][memory][quarantine]") {
  ShopStore store;
  Picky picky;
  store.commit({inserted(customer(1, "Ada"))});
  const auto first_by = GENERATE("build", "tail");
  INFO(first_by);
  picky.offsets = {2, 4};
  if (first_by == std::string("tail")) must(catch_up(store, picky.view));
  store.commit({inserted(customer(2, "Bob")), inserted(customer(3, "poison")),
                inserted(order(1, 1, 5)), inserted(customer(4, "more")),
                updated<Customers>(customer(3, "cured"))});
  store.commit({inserted(order(2, 2, 7))});
  must(catch_up(store, picky.view));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|1|5", "2|Bob|1|7"});
  CHECK(waiting_in(store) == Lines{"2|3|its function threw: I don't like 3",
                                   "4|4|its function threw: I don't like 4", "5|3|null"});
  CHECK(must(verify_view(picky.view, store.context())).different == 0);
  CHECK(must(status_of(picky.view, store.context())).quarantine.keys == 2);

  picky.offsets = {4};
  const auto report = must(retry_set_aside(picky.view, store.context(), {}, kByTest));
  CHECK(report.folded == 2);
  REQUIRE(report.failed.size() == 1);
  CHECK(must(picky.view.load(store.views() / "tally.db")).lines() ==
        Lines{"1|Ada|1|5", "2|Bob|1|7", "3|cured|0|0"});
  must(skip_set_aside(picky.view, store.context(), {}, kByTest));
  must(catch_up(store, picky.view));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|1|5", "2|Bob|1|7", "3|cured|0|0"});
  CHECK(waiting_in(store).empty());
  CHECK(must(verify_view(picky.view, store.context())).different == 0);
  must(build_generation(picky.view, store.context()));
  CHECK(must(picky.view.load(store.views() / "tally.db")).customers.size() == 3);
}

TEST_CASE("a change of key that fails leaves a view in memory as a whole",
          "[projections][memory][quarantine]") {
  ShopStore store(true, GENERATE(1 << 10, 1 << 20));
  Picky picky;
  store.commit({inserted(customer(1, "Ada"))});
  must(catch_up(store, picky.view));
  picky.customers = {"2"};
  store.commit({inserted(customer(7, "Bob")), deleted(customer(1, "")),
                moved(customer(2, "Ada"), 1), updated<Customers>(customer(2, "Adah"))});
  store.commit({inserted(customer(1, "another"))});
  must(catch_up(store, picky.view));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|0|0", "7|Bob|0|0"});
  CHECK(waiting_in(store) ==
        Lines{"2|1|null", "3|2|its function threw: I don't like 2", "4|2|null", "5|1|null"});
  CHECK(must(retry_set_aside(picky.view, store.context(), {}, kByTest)).folded == 0);
  picky.customers.clear();
  CHECK(must(retry_set_aside(picky.view, store.context(), {}, kByTest)).folded == 4);
  must(catch_up(store, picky.view));
  CHECK(lines_of(picky.view) == Lines{"1|another|0|0", "2|Adah|0|0", "7|Bob|0|0"});
  CHECK(must(verify_view(picky.view, store.context())).different == 0);
}

TEST_CASE("a worker in memory takes over at once what is retried beside it",
          "[projections][memory][quarantine]") {
  ShopStore store;
  Picky picky{.customers = {"3"}};
  store.commit({inserted(customer(1, "Ada"))});
  Running running(store, picky.view);
  REQUIRE(comes_true([&] { return shows(picky.view, store.end()); }));
  store.commit({inserted(customer(2, "Bob"))});
  store.commit({inserted(customer(3, "poison"))});
  store.commit({inserted(order(1, 1, 5))});
  REQUIRE(comes_true([&] { return shows(picky.view, store.end()); }));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|1|5", "2|Bob|0|0"});
  // Set aside, it is in the file with the next commit, and with it the state.
  REQUIRE(must(wait_until_folded({store.directory(), store.views(), "tally"}, {}, 30s)));
  CHECK(waiting_in(store).size() == 1);
  CHECK(checkpoint_of(store, "tally").offset.value >= 3);

  Picky other;  // as `quarantine retry` of another process
  CHECK(must(retry_set_aside(other.view, store.context(), {}, kByTest)).folded == 1);
  picky.customers.clear();
  store.commit({inserted(order(2, 3, 7))});
  REQUIRE(comes_true([&] { return shows(picky.view, store.end()); }));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|1|5", "2|Bob|0|0", "3|poison|1|7"});
  must(running.stop());
  CHECK(must(verify_view(picky.view, store.context())).different == 0);
}

TEST_CASE("events that only wait cost a view in memory no snapshot each",
          "[projections][memory][quarantine]") {
  ShopStore store;
  Picky picky{.customers = {"3"}};
  store.commit({inserted(customer(1, "Ada")), inserted(customer(3, "poison"))});
  Running running(store, picky.view);
  REQUIRE(comes_true([&] { return shows(picky.view, store.end()); }));
  for (int i = 0; i < 10; ++i) {
    store.commit({updated<Customers>(customer(3, "waits")), inserted(order(i + 1, 1, 1))});
    REQUIRE(comes_true([&] { return shows(picky.view, store.end()); }));
  }
  CHECK(lines_of(picky.view) == Lines{"1|Ada|10|10"});
  REQUIRE(must(wait_until_folded({store.directory(), store.views(), "tally"}, {}, 30s)));
  CHECK(checkpoint_of(store, "tally").offset.value == 2);
  CHECK(waiting_in(store).size() == 1);
  must(running.stop());
  CHECK(waiting_in(store).size() == 11);
  picky.customers.clear();
  CHECK(must(retry_set_aside(picky.view, store.context(), {}, kByTest)).folded == 11);
  must(catch_up(store, picky.view));
  CHECK(lines_of(picky.view) == Lines{"1|Ada|10|10", "3|waits|0|0"});
  CHECK(must(verify_view(picky.view, store.context())).different == 0);
}

TEST_CASE("poison in any place leaves a view in memory equal to one without it",
          "[projections][memory][quarantine]") {
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::off);
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    INFO("seed " << seed);
    ShopStore store(true, seed % 2 == 0 ? 1 << 10 : 1 << 20);
    ShopWorkload workload(seed);
    std::mt19937 random(seed);
    Picky picky;
    const auto below = [&](std::uint32_t end) { return random() % end; };
    MemoryView<Tally> view = tally({.snapshot_events = 1 + below(40), .snapshot_interval = 24h},
                                   [&](std::string_view, std::string_view key, Offset offset) {
                                     if (picky.offsets.contains(offset.value))
                                       throw std::runtime_error("I don't like " + std::string(key));
                                   });
    view.set_aside_at_most(1000);
    for (int round = 0; round < 6; ++round) {
      for (int i = 0; i < 10; ++i) {
        if (below(4) == 0) picky.offsets.insert(store.end().value + below(3));
        store.commit(workload.transaction());
      }
      must(catch_up(store, view, {.events_per_commit = 1 + below(30), .commit_interval = 10s}));
      CHECK(must(verify_view(view, store.context())).different == 0);
    }
    picky.offsets.clear();
    must(build_generation(view, store.context()));
    must(catch_up(store, view));
    CHECK(lines_of(view) == workload.expected_totals());
  }
  spdlog::set_level(level);
}
