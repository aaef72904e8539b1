#include <csignal>
#include <thread>

#include "projections/engine/build.h"
#include "projections/engine/retry.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "projections/wait.h"
#include "tests/sinks/balances.h"
#include "tests/support/cut_link.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/redis_fixture.h"

// Views that are kept in PostgreSQL and Redis as well, through everything that can befall either.

namespace millrace::projections::test {
namespace {

using millrace::test::ChildProcess;
using millrace::test::CutLink;
using millrace::test::PostgresServer;
using millrace::test::RedisServer;
using millrace::test::run_command;
using millrace::test::TestDatabase;

Result<void> catch_up(ShopStore& store, const View& view) {
  const Context context = store.context();
  return Worker(view, context, {.until_caught_up = true}).run();
}

/// A worker on a thread of its own.
class Running {
 public:
  Running(ShopStore& store, const View& view, const std::filesystem::path& views = {})
      : context_(store.context(stop_.get_token())),
        worker_(view, in(views), options()),
        thread_([this] { result_ = worker_.run(); }) {}
  ~Running() { static_cast<void>(stop()); }
  Result<void> stop() {
    stop_.request_stop();
    return ended();
  }
  /// Waits until it ends by itself.
  Result<void> ended() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  static WorkerOptions options() {
    using std::chrono::milliseconds;
    return {.retry_first = milliseconds(5), .retry_max = milliseconds(20)};
  }
  const Context& in(const std::filesystem::path& views) {
    if (!views.empty()) context_.views = views;
    return context_;
  }

  std::stop_source stop_;
  Context context_;
  Worker worker_;
  Result<void> result_;
  std::jthread thread_;
};

template <typename Condition>
bool comes_true(Condition condition) {
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
       !condition();) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::vector<std::string> rows_in(PostgresServer& server, const std::string& database,
                                 const std::string& table = "balances") {
  std::vector<std::string> rows;
  for (const auto& row :
       server.query(database, "SELECT id, cents, bookings FROM " + table + " ORDER BY id"))
    rows.push_back(*row[0] + "|" + row[1].value_or("null") + "|" + *row[2]);
  return rows;
}
std::vector<std::string> rows_in(TestDatabase& database, const std::string& table = "balances") {
  return rows_in(database.server(), database.name(), table);
}

/// One transaction, as readers have it.
std::vector<std::string> rows_in(const RedisServer& redis, const std::string& view = "balances") {
  const std::string script =
      "local rows = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do "
      "local row = redis.call('HMGET', key, 'id', 'cents', 'bookings') "
      "rows[#rows + 1] = row[1] .. '|' .. row[2] .. '|' .. row[3] end return rows";
  const std::string out = redis.run({"EVAL", script, "0", view + ":*"});
  std::map<int, std::string> rows;
  std::istringstream in(out);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) rows[std::stoi(line)] = line;
  std::vector<std::string> sorted;
  for (const auto& [id, row] : rows) sorted.push_back(row);
  return sorted;
}

std::int64_t sum_of(const std::vector<std::string>& rows) {
  std::int64_t sum = 0;
  for (const std::string& row : rows) sum += std::stoll(row.substr(row.find('|') + 1));
  return sum;
}

bool is_equal(ShopStore& store, const View& view) {
  const VerifyReport report = must(verify_view(view, store.context()));
  for (const Difference& difference : report.differences)
    UNSCOPED_INFO(difference.what << " " << difference.key << ": " << difference.live
                                  << " should be " << difference.computed);
  return report.different == 0;
}

}  // namespace

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
  Running postgres(store, in_postgres), hashes(store, in_redis);
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
  Running worker(store, view);
  for (int i = 0; i < 50; ++i) {
    store.commit(bookings.transaction());
    REQUIRE(must(wait_until_folded({store.directory(), store.views(), "balances"}, {},
                                   std::chrono::seconds(30))));
    REQUIRE(rows_in(database) == bookings.expected());
  }
}

