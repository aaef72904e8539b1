#include "projections/engine/worker.h"

#include <thread>

#include "projections/command/commands.h"
#include "projections/engine/build.h"
#include "projections/engine/fold.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/wait.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"

using namespace millrace;
using namespace std::chrono_literals;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {}  // namespace

TEST_CASE("views follow the store and equal the tables, whatever happens in them",
          "[projections][worker]") {
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    INFO("seed " << seed);
    ShopStore store;
    ShopWorkload workload(seed);
    const auto search = product_search();
    const auto totals = customer_totals();
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < 20; ++i) store.commit(workload.transaction());
      must(catch_up(store, search));
      must(catch_up(store, totals));
      CHECK(rows_of(store, "product_search") == workload.expected_search());
      CHECK(rows_of(store, "customer_totals") == workload.expected_totals());
    }
    CHECK(must(verify_view(search, store.context())).different == 0);
    CHECK(must(verify_view(totals, store.context())).different == 0);
    CHECK(checkpoint_of(store, "customer_totals").offset == store.end());
    CHECK(checkpoint_of(store, "product_search").offset == store.end());
  }
}

TEST_CASE("a reader sees whole transactions only", "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit(
      {inserted(product(1, "v0")), inserted(product(2, "v0")), inserted(product(3, "v0"))});
  Running running(store, view);
  REQUIRE(comes_true([&] { return has_folded(store, "product_cache", store.end()); }));
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    for (int i = 1; i <= 200; ++i) {
      std::vector<EncodedChange> changes;
      for (const int id : {1, 2, 3})
        changes.push_back(updated<Products>(product(id, "v" + std::to_string(i))));
      store.commit(changes);
    }
    done = true;
  });
  int looks = 0;
  while (!done) {
    ++looks;
    const auto names = rows_of(store, "product_cache", "name");
    REQUIRE(names.size() == 3);
    REQUIRE((names[0] == names[1] && names[1] == names[2]));
  }
  writer.join();
  CHECK(looks > 0);
  REQUIRE(comes_true([&] {
    return rows_of(store, "product_cache", "name") == std::vector<std::string>(3, "v200");
  }));
  must(running.stop());
}

