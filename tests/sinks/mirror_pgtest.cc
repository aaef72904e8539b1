#include <csignal>
#include <future>

#include "projections/engine/build.h"
#include "projections/engine/retry.h"
#include "projections/wait.h"
#include "tests/sinks/sink_scene.h"
#include "tests/support/process.h"

// Views that are kept in PostgreSQL and Redis as well, through what befalls the views.

namespace millrace::projections::test {

using millrace::test::ChildProcess;
using millrace::test::run_command;

TEST_CASE("a view is kept in PostgreSQL and Redis as well", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(1);
  const auto in_postgres = balances(postgres_table({.server = database.uri()}));
  const auto in_redis = balances(redis_hashes({.server = redis.url()}), "hashes");
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 20; ++i) store.commit(bookings.transaction());
    must(catch_up(store, in_postgres));
    must(catch_up(store, in_redis));
    CHECK(rows_in(database) == bookings.expected());
    CHECK(rows_in(redis, "hashes") == bookings.expected());
    CHECK(is_equal(store, in_postgres));
    CHECK(is_equal(store, in_redis));
  }
  const auto status = must(status_of(in_postgres, store.context()));
  REQUIRE(status.sink);
  CHECK(status.sink->shown->offset == store.end());
  CHECK(to_json(status).find("\"sink\":{\"where\":\"table public.balances of database") !=
        std::string::npos);
}

TEST_CASE("sums are numeric in PostgreSQL, reals and texts what they are", "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  store.commit({inserted(product(1, "lamp")), inserted(product(2, "it's"))});
  using shop::Products;
  const auto prices =
      view("prices", Version{1})
          .from(projections::table<Products>("public.products"))
          .group_by(by("word", &Products::category))
          .aggregate(sum("total", &Products::price), avg("mean", &Products::price))
          .into(cache_table{.indexes = {{"total"}},
                            .sink = postgres_table(
                                {.server = database.uri(), .types = {{"mean", "numeric(10,2)"}}})});
  must(catch_up(store, prices));
  CHECK(database.value("SELECT word || ' ' || total || ' ' || mean FROM prices") ==
        "things 39.80 19.90");
  CHECK(database.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'prices'") == "2");
  CHECK(is_equal(store, prices));
}

TEST_CASE("reals of a numeric column are equal in PostgreSQL and Redis, round ones, too",
          "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  store.commit({inserted(order(1, 1, 100'000)), inserted(order(2, 2, 99'999)),
                inserted(order(3, 3, 1'000'000'000'000)), inserted(order(4, 4, 1))});
  const auto weights = [](std::shared_ptr<const SinkKind> sink, const std::string& name) {
    using shop::Orders;
    return view(name, Version{1})
        .from(projections::table<Orders>("public.orders"))
        .group_by(by("id", &Orders::customer_id))
        .aggregate(sum("grams", [](const Orders& row) { return double(row.total_cents()); }),
                   sum("tons", [](const Orders& row) { return double(row.total_cents()) / 1e6; }),
                   sum("stars", [](const Orders& row) { return double(row.total_cents()) * 1e18; }))
        .into(cache_table{.sink = std::move(sink)});
  };
  const auto in_postgres = weights(postgres_table({.server = database.uri()}), "weights");
  const auto in_redis = weights(redis_hashes({.server = redis.url()}), "hashes");
  must(catch_up(store, in_postgres));
  must(catch_up(store, in_redis));
  CHECK(database.value("SELECT string_agg(grams::text, ' ' ORDER BY id) FROM weights") ==
        "100000 99999 1000000000000 1");
  CHECK(database.value("SELECT stars || ' ' || tons FROM weights WHERE id = 1") ==
        "1" + std::string(23, '0') + " 0.1");
  CHECK(is_equal(store, in_postgres));
  CHECK(is_equal(store, in_redis));
}

