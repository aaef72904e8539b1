#include "projections/engine/build.h"
#include "tests/sinks/sink_scene.h"
#include "tests/sinks/stepping_sink.h"
#include "tests/support/killed_child.h"

// Views with sinks whose program is killed at each step, of the sink's transactions and of
// rebuilds.

namespace millrace::projections::test {
namespace {

using millrace::test::is_killed_at;
using Kind = std::shared_ptr<const SinkKind>;

/// Balances under other columns.
RelationalView newest(Kind kind) {
  using shop::Orders;
  return view("balances", Version{2})
      .from(projections::table<Orders>("public.orders"))
      .group_by(by("id", &Orders::customer_id))
      .aggregate(count("bookings"), max("newest", &Orders::id))
      .into(cache_table{.columns = {counter("bookings"), integer("newest")},
                        .sink = std::move(kind)});
}

/// A store that is open while something is written to it only: no other thread may run when this
/// process is copied.
struct Scene {
  ShopStore store;
  Bookings bookings{31};

  Scene() { store.close(); }
  void book() {
    store.open();
    for (int i = 0; i < 3; ++i) store.commit(bookings.transaction());
    store.close();
  }
};

/// What befalls a view before its worker runs again.
struct Change {
  const char* name;
  RelationalView (*view)(Kind);  ///< That the program has from then on.
  std::function<void(const Context&, const View&)> make;
};

RelationalView balances_of(Kind kind) { return balances(std::move(kind)); }

std::vector<Change> changes() {
  const auto rebuild = [](const Context& context, const View& view) {
    must(build_generation(view, context));
  };
  return {{"more transactions", balances_of, [](const Context&, const View&) {}},
          {"a rebuild", balances_of, rebuild},
          {"a rollback", balances_of,
           [](const Context& context, const View& view) {
             must(build_generation(view, context));
             must(roll_back(view, context));
           }},
          {"other columns", newest, rebuild}};
}

/// `shown` gives the balances that readers of the place see.
template <typename Shown>
void check_every_step(const Kind& kind, Shown shown) {
  Scene scene;
  const auto before = balances(kind);
  scene.book();
  must(catch_up(scene.store, before));
  for (const Change& change : changes()) {
    bool killed = true;
    int step = 1;
    for (; killed; ++step) {
      INFO(change.name << ", step " << step);
      const auto old = shown();
      CHECK(old == scene.bookings.expected());
      scene.book();
      change.make(scene.store.context(), change.view(kind));
      killed = is_killed_at(step, [&](const auto& at_step) {
        const auto view =
            change.view(std::make_shared<SteppingKind>(kind, [&](std::string_view) { at_step(); }));
        return catch_up(scene.store, view).has_value();
      });
      if (change.view == &balances_of) {
        const auto seen = shown();
        CHECK((seen == old || seen == scene.bookings.expected()));
      }
      const auto view = change.view(kind);
      must(catch_up(scene.store, view));
      CHECK(is_equal(scene.store, view));
      if (change.view == &balances_of) continue;
      must(build_generation(before, scene.store.context()));
      must(catch_up(scene.store, before));
    }
    CHECK(step > 8);
  }
}

/// The same where the program is killed while it makes a generation.
template <typename Shown>
void check_every_build_step(const Kind& kind, Shown shown, decltype(&build_generation) build) {
  Scene scene;
  scene.book();
  const auto view = balances(kind);
  must(build_generation(view, scene.store.context()));
  must(catch_up(scene.store, view));
  bool killed = true;
  int step = 1;
  for (; killed; ++step) {
    INFO("step " << step);
    must(build_generation(view, scene.store.context()));
    scene.book();
    killed = is_killed_at(step, [&](const auto& at_step) {
      const Context context = scene.store.context();
      bool some_folded = false;  // a step for each batch of a log that grows
      const auto count = [&](std::string_view name) {
        if (name != "some folded" || !std::exchange(some_folded, true)) at_step();
      };
      return build(view, context, {.at_step = count}).has_value();
    });
    CHECK(sum_of(shown()) == 0);
    must(catch_up(scene.store, view));
    CHECK(shown() == scene.bookings.expected());
    CHECK(is_equal(scene.store, view));
  }
  CHECK(step > 4);
}

}  // namespace

TEST_CASE("F105: a program killed at any step of its transactions with PostgreSQL goes on rightly",
          "[sink][mirror][crash]") {
  TestDatabase database;
  check_every_step(postgres_table({.server = database.uri()}), [&] { return rows_in(database); });
}

TEST_CASE("F105: a program killed at any step of its transactions with Redis goes on rightly",
          "[sink][mirror][crash]") {
  RedisServer redis;
  check_every_step(redis_hashes({.server = redis.url()}), [&] { return rows_in(redis); });
}

TEST_CASE("F114: a rebuild or rollback killed at any step takes the sink along when it is repeated",
          "[sink][mirror][crash]") {
  const auto build = GENERATE(&build_generation, &roll_back);
  INFO((build == &roll_back ? "rollback" : "rebuild"));
  {
    TestDatabase database;
    check_every_build_step(
        postgres_table({.server = database.uri()}), [&] { return rows_in(database); }, build);
  }
  RedisServer redis;
  check_every_build_step(
      redis_hashes({.server = redis.url()}), [&] { return rows_in(redis); }, build);
}

}  // namespace millrace::projections::test