TEST_CASE("a transaction of many batches is shown as a whole", "[projections][worker]") {
  constexpr int kRows = 600;
  const std::string filler(2'000, 'x');  // more than 1 MiB a transaction
  ShopStore store(true, 16 << 10);
  const auto commit_version = [&](int version) {
    std::vector<EncodedChange> changes;
    for (int id = 1; id <= kRows; ++id) {
      const auto row = product(id, "v" + std::to_string(version), filler);
      changes.push_back(version == 0 ? inserted(row) : updated<Products>(row));
    }
    store.commit(changes);
  };
  const auto versions_seen = [&] {
    return query(store.views() / "product_cache.db",
                 "SELECT count(*), name FROM product_cache GROUP BY name");
  };
  const auto all_of = [](int version) {
    return std::vector<std::string>{std::to_string(kRows) + "|v" + std::to_string(version)};
  };
  // Each batch would be a commit, were it not for the transactions.
  const WorkerOptions eager{.events_per_commit = 1, .commit_interval = {}};
  commit_version(0);

  SECTION("to a reader while the worker runs") {
    const auto view = product_cache();
    Running running(store, view, eager);
    REQUIRE(comes_true([&] { return has_folded(store, "product_cache", store.end()); }));
    std::atomic<bool> done = false;
    std::jthread writer([&] {
      for (int version = 1; version <= 20; ++version) commit_version(version);
      done = true;
    });
    int looks = 0;
    for (; !done; ++looks) {
      const auto seen = versions_seen();
      REQUIRE(seen.size() == 1);
      REQUIRE(seen[0].starts_with(std::to_string(kRows) + "|"));
    }
    CHECK(looks > 0);
    REQUIRE(comes_true([&] { return versions_seen() == all_of(20); }));
    must(running.stop());
  }
  SECTION("by a worker that is stopped in the middle of it") {
    std::stop_source* stop_in_the_middle = nullptr;
    const auto view =
        CacheTable("product_cache", Version{1}, {.key = integer("id"), .columns = {text("name")}})
            .on<Products>("public.products",
                          [&](const Change<Products>& change, CacheTable::Writer& table) {
                            table.put(change.key(), {{"name", change[&Products::name]}});
                            if (stop_in_the_middle != nullptr && change.row().id() == kRows / 2)
                              stop_in_the_middle->request_stop();
                          });
    must(catch_up(store, view));
    for (int version = 1; version <= 5; ++version) {
      commit_version(version);
      std::stop_source stop;
      stop_in_the_middle = &stop;
      const Context context = store.context(stop.get_token());
      must(Worker(view, context, eager).run());
      CHECK(versions_seen() == all_of(version - 1));
      CHECK(checkpoint_of(store, "product_cache").offset.value ==
            static_cast<std::uint64_t>(version * kRows));
      stop_in_the_middle = nullptr;
      must(catch_up(store, view));
      CHECK(versions_seen() == all_of(version));
    }
  }
}

TEST_CASE("a worker on an empty store waits for the first table", "[projections][worker]") {
  ShopStore store(false);
  const auto view = product_search();
  Running running(store, view);
  store.record(products_table());
  store.commit({inserted(product(1, "kettle"))});
  REQUIRE(comes_true([&] { return has_folded(store, "product_search", Offset{1}); }));
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle"});
  must(running.stop());
}

TEST_CASE("a worker waits for the first table also where an application has written events",
          "[projections][worker]") {
  ShopStore store(false);
  store.append("cart", "a", "ItemAdded", "{}");
  const auto view = product_search();
  Running running(store, view);
  store.append("cart", "a", "ItemAdded", "{}");
  store.record(products_table());
  store.commit({inserted(product(1, "kettle"))});
  REQUIRE(comes_true([&] { return has_folded(store, "product_search", Offset{3}); }));
  CHECK(rows_of(store, "product_search", "name") == std::vector<std::string>{"kettle"});
  must(running.stop());
}

TEST_CASE("a caught-up worker on an empty store makes an empty view", "[projections][worker]") {
  ShopStore store(false);
  must(catch_up(store, product_cache()));
  CHECK(rows_of(store, "product_cache").empty());
}

TEST_CASE("F112: a second worker of the same view is refused with the name of the first",
          "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  Running running(store, view);
  REQUIRE(comes_true([&] { return has_folded(store, "product_cache", store.end()); }));
  const auto second = catch_up(store, view);
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::kLocked);
  CHECK_THAT(second.error().message(),
             Catch::Contains("pid " + std::to_string(::getpid()) + ", shop run"));
  CHECK(must(status_of(view, store.context())).state == "running");
  must(running.stop());
  must(catch_up(store, view));
  CHECK(must(status_of(view, store.context())).state == "stopped");
}

TEST_CASE("F112: where a lock file was removed, of two workers one is fenced off before it writes",
          "[projections][worker]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada"))});
  Running first(store, view);
  REQUIRE(comes_true([&] { return has_folded(store, "customer_totals", store.end()); }));
  std::filesystem::remove(store.views() / "customer_totals.lock");
  Running second(store, view);
  int orders = 0;
  REQUIRE(comes_true([&] {
    store.commit({inserted(order(++orders, 7, 1))});
    return first.has_ended() || second.has_ended();
  }));
  Running& fenced = first.has_ended() ? first : second;
  Running& other = first.has_ended() ? second : first;
  CHECK_THAT(fenced.ended().error().to_string(), Catch::Contains("FENCED") &&
                                                     Catch::Contains("customer_totals.1.db") &&
                                                     Catch::Contains("shop run"));
  CHECK(checkpoint_of(store, "customer_totals").failure.empty());  // the other one's is well

  store.commit({inserted(order(++orders, 7, 1))});
  REQUIRE(comes_true([&] { return has_folded(store, "customer_totals", store.end()); }));
  must(other.stop());
  CHECK(rows_of(store, "customer_totals", "orders") ==
        std::vector<std::string>{std::to_string(orders)});
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("a worker goes on where a rebuild and a rollback have left its own generation live",
          "[projections][worker]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada")), inserted(order(1, 7, 100))});
  Running worker(store, view);
  REQUIRE(comes_true([&] { return has_folded(store, "customer_totals", store.end()); }));
  for (int round = 0; round < 3; ++round) {
    store.commit({inserted(product(round, "of no interest"))});  // but the rollback passes it
    must(build_generation(view, store.context()));
    must(roll_back(view, store.context()));
    store.commit({inserted(order(2 + round, 7, 10))});
    REQUIRE(comes_true([&] { return has_folded(store, "customer_totals", store.end()); }));
  }
  must(worker.stop());
  CHECK(rows_of(store, "customer_totals", "orders") == std::vector<std::string>{"4"});
}