TEST_CASE("round numbers are scores of a Redis sorted set, whatever they are sums of",
          "[sink][mirror]") {
  RedisServer redis;
  ShopStore store;
  std::int64_t id = 0;
  for (const std::int64_t cents :
       {100'000L, 200'000L, 1'000'000L, 99'999L, 9'007'199'254'740'991L, -100'000L, 0L})
    ++id, store.commit({inserted(order(id, id, cents))});
  for (const char* price : {"100000.00", "0.0001", "1000000", "12.5", "0.00"}) {
    auto row = product(++id, "lamp");
    row.set_price(price);
    store.commit({inserted(row)});
  }
  using shop::Orders, shop::Products;
  const auto kept = [&](const std::string& key) {
    return cache_table{.sink =
                           redis_sorted_set({.server = redis.url(), .key = key, .score = "score"})};
  };
  const auto orders = [&](const std::string& name, auto aggregate) {
    return view(name, Version{1})
        .from(projections::table<Orders>("public.orders"))
        .group_by(by("id", &Orders::customer_id))
        .aggregate(aggregate)
        .into(kept(name));
  };
  const auto products = [&](const std::string& name, auto aggregate) {
    return view(name, Version{1})
        .from(projections::table<Products>("public.products"))
        .group_by(&Products::id)
        .aggregate(aggregate)
        .into(kept(name));
  };
  const auto real = [](const Orders& row) { return double(row.total_cents()) / 8; };
  const auto integers = orders("integers", sum("score", &Orders::total_cents));
  const auto reals = orders("reals", sum("score", real));
  const auto greatest = orders("greatest", max("score", real));
  const auto decimals = products("decimals", sum("score", &Products::price));
  const auto cheapest = products("cheapest", min("score", decimal(&Products::price)));
  for (const RelationalView* view : {&integers, &reals, &greatest, &decimals, &cheapest}) {
    INFO(view->name());
    must(catch_up(store, *view));
    CHECK(is_equal(store, *view));
  }
  CHECK(redis.run({"ZRANGEBYSCORE", "integers", "99999", "200000"}) == "4\n1\n2");
  CHECK(redis.run({"ZCOUNT", "reals", "12500", "12500"}) == "1");
  CHECK(redis.run({"ZCOUNT", "decimals", "100000", "100000"}) == "1");
  CHECK(redis.run({"ZCARD", "cheapest"}) == "5");
}

TEST_CASE("a column of text that is a number may be a score", "[sink][mirror]") {
  RedisServer redis;
  ShopStore store;
  store.commit({inserted(product(1, "100000")), inserted(product(2, "5.0"))});
  const auto view =
      CacheTable("names", Version{1},
                 {.key = integer("id"),
                  .columns = {text("name")},
                  .sink = redis_sorted_set({.server = redis.url(), .score = "name"})})
          .on<shop::Products>("public.products",
                              [](const Change<shop::Products>& change, CacheTable::Writer& names) {
                                names.put(change.key(), {{"name", change[&shop::Products::name]}});
                              });
  must(catch_up(store, view));
  CHECK(redis.run({"ZRANGE", "names", "0", "-1"}) == "2\n1");
  CHECK(is_equal(store, view));
}

TEST_CASE("a reader of PostgreSQL or Redis sees whole transactions only", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(2);
  store.commit(bookings.transaction());
  const auto in_postgres = balances(postgres_table({.server = database.uri()}));
  const auto in_redis = balances(redis_hashes({.server = redis.url()}), "hashes");
  must(catch_up(store, in_postgres));
  must(catch_up(store, in_redis));
  Running postgres(store, in_postgres, impatient()), hashes(store, in_redis, impatient());
  for (int i = 0; i < 400; ++i) {
    store.commit(bookings.transaction());
    if (i % 10 != 0) continue;
    CHECK(sum_of(rows_in(database)) == 0);
    CHECK(sum_of(rows_in(redis, "hashes")) == 0);
  }
  CHECK(comes_true([&] { return rows_in(database) == bookings.expected(); }));
  CHECK(comes_true([&] { return rows_in(redis, "hashes") == bookings.expected(); }));
}

TEST_CASE("wait: a view with a sink shows an offset once the sink does", "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  Bookings bookings(3);
  const auto view = balances(postgres_table({.server = database.uri()}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  Running worker(store, view, impatient());
  for (int i = 0; i < 50; ++i) {
    store.commit(bookings.transaction());
    REQUIRE(must(wait_until_folded({store.directory(), store.views(), "balances"}, {},
                                   std::chrono::seconds(30))));
    REQUIRE(rows_in(database) == bookings.expected());
  }
}

TEST_CASE("F114: a rebuild and a rollback take their sinks along", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(13);
  for (int i = 0; i < 20; ++i) store.commit(bookings.transaction());
  for (const auto& kind :
       {postgres_table({.server = database.uri()}), redis_hashes({.server = redis.url()})}) {
    const auto first = balances(kind);
    must(catch_up(store, first));
    Running worker(store, first, impatient());
    for (int i = 0; i < 3; ++i) {
      store.commit(bookings.transaction());
      must(build_generation(first, store.context()));
    }
    must(roll_back(first, store.context()));
    CHECK(must(wait_until_folded({store.directory(), store.views(), "balances"}, {},
                                 std::chrono::seconds(30))));
    CHECK(worker.stop());
    CHECK(is_equal(store, first));
    // Another shape.
    using shop::Orders;
    const auto second =
        view("balances", Version{2})
            .from(projections::table<Orders>("public.orders"))
            .group_by(by("id", &Orders::customer_id))
            .aggregate(count("bookings"), max("newest", &Orders::id))
            .into(cache_table{.columns = {counter("bookings"), integer("newest")}, .sink = kind});
    must(build_generation(second, store.context()));
    must(catch_up(store, second));
    CHECK(is_equal(store, second));
    must(build_generation(first, store.context()));
    must(catch_up(store, first));
    CHECK(is_equal(store, first));
    std::filesystem::remove_all(store.views());
  }
  CHECK(rows_in(redis) == bookings.expected());
}

TEST_CASE("F103: a view whose file is replaced, or robbed of its WAL, brings its sink along",
          "[sink][mirror]") {
  RedisServer redis;
  const auto view = balances(redis_hashes({.server = redis.url()}));
  const std::string how = GENERATE("copy", "-wal", "-shm");
  INFO(how);
  ShopStore store;
  Bookings bookings(21);
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const std::filesystem::path file = store.views() / "balances.1.db",
                              copied = store.views() / "copy";
  std::filesystem::copy_file(file, copied);
  Running worker(store, view, impatient());
  store.commit(bookings.transaction());
  REQUIRE(comes_true([&] { return rows_in(redis) == bookings.expected(); }));
  if (how == "copy")
    std::filesystem::rename(copied, file);
  else
    std::filesystem::remove(file.string() + how);
  for (int i = 0; i < 5; ++i) store.commit(bookings.transaction());
  CHECK(comes_true([&] { return rows_in(redis) == bookings.expected(); }));
  CHECK(worker.stop());
  CHECK(is_equal(store, view));
}

TEST_CASE(
    "F103: a file that is replaced while its worker pauses after an error brings its sink along",
    "[sink][mirror]") {
  using shop::Products;
  TestDatabase database;
  ShopStore store;
  std::atomic<bool> has_memory = true;
  const auto view = CacheTable("names", Version{1},
                               {.key = integer("id"),
                                .columns = {text("name")},
                                .sink = postgres_table({.server = database.uri()})})
                        .on<Products>("public.products", [&](const Change<Products>& change,
                                                             CacheTable::Writer& names) {
                          if (!has_memory) throw std::bad_alloc();
                          names.put(change.key(), {{"name", change[&Products::name]}});
                        });
  const auto shown = [&] {
    return database.value("SELECT string_agg(name, ' ' ORDER BY id) FROM names");
  };
  store.commit({inserted(product(1, "cup"))});
  must(catch_up(store, view));
  const std::filesystem::path file = store.views() / "names.1.db",
                              copied = store.views() / "copied.db";
  std::filesystem::copy_file(file, copied);
  Running worker(store, view, {.retry_first = std::chrono::seconds(5)});
  store.commit({inserted(product(2, "pan"))});
  REQUIRE(comes_true([&] { return shown() == "cup pan"; }));

  has_memory = false;
  store.commit({inserted(product(3, "pot"))});
  REQUIRE(comes_true([&] { return !checkpoint_of(store, "names").failure.empty(); }));
  std::filesystem::rename(copied, file);
  std::filesystem::remove(std::filesystem::path(file) += "-wal");
  std::filesystem::remove(std::filesystem::path(file) += "-shm");
  has_memory = true;
  CHECK(comes_true([&] { return shown() == "cup pan pot"; }));
  must(worker.stop());
  CHECK(is_equal(store, view));
}

TEST_CASE("F113: what is set aside and folded later reaches the sink, beside a worker",
          "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  std::atomic<bool> poisoned = true;
  const auto view =
      CacheTable("names", Version{1},
                 {.key = integer("id"),
                  .columns = {text("name")},
                  .sink = postgres_table({.server = database.uri()})})
          .on<shop::Products>("public.products",
                              [&](const Change<shop::Products>& change, CacheTable::Writer& names) {
                                if (change.is_delete()) return names.erase(change.key());
                                names.put(change.key(), {{"name", change[&shop::Products::name]}});
                                if (poisoned && change.key() == "2")
                                  throw std::runtime_error("I don't like it");
                              });
  store.commit({inserted(product(1, "lamp"))});
  must(catch_up(store, view));
  Running worker(store, view, impatient());
  store.commit(
      {inserted(product(3, "mug")), inserted(product(2, "pan")), inserted(product(4, "jar"))});
  const auto shown = [&] {
    return database.value("SELECT string_agg(name, ' ' ORDER BY id) FROM names");
  };
  CHECK(comes_true([&] { return shown() == "lamp mug jar"; }));
  poisoned = false;
  must(retry_set_aside(view, store.context(), {}, {}));
  CHECK(comes_true([&] { return shown() == "lamp pan mug jar"; }));
  store.commit({deleted(product(3, "mug"))});
  CHECK(comes_true([&] { return shown() == "lamp pan jar"; }));
  CHECK(worker.stop());
  CHECK(is_equal(store, view));
}

TEST_CASE("F113: what a declared view sets aside and folds later reaches the sink, beside a worker",
          "[sink][mirror][relational]") {
  TestDatabase database;
  ShopStore store;
  std::atomic<bool> poisoned = true;
  const auto view = projections::view("kinds", Version{1})
                        .from(projections::table<shop::Products>("public.products"))
                        .group_by(by("kind",
                                     [&](const shop::Products& p) {
                                       if (poisoned && p.name() == "poison")
                                         throw std::runtime_error("I don't like it");
                                       return p.description();
                                     }))
                        .aggregate(count("n"))
                        .into(cache_table{.sink = postgres_table({.server = database.uri()})});
  store.commit({inserted(product(1, "lamp", "light"))});
  must(catch_up(store, view));
  Running worker(store, view, impatient());
  store.commit({inserted(product(3, "mug", "cup")), inserted(product(2, "poison", "cup")),
                updated<shop::Products>(product(1, "poison", "heat")),
                inserted(product(4, "jar", "cup"))});
  const auto shown = [&] {
    return database.value("SELECT string_agg(kind || n, ' ' ORDER BY kind) FROM kinds");
  };
  CHECK(comes_true([&] { return shown() == "cup2 light1"; }));
  poisoned = false;
  must(retry_set_aside(view, store.context(), {}, {}));
  CHECK(comes_true([&] { return shown() == "cup3 heat1"; }));
  store.commit({deleted(product(3, "mug"))});
  CHECK(comes_true([&] { return shown() == "cup2 heat1"; }));
  CHECK(worker.stop());
  CHECK(is_equal(store, view));
}

TEST_CASE("F115: a place that is ahead of its store, or of another one, is left alone",
          "[sink][mirror]") {
  TestDatabase database;
  const auto view = balances(postgres_table({.server = database.uri()}));
  Bookings bookings(14);
  ShopStore store;
  store.commit(bookings.transaction());
  store.close();
  const std::filesystem::path older = store.directory().string() + "-older";
  std::filesystem::copy(store.directory(), older, std::filesystem::copy_options::recursive);
  store.open();
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const auto shown = rows_in(database);
  store.close();
  std::filesystem::remove_all(store.directory());
  std::filesystem::rename(older, store.directory());
  std::filesystem::remove_all(store.views());
  store.open();
  const auto ahead = catch_up(store, view);
  REQUIRE_FALSE(ahead);
  CHECK(ahead.error().message().find("CHECKPOINT_AHEAD") != std::string::npos);
  ShopStore other;
  other.commit(bookings.transaction());
  const auto foreign = catch_up(other, view);
  REQUIRE_FALSE(foreign);
  CHECK(foreign.error().message().find("another store") != std::string::npos);
  CHECK(rows_in(database) == shown);
}

TEST_CASE("a place that no view has written is left alone", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(15);
  store.commit(bookings.transaction());
  database.exec("CREATE TABLE balances(id bigint)");
  const auto in_postgres = balances(postgres_table({.server = database.uri()}));
  const auto refused = catch_up(store, in_postgres);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("is there already") != std::string::npos);
  CHECK(refused.error().hint().find("DROP TABLE") != std::string::npos);
  database.exec("DROP TABLE balances");
  must(catch_up(store, in_postgres));
  const auto taken = catch_up(
      store, balances(postgres_table({.server = database.uri(), .table = "balances"}), "others"));
  REQUIRE_FALSE(taken);
  CHECK(taken.error().message().find("where view balances is kept") != std::string::npos);

  redis.run({"SET", "hashes:7", "mine"});
  const auto in_redis = balances(redis_hashes({.server = redis.url()}), "hashes");
  const auto kept = catch_up(store, in_redis);
  REQUIRE_FALSE(kept);
  CHECK(kept.error().message().find("hashes:7") != std::string::npos);
  CHECK(redis.run({"GET", "hashes:7"}) == "mine");
}

TEST_CASE("keys of a Redis that may be those of another view are refused", "[sink][mirror]") {
  RedisServer redis;
  ShopStore store;
  Bookings bookings(5);
  store.commit(bookings.transaction());
  const auto hashes = [&](const std::string& view, const std::string& prefix) {
    return catch_up(store, balances(redis_hashes({.server = redis.url(), .prefix = prefix}), view));
  };
  const auto set = [&](const std::string& view, const std::string& key) {
    return catch_up(store, balances(redis_set({.server = redis.url(), .key = key}), view));
  };
  const auto is_told = [](const Result<void>& done, const std::string& of) {
    REQUIRE_FALSE(done);
    CHECK_THAT(done.error().to_string(), Catch::Contains("may be those of view " + of) &&
                                             Catch::Contains("DEL millrace.view."));
  };
  must(hashes("by_id", "shop:id:"));
  must(set("all", "shop:all"));
  is_told(hashes("nested", "shop:id:of:"), "by_id, shop:id:*");
  is_told(hashes("around", "shop:"), "");
  is_told(hashes("same", "shop:id:"), "by_id");
  is_told(set("row", "shop:id:5000"), "by_id");
  is_told(set("all_too", "shop:all"), "all, shop:all");
  CHECK(redis.run({"HLEN", "millrace.view..keys"}) == "2");
  CHECK(redis.run({"EXISTS", "millrace.view.nested"}) == "0");
  must(hashes("beside", "shop:ids:"));
  must(hashes("by_id", "shop:id:"));  // itself, once more
  redis.run({"DEL", "millrace.view.all", "shop:all"});
  must(set("all_too", "shop:all"));

  // Of two that are new and come at once one is refused, whichever it is.
  for (int round = 0; round < 10; ++round) {
    const std::string prefix = "round" + std::to_string(round) + ":", view = prefix.substr(0, 6);
    auto outer = std::async(std::launch::async, [&] { return hashes(view + "_outer", prefix); });
    const auto inner = hashes(view + "_inner", prefix + "x:");
    CHECK(inner.has_value() != outer.get().has_value());
  }
}

TEST_CASE("a NUL in a text stops PostgreSQL's table, and a key with one that is gone does not",
          "[sink][mirror]") {
  using namespace std::string_literals;
  TestDatabase database;
  ShopStore store;
  const auto names =
      CacheTable("names", Version{1},
                 {.key = text("name"),
                  .columns = {integer("id")},
                  .sink = postgres_table({.server = database.uri()})})
          .on<shop::Products>("public.products", [](const Change<shop::Products>& change,
                                                    CacheTable::Writer& writer) {
            if (change.is_delete()) return writer.erase("nul\0"s + std::string(change.key()));
            writer.put(change.key() == "2" ? "nul\0"s + std::string(change.key()) : "lamp"s,
                       {{"id", change[&shop::Products::id]}});
          });
  store.commit({inserted(product(1, "lamp"))});
  must(catch_up(store, names));
  store.commit({inserted(product(2, "nul"))});
  const auto refused = catch_up(store, names);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(refused.error().message().find("holds a NUL") != std::string::npos);
  CHECK(refused.error().hint().find("NUL") != std::string::npos);
  store.commit({deleted(product(2, "nul"))});
  must(catch_up(store, names));
  CHECK(database.value("SELECT string_agg(name, ' ') FROM names") == "lamp");
  CHECK(is_equal(store, names));
}

TEST_CASE("verify finds what somebody else has changed in a sink, and a rebuild mends it",
          "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(16);
  for (int i = 0; i < 30; ++i) store.commit(bookings.transaction());
  const auto in_postgres = balances(postgres_table({.server = database.uri()}));
  const auto in_redis = balances(redis_hashes({.server = redis.url()}), "hashes");
  must(catch_up(store, in_postgres));
  must(catch_up(store, in_redis));
  const auto id_of = [](const std::string& row) { return row.substr(0, row.find('|')); };
  const std::string changed = id_of(bookings.expected()[0]), gone = id_of(bookings.expected()[1]);
  database.exec("UPDATE balances SET cents = cents + 1 WHERE id = " + changed +
                "; DELETE FROM balances WHERE id = " + gone +
                "; INSERT INTO balances VALUES (1000, 5, 1)");
  redis.run({"HSET", "hashes:" + changed, "cents", "77777"});
  redis.run({"DEL", "hashes:" + gone});
  redis.run({"SET", "hashes:1000", "theirs"});
  for (const View* view :
       {static_cast<const View*>(&in_postgres), static_cast<const View*>(&in_redis)}) {
    const auto report = must(verify_view(*view, store.context()));
    REQUIRE(report.different == 3);
    CHECK(report.differences[0].key == changed);
    CHECK(report.differences[1].key == gone);
    CHECK(report.differences[1].live == "(none)");
    CHECK(report.differences[2].key == "1000");
    must(build_generation(*view, store.context()));
    must(catch_up(store, *view));
    CHECK(is_equal(store, *view));
  }
}

TEST_CASE("types of one's own are compared as what PostgreSQL makes of the values",
          "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  using shop::Products;
  const auto prices = [&](std::shared_ptr<const SinkKind> sink) {
    return view("prices", Version{1})
        .from(projections::table<Products>("public.products"))
        .group_by(by("word", &Products::category))
        .aggregate(avg("mean", &Products::price), top("newest", 2, &Products::id),
                   max("lamps", [](const Products& row) { return row.name() == "lamp"; }))
        .into(cache_table{.sink = std::move(sink)});
  };
  const auto with = prices(postgres_table(
      {.server = database.uri(),
       .types = {{"mean", "numeric(10,2)"}, {"newest", "jsonb"}, {"lamps", "boolean"}}}));
  const auto shown = [&](const std::string& word) {
    return database.value(
        "SELECT mean || ' ' || newest || ' ' || lamps FROM prices WHERE word = '" + word + "'");
  };
  const auto sold = [](std::int64_t id, const std::string& price, const std::string& word) {
    auto row = product(id, "lamp");
    row.set_price(price);
    row.set_category(word);
    return inserted(row);
  };
  store.commit({sold(1, "19.90", "things"), sold(2, "19.90", "things"), sold(3, "20.00", "things"),
                sold(4, "1.00", "others")});
  must(catch_up(store, with));
  CHECK(shown("things") == "19.93 [3, 2] true");
  CHECK(is_equal(store, with));

  // All rows are compared when the sink is back; those that are equal are not written.
  const auto written = [&](const std::string& word) {
    return database.value("SELECT xmin FROM prices WHERE word = '" + word + "'");
  };
  const std::string before = written("things"), before_others = written("others");
  store.commit({sold(5, "1.01", "others")});
  must(catch_up(store, prices(nullptr)));
  must(catch_up(store, with));
  CHECK(shown("others") == "1.01 [5, 4] true");
  CHECK(written("things") == before);
  CHECK(written("others") != before_others);

  for (const char* change : {"mean = 19.94", "newest = '[2, 3]'", "lamps = false", "mean = NULL"}) {
    INFO(change);
    database.exec(std::string("UPDATE prices SET ") + change + " WHERE word = 'things'");
    const auto report = must(verify_view(with, store.context()));
    REQUIRE(report.different == 1);
    CHECK(report.differences[0].key == "'things'");
    must(build_generation(with, store.context()));
    must(catch_up(store, with));
    CHECK(shown("things") == "19.93 [3, 2] true");
    CHECK(is_equal(store, with));
  }
}

TEST_CASE("types of one's own are compared in more rows than one statement asks for",
          "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  std::vector<EncodedChange> changes;
  for (int id = 1; id <= 2'500; ++id) {
    auto row = product(id, "lamp");
    row.set_price(std::to_string(id) + ".006");
    changes.push_back(inserted(row));
  }
  store.commit(changes);
  using shop::Products;
  const auto prices =
      view("prices", Version{1})
          .from(projections::table<Products>("public.products"))
          .group_by(&Products::id)
          .aggregate(sum("price", &Products::price))
          .into(cache_table{.sink = postgres_table({.server = database.uri(),
                                                    .types = {{"price", "numeric(10,2)"}}})});
  must(catch_up(store, prices));
  CHECK(database.value("SELECT sum(price) FROM prices") == "3126275.00");
  CHECK(is_equal(store, prices));
  database.exec("UPDATE prices SET price = price + 0.01 WHERE id IN (7, 1500, 2500)");
  const auto report = must(verify_view(prices, store.context()));
  CHECK(report.different == 3);
}

TEST_CASE("a sink that was taken out of the program for a while is compared when it is back",
          "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  Bookings bookings(17);
  const auto with = balances(postgres_table({.server = database.uri()}));
  const auto without = balances(nullptr);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 5; ++i) store.commit(bookings.transaction());
    must(catch_up(store, with));
    CHECK(rows_in(database) == bookings.expected());
    for (int i = 0; i < 5; ++i) store.commit(bookings.transaction());
    must(catch_up(store, without));
  }
}

TEST_CASE("F105: a program killed at random moments, and its servers, end in equal sinks",
          "[sink][mirror]") {
  PostgresServer server;
  server.create_database("views");
  RedisServer redis;
  const millrace::test::ProcessOptions environment{
      .env = {{"BALANCES_POSTGRES", server.uri("views")}, {"BALANCES_REDIS", redis.url()}}};
  ShopStore store;
  Bookings bookings(18);
  std::mt19937 random(18);
  const auto command = [&](std::vector<std::string> words) {
    words.insert(words.begin(), MILLRACE_BALANCES_PROGRAM);
    words.insert(words.end(),
                 {"--store", store.directory(), "--views", store.views(), "--log-level", "warn"});
    return words;
  };
  for (int round = 0; round < 12; ++round) {
    store.commit(bookings.transaction());
    ChildProcess worker(command({"run"}), environment);
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(100 + random() % 200);
    while (std::chrono::steady_clock::now() < end) store.commit(bookings.transaction());
    if (round % 4 == 1) redis.kill();
    if (round % 4 == 2) server.stop(PostgresServer::Stop::kKill);
    worker.kill(SIGKILL);
    CHECK(worker.wait() == 128 + SIGKILL);
    if (round % 4 == 1) redis.start();
    if (round % 4 == 2) server.start();
  }
  const auto last = run_command(command({"run", "--until-caught-up"}), environment);
  INFO(last.err);
  REQUIRE(last.exit_code == 0);
  CHECK(rows_in(server, "views", "in_postgres") == bookings.expected());
  CHECK(rows_in(redis, "in_hashes") == bookings.expected());
  const auto verified = run_command(command({"verify"}), environment);
  INFO(verified.out << verified.err);
  CHECK(verified.exit_code == 0);
  CHECK(run_command(command({"wait", "--timeout", "10"}), environment).exit_code == 0);
}

}  // namespace millrace::projections::test
