// A store that was put back to an older copy of it and has grown since: what the views had folded
// of it may not be there any more.

#include "projections/engine/build.h"
#include "projections/engine/retry.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/tally.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Orders;

namespace {

namespace fs = std::filesystem;

/// The store as it is when this is made.
class OlderCopy {
 public:
  explicit OlderCopy(ShopStore& store)
      : store_(store), copy_(store.directory().string() + ".older") {
    store_.close();
    fs::copy(store_.directory(), copy_, fs::copy_options::recursive);
    store_.open();
  }
  void put_back() {
    store_.close();
    fs::remove_all(store_.directory());
    fs::rename(copy_, store_.directory());
    store_.open();
  }

 private:
  ShopStore& store_;
  const fs::path copy_;
};

RelationalView order_counts() {
  return view("order_counts", Version{1})
      .from(projections::table<Orders>("public.orders"))
      .group_by(&Orders::customer_id)
      .aggregate(count("orders"))
      .into(cache_table{});
}

template <typename T>
std::string refusal(const Result<T>& result) {
  return result ? "it went on" : result.error().to_string();
}

void check_is_refused_until_rebuilt(const View& view) {
  INFO(view.name());
  ShopStore store;
  store.commit({inserted(order(1, 7, 1))});
  OlderCopy older(store);
  for (int id = 2; id <= 3; ++id) store.commit({inserted(order(id, 7, 1))});
  must(catch_up(store, view));
  must(build_generation(view, store.context()));
  older.put_back();
  for (int id = 12; id <= 15; ++id) store.commit({inserted(order(id, 7, 1))});

  const Context context = store.context();
  const auto names_it = [&](const std::string& error) {
    CHECK_THAT(error, Catch::Contains("CHECKPOINT_DIVERGED") &&
                          Catch::Contains("at offset 2 (of 2023-") &&
                          Catch::Contains("shop rebuild " + view.name()));
  };
  names_it(refusal(catch_up(store, view)));
  const ViewStatus status = must(status_of(view, context));
  CHECK(status.state == "failed");
  CHECK_THAT(status.reason, Catch::Contains("CHECKPOINT_DIVERGED"));
  names_it(refusal(verify_view(view, context)));
  names_it(refusal(roll_back(view, context)));
  names_it(refusal(retry_set_aside(view, context, {}, {.by = "a test", .note = ""})));

  must(build_generation(view, context));
  must(catch_up(store, view));
  CHECK(must(status_of(view, context)).state == "stopped");
  CHECK(must(verify_view(view, context)).different == 0);
}

}  // namespace

TEST_CASE("F115: a view that has folded what is not in the log any more says CHECKPOINT_DIVERGED",
          "[projections][put_back]") {
  check_is_refused_until_rebuilt(customer_totals());
  check_is_refused_until_rebuilt(order_counts());
  check_is_refused_until_rebuilt(tally());
}

TEST_CASE("F115: events of an application that have others in their place are noticed",
          "[projections][put_back]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada"))});
  OlderCopy older(store);
  store.append("cart", "1", "Added", "one");
  store.commit({inserted(order(1, 7, 1))});
  store.append("cart", "1", "Added", "two");
  must(catch_up(store, view));
  older.put_back();
  for (int i = 0; i < 4; ++i) store.append("cart", "1", "Added", "another");
  CHECK_THAT(refusal(catch_up(store, view)),
             Catch::Contains("CHECKPOINT_DIVERGED") && Catch::Contains("at offset 2"));
}

TEST_CASE("F115: a view goes on where the older copy has all that it has folded",
          "[projections][put_back]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada"))});
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  OlderCopy older(store);
  store.commit({inserted(order(2, 7, 1))});
  older.put_back();
  store.commit({inserted(order(12, 7, 5))});
  must(catch_up(store, view));
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"7|Ada|2|6"});
}

TEST_CASE("a view goes on where compaction has removed the last event that it folded",
          "[projections][put_back]") {
  ShopStore store(true, 1 << 10, 64 << 10);
  const auto view = product_cache();
  const std::string filler(1'000, 'x');
  const auto commit_version = [&](int version) {
    store.commit({updated<shop::Products>(product(1, "v" + std::to_string(version), filler))});
  };
  commit_version(0);
  must(catch_up(store, view));
  CHECK(checkpoint_of(store, "product_cache").last_event == Offset{0});
  for (int version = 1; version <= 300; ++version) commit_version(version);
  store.compact("public.products");
  must(catch_up(store, view));
  CHECK(rows_of(store, "product_cache", "name") == std::vector<std::string>{"v300"});
}

TEST_CASE("a view whose file was made before it kept its last event goes on without",
          "[projections][put_back]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada"))});
  must(catch_up(store, view));
  must(must(sqlite::Database::open(store.views() / "customer_totals.db", sqlite::Mode::kLive))
           ->execute("ALTER TABLE millrace_checkpoint DROP COLUMN last_event"));
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  CHECK_FALSE(checkpoint_of(store, "customer_totals").last_event);
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"7|Ada|1|1"});
}