TEST_CASE("what makes a declared view's writer leaves nothing open that a commit would be behind",
          "[projections][worker]") {
  ShopStore store;
  const auto view = customer_totals();
  store.commit({inserted(customer(7, "Ada")), inserted(order(1, 7, 100))});
  must(catch_up(store, view));
  const Context context = store.context();
  const auto file = store.views() / "customer_totals.1.db";
  const auto worker = must(sqlite::Database::open(file, sqlite::Mode::kLive));
  const auto fold =
      must(Fold::make(view, *worker, *context.schemas, must(read_checkpoint(*worker))));
  const auto other = must(sqlite::Database::open(file, sqlite::Mode::kLive));
  must(other->begin());
  must(other->execute("CREATE TABLE theirs(x)"));
  must(other->commit());
  CHECK(worker->begin());
}

TEST_CASE("F115: a view that is ahead of the store stops and says CHECKPOINT_AHEAD",
          "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  store.close();
  const auto older = store.directory().string() + ".older";
  std::filesystem::copy(store.directory(), older, std::filesystem::copy_options::recursive);
  store.open();
  store.commit({inserted(product(2, "pan"))});
  must(catch_up(store, view));
  store.close();
  std::filesystem::remove_all(store.directory());
  std::filesystem::rename(older, store.directory());
  store.open();
  const auto refused = catch_up(store, view);
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().to_string(),
             Catch::Contains("CHECKPOINT_AHEAD") && Catch::Contains("up to offset 2") &&
                 Catch::Contains("ends at 1") && Catch::Contains("shop rebuild product_cache"));
  CHECK(rows_of(store, "product_cache").size() == 2);
  CHECK(must(status_of(view, store.context())).state == "refused");
  must(build_generation(view, store.context()));
  must(catch_up(store, view));
  CHECK(rows_of(store, "product_cache").size() == 1);
}

TEST_CASE("a view of another store is refused", "[projections][worker]") {
  ShopStore store, other;
  const auto view = product_cache();
  for (ShopStore* each : {&store, &other}) each->commit({inserted(product(1, "kettle"))});
  must(catch_up(other, view));
  std::filesystem::copy(
      other.views(), store.views(),
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::copy_symlinks);
  CHECK_THAT(catch_up(store, view).error().to_string(),
             Catch::Contains("another store") && Catch::Contains("rebuild product_cache"));
}

TEST_CASE("a changed version or shape is refused with the difference until the view is rebuilt",
          "[projections][worker]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, product_cache(Version{1})));
  const auto newer = product_cache(Version{2});
  CHECK_THAT(catch_up(store, newer).error().to_string(),
             Catch::Contains("of version 1, the program has version 2") &&
                 Catch::Contains("shop rebuild product_cache"));
  const auto wider =
      CacheTable("product_cache", Version{1},
                 {.key = text("id"), .columns = {text("name"), integer("stock")}})
          .on<Products>("public.products", [](const Change<Products>&, CacheTable::Writer&) {});
  CHECK_THAT(catch_up(store, wider).error().message(),
             Catch::Contains("- column \"description\" TEXT") &&
                 Catch::Contains("+ column \"stock\" INTEGER"));
  CHECK_FALSE(verify_view(wider, store.context()));
  must(build_generation(newer, store.context()));
  must(catch_up(store, newer));
  CHECK_THAT(catch_up(store, product_cache(Version{1})).error().message(),
             Catch::Contains("of version 2, the program has version 1"));
}

TEST_CASE("a worker goes on with the new generation after a rebuild",
          "[projections][worker][rebuild]") {
  ShopStore store;
  ShopWorkload workload(3);
  const auto view = product_search();
  for (int i = 0; i < 30; ++i) store.commit(workload.transaction());
  Running running(store, view);
  REQUIRE(comes_true([&] { return has_folded(store, "product_search", store.end()); }));
  for (int round = 0; round < 5; ++round) {
    std::jthread writer([&] {
      for (int i = 0; i < 30; ++i) store.commit(workload.transaction());
    });
    const auto before = checkpoint_of(store, "product_search").offset;
    const BuildReport built = must(build_generation(view, store.context()));
    CHECK(built.checkpoint.offset >= before);
    writer.join();
  }
  store.commit({inserted(product(1'000'000, "the last one"))});
  REQUIRE(comes_true([&] { return has_folded(store, "product_search", store.end()); }));
  CHECK(must(verify_view(view, store.context())).different == 0);
  must(running.stop());
  const auto status = must(status_of(view, store.context()));
  CHECK(status.generation == 6);
  CHECK(status.lag == 0);
}

