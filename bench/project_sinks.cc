#include <libpq-fe.h>

#include "bench/view_bench.h"
#include "sinks/postgres_table.h"
#include "sinks/redis_keys.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/redis_fixture.h"

namespace millrace::bench {
namespace {

using test::PostgresServer;
using test::RedisServer;

constexpr int kRowsPerTransaction = 20'000;  // WorkerOptions::events_per_commit

CacheTable orders_view(std::shared_ptr<const SinkKind> sink) {
  return CacheTable("orders", Version{1},
                    {.key = integer("id"),
                     .columns = {integer("customer_id"), text("status"), text("total"),
                                 text("note"), integer("created_at"), integer("paid")},
                     .sink = std::move(sink)})
      .on<Orders>("public.orders", copy_order);
}

/// The limit: the same upserts, a statement each, in libpq's pipeline mode.
class BarePipeline {
 public:
  explicit BarePipeline(const std::string& uri) : connection_(PQconnectdb(uri.c_str()), &PQfinish) {
    check(PQexec(connection_.get(),
                 "CREATE TABLE bare(id bigint PRIMARY KEY, customer_id "
                 "bigint, status text, total text, note text, created_at bigint, paid bigint)"));
    check(
        PQprepare(connection_.get(), "put",
                  "INSERT INTO bare VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE "
                  "SET customer_id = EXCLUDED.customer_id, status = EXCLUDED.status, total = "
                  "EXCLUDED.total, note = EXCLUDED.note, created_at = EXCLUDED.created_at, paid = "
                  "EXCLUDED.paid",
                  7, nullptr));
  }

  double write(const std::vector<Order>& orders) {
    const Stopwatch watch;
    int in_transaction = 0;
    for (const Order& order : orders) {
      if (in_transaction == 0) {
        check(PQexec(connection_.get(), "BEGIN"));
        PQenterPipelineMode(connection_.get());
      }
      const std::string id = std::to_string(order.id), customer = std::to_string(order.customer_id),
                        created = std::to_string(order.created_micros);
      const char* const values[] = {
          id.c_str(),         customer.c_str(), order.status.c_str(),  order.total.c_str(),
          order.note.c_str(), created.c_str(),  order.paid ? "1" : "0"};
      PQsendQueryPrepared(connection_.get(), "put", 7, values, nullptr, nullptr, 0);
      ++in_transaction;
      // Both sides must not wait for each other with full buffers.
      if (in_transaction % 500 == 0) drain();
      if (in_transaction < kRowsPerTransaction) continue;
      finish();
      in_transaction = 0;
    }
    if (in_transaction > 0) finish();
    return watch.seconds();
  }

 private:
  void check(PGresult* result) {
    const auto status = PQresultStatus(result);
    PQclear(result);
    if (status != PGRES_COMMAND_OK) give_up(PQerrorMessage(connection_.get()));
  }
  void drain() {
    PQpipelineSync(connection_.get());
    for (;;) {
      PGresult* result = PQgetResult(connection_.get());
      if (result == nullptr) continue;  // between two statements
      const auto status = PQresultStatus(result);
      PQclear(result);
      if (status == PGRES_PIPELINE_SYNC) return;
      if (status != PGRES_COMMAND_OK) give_up(PQerrorMessage(connection_.get()));
    }
  }
  void finish() {
    drain();
    PQexitPipelineMode(connection_.get());
    check(PQexec(connection_.get(), "COMMIT"));
  }

  std::unique_ptr<PGconn, decltype(&PQfinish)> connection_;
};

/// Commands a second.
double redis_benchmark(const RedisServer& redis, int count,
                       const std::vector<std::string>& command) {
  std::vector<std::string> words = {
      "redis-benchmark",     "-s", redis.socket(),        "-P",   "64", "-n",
      std::to_string(count), "-r", std::to_string(count), "--csv"};
  words.insert(words.end(), command.begin(), command.end());
  const auto done = test::run_command(words, {}, {}, std::chrono::minutes(10));
  const std::size_t line = done.out.rfind("\n\"", done.out.size() - 2);
  const std::size_t figure = done.out.find("\",\"", line);
  if (done.exit_code != 0 || figure == std::string::npos)
    give_up("redis-benchmark: " + done.err + done.out);
  return std::stod(done.out.substr(figure + 3));
}

/// What redis-benchmark reaches with the same two commands a row.
double bare_redis_rows(const RedisServer& redis, int count) {
  const double removed = redis_benchmark(redis, count, {"DEL", "bare:__rand_int__"});
  const double written =
      redis_benchmark(redis, count,
                      {"HSET", "bare:__rand_int__", "id", "__rand_int__", "customer_id",
                       "__rand_int__", "status", "shipped", "total", "__rand_int__", "note",
                       "note number __rand_int__", "created_at", "820638245000006", "paid", "1"});
  return 1 / (1 / removed + 1 / written);
}

}  // namespace

std::vector<Figure> run_project_sinks(const Settings& settings) {
  const auto orders = make_orders(settings.tiny ? 5'000 : 500'000);
  const auto count = static_cast<double>(orders.size());
  // fsync and all else as a server has it by itself.
  PostgresServer postgres(
      {.settings = {{"fsync", "on"}, {"shared_buffers", "512MB"}, {"max_wal_size", "4GB"}}});
  postgres.create_database("views");
  RedisServer redis;
  const Path store = settings.directory / "sinks.store";
  { Filler none(store, orders_relation()); }
  App to_postgres("bench"), to_redis("bench");
  to_postgres.add(orders_view(postgres_table({.server = postgres.uri("views")})));
  to_redis.add(orders_view(redis_hashes({.server = redis.url()})));
  LivePath postgres_path(to_postgres, store, settings.directory / "sinks.postgres"),
      redis_path(to_redis, store, settings.directory / "sinks.redis");
  {
    Filler filler(store, orders_relation());
    for (const Order& order : orders) filler.insert(fields_of(order));
  }
  Figure in_postgres{
      .name = "project_postgres", .unit = "rows/s", .limit = "bare libpq pipeline", .goal = 0.7},
      in_redis{
          .name = "project_redis", .unit = "rows/s", .limit = "redis-benchmark -P 64", .goal = 0.7};
  for (int round = 0; round < settings.rounds; ++round) {
    postgres.exec("views", "DROP TABLE IF EXISTS orders; DROP TABLE IF EXISTS millrace_views");
    in_postgres.ours.push_back(count / postgres_path.run());
    postgres.exec("views", "DROP TABLE orders; DROP TABLE millrace_views");
    in_postgres.limits.push_back(count / BarePipeline(postgres.uri("views")).write(orders));
    postgres.exec("views", "DROP TABLE bare");
    redis.run({"FLUSHALL"});
    in_redis.ours.push_back(count / redis_path.run());
    redis.run({"FLUSHALL"});
    in_redis.limits.push_back(bare_redis_rows(redis, static_cast<int>(orders.size())));
    redis.run({"FLUSHALL"});
    stop_if_asked();
  }
  return {in_postgres, in_redis};
}

}  // namespace millrace::bench