TEST_CASE("F106: a connection to PostgreSQL that is lost at any byte costs and repeats nothing",
          "[sink][mirror]") {
  TestDatabase database;
  PostgresServer& server = database.server();
  CutLink link(server.directory() / (".s.PGSQL." + std::to_string(server.port())));
  ShopStore store;
  Bookings bookings(4);
  const auto view = balances(
      postgres_table({.server = "postgresql://postgres@127.0.0.1:" + std::to_string(link.port()) +
                                "/" + database.name() + "?sslmode=disable"}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const std::uint64_t before = link.passed();
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const std::uint64_t session = link.passed() - before;
  int failed = 0;
  // Every few bytes of a session, each byte of its last part, where the COMMIT and its answer are.
  for (std::uint64_t at = 1; at < session; at += at + 120 < session ? 97 : 3) {
    store.commit(bookings.transaction());
    link.cut_after(at);
    const auto done = catch_up(store, view);
    if (!done) {
      ++failed;
      CHECK(done.error().code() == ErrorCode::kUnavailable);
      must(catch_up(store, view));
    }
    REQUIRE(rows_in(database) == bookings.expected());
  }
  CHECK(failed > 30);
  link.mend();
  CHECK(is_equal(store, view));
}

TEST_CASE("F111: a connection to Redis that is lost at any byte costs and repeats nothing",
          "[sink][mirror]") {
  RedisServer redis;
  CutLink link(redis.socket());
  ShopStore store;
  Bookings bookings(5);
  const auto view =
      balances(redis_hashes({.server = "redis://127.0.0.1:" + std::to_string(link.port())}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const std::uint64_t before = link.passed();
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  const std::uint64_t session = link.passed() - before;
  int failed = 0;
  for (std::uint64_t at = 1; at < session; at += 17) {
    store.commit(bookings.transaction());
    link.cut_after(at);
    if (const auto done = catch_up(store, view); !done) {
      ++failed;
      CHECK(done.error().code() == ErrorCode::kUnavailable);
      CHECK(sum_of(rows_in(redis)) == 0);
      must(catch_up(store, view));
    }
    REQUIRE(rows_in(redis) == bookings.expected());
  }
  CHECK(failed > 30);
  link.mend();
  CHECK(is_equal(store, view));
}

TEST_CASE("F107: what PostgreSQL refuses for now is tried again, what it refuses for good stops",
          "[sink][mirror]") {
  TestDatabase database;
  ShopStore store;
  Bookings bookings(6);
  store.commit(bookings.transaction());
  const auto view = balances(postgres_table({.server = database.uri()}));
  must(catch_up(store, view));
  const std::string name = "ALTER DATABASE " + database.name();

  const auto passes = [&](const std::string& begin, const std::string& end) {
    INFO(begin);
    database.exec(begin);
    database.exec(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
        "'millrace'");
    store.commit(bookings.transaction());
    Running worker(store, view);
    CHECK(comes_true([&] {
      const auto status = must(status_of(view, store.context()));
      return status.sink && !status.sink->failure.empty();
    }));
    database.exec(end);
    CHECK(comes_true([&] { return rows_in(database) == bookings.expected(); }));
    CHECK(worker.stop());
  };
  passes(
      name + " SET default_transaction_read_only = on",  // 25006
      "SET default_transaction_read_only = off; " + name + " RESET default_transaction_read_only");
  passes(name +
             " SET statement_timeout = 1; CREATE FUNCTION slow() RETURNS trigger LANGUAGE "
             "plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END'; CREATE TRIGGER slow "
             "BEFORE INSERT OR UPDATE ON balances FOR EACH ROW EXECUTE FUNCTION slow()",  // 57014
         "SET statement_timeout = 0; " + name +
             " RESET statement_timeout; DROP TRIGGER slow ON balances");
  passes(
      "CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE "
      "serialization_failure; END'; CREATE TRIGGER busy BEFORE INSERT OR UPDATE ON balances FOR "
      "EACH ROW EXECUTE FUNCTION busy()",  // 40001
      "DROP TRIGGER busy ON balances");
  passes(
      "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; "
      "END'; CREATE TRIGGER full_ BEFORE INSERT OR UPDATE ON balances FOR EACH ROW EXECUTE "
      "FUNCTION full_()",  // 53100
      "DROP TRIGGER full_ ON balances");

  database.exec(
      "ALTER TABLE balances ADD CONSTRAINT theirs CHECK (bookings < 0) NOT VALID");  // 23514
  store.commit(bookings.transaction());
  Running worker(store, view);
  const auto stopped = worker.ended();
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(stopped.error().message().find("theirs") != std::string::npos);
  CHECK(must(status_of(view, store.context())).state == "failed");
  database.exec("ALTER TABLE balances DROP CONSTRAINT theirs");
  must(catch_up(store, view));
  CHECK(rows_in(database) == bookings.expected());
}

TEST_CASE("F108: a PostgreSQL that comes back as it was is brought up to date again",
          "[sink][mirror]") {
  PostgresServer server;
  server.create_database("views");
  ShopStore store;
  Bookings bookings(7);
  const auto view = balances(postgres_table({.server = server.uri("views")}));
  for (int round = 0; round < 5; ++round) {
    store.commit(bookings.transaction());
    must(catch_up(store, view));
    server.exec("postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'views'");
    server.exec("postgres", "CREATE DATABASE kept TEMPLATE views");
    // At the third one more is lost than is remembered: everything is compared.
    for (int i = 0; i < 5; ++i) store.commit(bookings.transaction());
    must(catch_up(store, view));
    server.drop_database("views");
    server.exec("postgres", "ALTER DATABASE kept RENAME TO views");
    if (round == 3) {
      const auto file =
          must(sqlite::Database::open(store.views() / "balances.db", sqlite::Mode::kLive));
      must(
          file->execute("DELETE FROM millrace_sink_commits WHERE number < (SELECT max(number) FROM "
                        "millrace_sink_commits)"));
    }
    store.commit(bookings.transaction());
    must(catch_up(store, view));
    CHECK(rows_in(server, "views") == bookings.expected());
    CHECK(is_equal(store, view));
  }
  server.drop_database("views");
  server.create_database("views");
  must(catch_up(store, view));
  CHECK(rows_in(server, "views") == bookings.expected());
}

TEST_CASE("F109: a Redis that forgets is written again", "[sink][mirror]") {
  ShopStore store;
  Bookings bookings(8);
  RedisServer redis;  // keeps nothing over a restart
  const auto view = balances(redis_hashes({.server = redis.url()}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  Running worker(store, view);
  for (int round = 0; round < 10; ++round) {
    store.commit(bookings.transaction());
    if (round % 2 == 0) {
      redis.kill();
      store.commit(bookings.transaction());
      redis.start();
    } else {
      redis.run({"FLUSHALL"});
    }
    store.commit(bookings.transaction());
    CHECK(comes_true([&] { return rows_in(redis) == bookings.expected(); }));
  }
  CHECK(worker.stop());
  CHECK(is_equal(store, view));
}

TEST_CASE("F109: a Redis that keeps a file goes on from there after a kill", "[sink][mirror]") {
  ShopStore store;
  Bookings bookings(9);
  RedisServer redis({"--appendonly", "yes", "--appendfsync", "everysec"});
  const auto view = balances(redis_hashes({.server = redis.url()}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  Running worker(store, view);
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 20; ++i) store.commit(bookings.transaction());
    redis.kill();
    store.commit(bookings.transaction());
    redis.start();
    CHECK(comes_true([&] { return rows_in(redis) == bookings.expected(); }));
  }
}

TEST_CASE("F110: a Redis that may evict keys is refused", "[sink][mirror]") {
  ShopStore store;
  Bookings bookings(10);
  store.commit(bookings.transaction());
  for (const char* policy : {"allkeys-lru", "volatile-ttl", "allkeys-random"}) {
    RedisServer redis({"--maxmemory-policy", policy});
    const auto view = balances(redis_hashes({.server = redis.url()}));
    const auto refused = catch_up(store, view);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message().find(policy) != std::string::npos);
    CHECK(redis.run({"DBSIZE"}) == "0");
  }
}

TEST_CASE("F111: what Redis refuses for now is tried again", "[sink][mirror]") {
  ShopStore store;
  Bookings bookings(11);
  RedisServer redis;
  const auto view = balances(redis_hashes({.server = redis.url()}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  Running worker(store, view);
  const auto passes = [&](const std::vector<std::string>& begin,
                          const std::vector<std::string>& end) {
    INFO(begin[0] << " " << begin[1]);
    redis.run(begin);
    store.commit(bookings.transaction());
    CHECK(comes_true([&] {
      const auto status = must(status_of(view, store.context()));
      return status.sink && !status.sink->failure.empty();
    }));
    redis.run(end);
    CHECK(comes_true([&] { return rows_in(redis) == bookings.expected(); }));
  };
  passes({"CONFIG", "SET", "maxmemory", "1"}, {"CONFIG", "SET", "maxmemory", "0"});  // OOM
  passes({"REPLICAOF", "127.0.0.1", "1"}, {"REPLICAOF", "NO", "ONE"});               // READONLY
  passes({"CONFIG", "SET", "min-replicas-to-write", "1"},
         {"CONFIG", "SET", "min-replicas-to-write", "0"});  // NOREPLICAS
}

TEST_CASE("F111: a worker ends soon, though its sink does not answer", "[sink][mirror]") {
  ShopStore store;
  Bookings bookings(19);
  RedisServer redis;
  const auto view = balances(redis_hashes({.server = redis.url()}));
  store.commit(bookings.transaction());
  must(catch_up(store, view));
  Running worker(store, view);
  CHECK(comes_true([&] { return redis.run({"HGET", "millrace.view.balances", "writer"}) != ""; }));
  ::kill(redis.pid(), SIGSTOP);
  store.commit(bookings.transaction());
  CHECK(comes_true([&] { return has_folded(store, "balances", store.end()); }));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(worker.stop());
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  ::kill(redis.pid(), SIGCONT);
  must(catch_up(store, view));
  CHECK(rows_in(redis) == bookings.expected());
}

TEST_CASE("F112: of two workers for one place the first one ends", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(12);
  store.commit(bookings.transaction());
  for (const auto& kind :
       {postgres_table({.server = database.uri()}), redis_hashes({.server = redis.url()})}) {
    const auto view = balances(kind);
    const std::filesystem::path folder = store.views().string() + "-first";
    std::filesystem::remove_all(folder);
    std::filesystem::remove_all(store.views());
    Running first(store, view, folder);
    REQUIRE(comes_true([&] { return std::filesystem::exists(folder / "balances.sink.json"); }));
    Running second(store, view);
    REQUIRE(
        comes_true([&] { return std::filesystem::exists(store.views() / "balances.sink.json"); }));
    for (int i = 0; i < 10; ++i) store.commit(bookings.transaction());
    const auto ended = first.ended();
    REQUIRE_FALSE(ended);
    CHECK(ended.error().message().find("FENCED") != std::string::npos);
    CHECK(must(wait_until_folded({store.directory(), store.views(), "balances"}, {},
                                 std::chrono::seconds(30))));
    CHECK(second.stop());
    CHECK(is_equal(store, view));
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
    Running worker(store, first);
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

TEST_CASE("F109: an idle sink that has lost something is written again", "[sink][mirror]") {
  TestDatabase database;
  RedisServer redis;
  ShopStore store;
  Bookings bookings(20);
  store.commit(bookings.transaction());
  const auto in_redis = balances(redis_hashes({.server = redis.url()}), "hashes");
  const auto in_postgres = balances(postgres_table({.server = database.uri()}));
  must(catch_up(store, in_redis));
  must(catch_up(store, in_postgres));
  Running hashes(store, in_redis), postgres(store, in_postgres);
  CHECK(comes_true([&] { return redis.run({"HGET", "millrace.view.hashes", "writer"}) != ""; }));
  redis.run({"FLUSHALL"});
  CHECK(comes_true([&] { return rows_in(redis, "hashes") == bookings.expected(); }));
  database.exec("DROP TABLE balances");
  CHECK(comes_true([&] {
    return database.value("SELECT to_regclass('balances')") != "" &&
           rows_in(database) == bookings.expected();
  }));
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
  Running worker(store, view);
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
  Running worker(store, view);
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