TEST_CASE("F100: a lock that another process holds is waited for, and nothing is lost",
          "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, view));
  auto holder =
      must(sqlite::Database::open(store.views() / "product_cache.db", sqlite::Mode::kLive));
  must(holder->begin());
  store.commit({inserted(product(2, "pan"))});
  Running running(store, view);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  while (std::chrono::steady_clock::now() < end) CHECK(rows_of(store, "product_cache").size() == 1);
  holder->rollback();
  REQUIRE(comes_true([&] { return rows_of(store, "product_cache").size() == 2; }));
  must(holder->begin());
  store.commit({inserted(product(3, "pot"))});
  must(running.stop());  // also while it waits
  holder->rollback();
  must(catch_up(store, view));
  CHECK(rows_of(store, "product_cache").size() == 3);
}

TEST_CASE("F113: a view that sets nothing aside stops before what it can't fold, and status tells",
          "[projections][worker]") {
  ShopStore store;
  bool poison = false;
  const auto picky =
      CacheTable("picky", Version{1}, {.key = integer("id"), .columns = {text("name")}})
          .set_aside_at_most(0)
          .on<Products>("public.products",
                        [&](const Change<Products>& change, CacheTable::Writer& table) {
                          if (poison && change.key() == "3")
                            throw std::runtime_error("I don't like it");
                          table.put(change.key(), {{"name", change[&Products::name]}});
                        });
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, picky));
  poison = true;
  store.commit({inserted(product(2, "pan")), inserted(product(3, "poison"))});
  const auto stopped = catch_up(store, picky);
  REQUIRE_FALSE(stopped);
  CHECK_THAT(stopped.error().message(),
             Catch::Contains("view picky: event at offset 2 of public.products, key '3'") &&
                 Catch::Contains("I don't like it"));
  CHECK(rows_of(store, "picky", "name") == std::vector<std::string>{"kettle"});
  auto status = must(status_of(picky, store.context()));
  CHECK(status.state == "failed");
  CHECK_THAT(status.reason, Catch::Contains("I don't like it"));
  CHECK(status.lag == 2);
  poison = false;
  must(catch_up(store, picky));
  CHECK(rows_of(store, "picky").size() == 3);
  CHECK(must(status_of(picky, store.context())).state == "stopped");
}

TEST_CASE("what may pass is tried again until it has, and status tells meanwhile",
          "[projections][worker]") {
  ShopStore store;
  std::atomic<bool> full = false;
  std::atomic<int> attempts = 0;
  const auto code = GENERATE(ErrorCode::kNoSpace, ErrorCode::kIo, ErrorCode::kUnavailable);
  const auto view =
      CacheTable("patient", Version{1}, {.key = integer("id"), .columns = {text("name")}})
          .on<Products>(
              "public.products",
              [&](const Change<Products>& change, CacheTable::Writer& table) -> Result<void> {
                table.put(change.key(), {{"name", change[&Products::name]}});
                if (!full) return {};
                ++attempts;
                return Error(code, "not now");
              });
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, view));
  full = true;
  store.commit({inserted(product(2, "pan"))});
  CHECK_FALSE(catch_up(store, view));  // which is to end, so it does
  CHECK(attempts == 1);
  Running running(store, view, {.retry_first = std::chrono::milliseconds(1)});
  REQUIRE(comes_true([&] { return attempts >= 5; }));
  REQUIRE(comes_true([&] {
    const auto status = must(status_of(view, store.context()));
    return status.state == "retrying" && status.reason.find("not now") != std::string::npos;
  }));
  CHECK(rows_of(store, "patient").size() == 1);
  full = false;
  REQUIRE(comes_true([&] { return rows_of(store, "patient").size() == 2; }));
  CHECK(must(status_of(view, store.context())).state == "running");
  must(running.stop());
}

TEST_CASE("a worker that waits for an error to pass can be stopped", "[projections][worker]") {
  ShopStore store;
  std::atomic<int> attempts = 0;
  const auto view =
      CacheTable("stuck", Version{1}, {.key = integer("id")})
          .on<Products>("public.products", [&](const Change<Products>&, auto&) -> Result<void> {
            ++attempts;
            return Error(ErrorCode::kIo, "not now");
          });
  store.commit({inserted(product(1, "kettle"))});
  Running running(store, view,
                  {.retry_first = std::chrono::hours(1), .retry_max = std::chrono::hours(1)});
  REQUIRE(comes_true([&] { return attempts >= 1; }));
  must(running.stop());
}

