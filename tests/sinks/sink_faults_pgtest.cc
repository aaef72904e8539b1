#include <sys/socket.h>

#include <csignal>
#include <future>

#include "projections/wait.h"
#include "tests/sinks/sink_scene.h"
#include "tests/support/cut_link.h"
#include "tests/support/loopback.h"

// Sinks whose server is cut off, refuses, forgets, or has another writer.

namespace millrace::projections::test {

using millrace::test::CutLink;

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
    Running worker(store, view, impatient());
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
  Running worker(store, view, impatient());
  const auto stopped = worker.ended();
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(stopped.error().message().find("theirs") != std::string::npos);
  CHECK(must(status_of(view, store.context())).state == "failed");
  database.exec("ALTER TABLE balances DROP CONSTRAINT theirs");
  must(catch_up(store, view));
  CHECK(rows_in(database) == bookings.expected());

  // The user is told what to do, and it is all there is to do.
  for (const char* harm : {"ALTER TABLE balances DROP COLUMN bookings", "DROP TABLE balances"}) {
    INFO(harm);
    store.commit(bookings.transaction());
    Running under_way(store, view, impatient());
    CHECK(comes_true([&] { return rows_in(database) == bookings.expected(); }));
    database.exec(harm);
    store.commit(bookings.transaction());
    const auto harmed = under_way.ended();
    REQUIRE_FALSE(harmed);
    CHECK(harmed.error().hint().find("drop what is left of it") != std::string::npos);
    database.exec("DROP TABLE IF EXISTS balances");
    must(catch_up(store, view));
    CHECK(rows_in(database) == bookings.expected());
  }
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
  Running worker(store, view, impatient());
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
  Running worker(store, view, impatient());
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
  Running worker(store, view, impatient());
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
  Running worker(store, view, impatient());
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

/// Whether open() of a sink in a server that takes connections and stops answering ends soon once
/// it is interrupted. `serve` says where it stops, which it tells first.
bool ends_when_interrupted(const std::function<std::unique_ptr<Sink>(int port)>& make,
                           const std::function<void(int socket, std::promise<void>&)>& serve) {
  std::promise<void> silent;
  const millrace::test::FakeServer server([&](int socket) { serve(socket, silent); });
  const auto sink = make(server.port());
  auto opened = std::async(std::launch::async, [&] { return sink->open({"writer", "5f0e"}); });
  const bool is_silent =
      silent.get_future().wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  const auto begin = std::chrono::steady_clock::now();
  sink->interrupt();
  const auto result = opened.get();
  return is_silent && !result && result.error().code() == ErrorCode::kUnavailable &&
         std::chrono::steady_clock::now() - begin < std::chrono::seconds(20);
}

TEST_CASE("F111: a program ends soon, though a Redis does not even answer who it is",
          "[sink][mirror]") {
  const SinkShape shape{"balances", integer("id"), {integer("cents")}, {}};
  const auto serve = [](int socket, std::promise<void>& silent) {
    std::string heard(1, ' ');
    if (::recv(socket, heard.data(), 1, 0) == 1) silent.set_value();
    millrace::test::ClientReader(socket).drain();
  };
  for (const char* address : {"redis://:secret@127.0.0.1:", "redis://127.0.0.1:"}) {
    INFO(address);
    const bool has_password = std::string_view(address).find('@') != std::string_view::npos;
    const auto make = [&](int port) {
      const std::string server =
          address + std::to_string(port) + (has_password ? std::string() : "/2");
      return redis_hashes({.server = server})->make(shape);
    };
    CHECK(ends_when_interrupted(make, serve));
  }
}

TEST_CASE("F106: a program ends soon, though PostgreSQL says no more once it is connected",
          "[sink][mirror]") {
  const SinkShape shape{"balances", integer("id"), {integer("cents")}, {}};
  const auto serve = [](int socket, std::promise<void>& silent) {
    millrace::test::ClientReader client(socket);
    client.startup();
    millrace::test::send_all(socket, millrace::test::backend::welcome());
    if (client.message()) silent.set_value();
    client.drain();
  };
  const auto make = [&](int port) {
    return postgres_table({.server = "postgresql://me@127.0.0.1:" + std::to_string(port) +
                                     "/views?sslmode=disable&gssencmode=disable"})
        ->make(shape);
  };
  CHECK(ends_when_interrupted(make, serve));
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
    Running first(store, view, impatient(), folder);
    REQUIRE(comes_true([&] { return std::filesystem::exists(folder / "balances.sink.json"); }));
    Running second(store, view, impatient());
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
  Running hashes(store, in_redis, impatient()), postgres(store, in_postgres, impatient());
  CHECK(comes_true([&] { return redis.run({"HGET", "millrace.view.hashes", "writer"}) != ""; }));
  redis.run({"FLUSHALL"});
  CHECK(comes_true([&] { return rows_in(redis, "hashes") == bookings.expected(); }));
  database.exec("DROP TABLE balances");
  CHECK(comes_true([&] {
    return database.value("SELECT to_regclass('balances')") != "" &&
           rows_in(database) == bookings.expected();
  }));
}

}  // namespace millrace::projections::test