TEST_CASE("a view that fails at its very first start leaves the reason in status",
          "[projections][worker]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  bool poison = true;
  const auto view = CacheTable("poisoned", Version{1}, {.key = integer("id")})
                        .set_aside_at_most(0)
                        .on<Products>("public.products", [&](const Change<Products>&, auto&) {
                          if (poison) throw std::runtime_error("I don't like it");
                        });
  CHECK_FALSE(catch_up(store, view));
  const auto failed = must(status_of(view, store.context()));
  CHECK(failed.state == "failed");
  CHECK_THAT(failed.reason, Catch::Contains("offset 0") && Catch::Contains("I don't like it"));
  CHECK(failed.generation == 0);
  const auto waited = wait_until_folded({store.directory(), store.views(), "poisoned"}, {}, 30s);
  REQUIRE_FALSE(waited);
  CHECK_THAT(waited.error().message(),
             Catch::Contains("has stopped") && Catch::Contains("I don't like it"));
  poison = false;
  must(catch_up(store, view));
  CHECK(must(status_of(view, store.context())).state == "stopped");
  CHECK_FALSE(std::filesystem::exists(store.views() / "poisoned.failure"));
}

TEST_CASE("a view that can't start any more leaves the reason in status, and nobody waits for it",
          "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, view));
  auto other = products_table();
  other.columns[1].kind = ValueKind::kInt64;
  store.record(other);
  store.commit({inserted(product(2, "pan"))});
  const auto refused = catch_up(store, view);
  REQUIRE_FALSE(refused);
  const auto status = must(status_of(view, store.context()));
  CHECK(status.state == "failed");
  CHECK(status.reason == refused.error().message());
  const auto waited =
      wait_until_folded({store.directory(), store.views(), "product_cache"}, {}, 30s);
  REQUIRE_FALSE(waited);
  CHECK(waited.error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("a view that stops for good ends the program once the others have caught up",
          "[projections][worker]") {
  ShopStore store;
  for (int id = 1; id <= 3; ++id) store.commit({inserted(product(id, "kettle"))});
  const auto poisoned = CacheTable("poisoned", Version{1}, {.key = integer("id")})
                            .set_aside_at_most(2)
                            .on<Products>("public.products", [](const Change<Products>&, auto&) {
                              throw std::runtime_error("I don't like it");
                            });
  const auto waiting = CacheTable("waiting", Version{1}, {.key = integer("id")})
                           .on<Products>("public.products", [](const Change<Products>&, auto&) {});
  const auto good = product_cache();
  const auto code = must(run_views({&poisoned, &good, &waiting}, store.context(), {}));
  CHECK(code == kExitFailed);
  CHECK(rows_of(store, "product_cache").size() == 3);
  CHECK(checkpoint_of(store, "waiting").offset == store.end());
}

TEST_CASE("what goes wrong while folding is exit code 1, also where it is an invalid argument",
          "[projections][worker]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto view = CacheTable("misfit", Version{1}, {.key = integer("id")})
                        .set_aside_at_most(0)
                        .on<Products>("public.products", [](const Change<Products>&, auto& table) {
                          table.put("no number", {});
                        });
  const auto stopped = catch_up(store, view);
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kInvalidArgument);
  Options options;
  options.until_caught_up = true;
  CHECK(must(run_views({&view}, store.context(), options)) == kExitFailed);
  CHECK(must(rebuild_views({&view}, store.context(), options)) == kExitFailed);
}

TEST_CASE("a file that is no database is told apart and replaced by a rebuild",
          "[projections][worker]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  must(catch_up(store, view));
  std::filesystem::resize_file(store.views() / "product_cache.1.db", 100);
  const auto damaged = catch_up(store, view);
  REQUIRE_FALSE(damaged);
  CHECK(damaged.error().code() == ErrorCode::kCorruption);
  CHECK_THAT(damaged.error().hint(), Catch::Contains("rebuild"));
  CHECK(must(status_of(view, store.context())).state == "unreadable");
  must(build_generation(view, store.context()));
  CHECK(rows_of(store, "product_cache").size() == 1);
}
