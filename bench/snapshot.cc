#include <libpq-fe.h>

#include <memory>

#include "bench/bench.h"
#include "bench/process.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {
namespace {

namespace fs = std::filesystem;

/// One COPY of the table in binary over one connection, read by a loop that throws it away.
double copy_away(const std::string& uri, const std::string& table) {
  const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(PQconnectdb(uri.c_str()), PQfinish);
  const Stopwatch watch;
  const std::unique_ptr<PGresult, decltype(&PQclear)> started(
      PQexec(connection.get(), ("COPY " + table + " TO STDOUT (FORMAT binary)").c_str()), PQclear);
  if (PQresultStatus(started.get()) != PGRES_COPY_OUT) give_up(PQerrorMessage(connection.get()));
  char* row = nullptr;
  while (PQgetCopyData(connection.get(), &row, 0) > 0) PQfreemem(row);
  return watch.seconds();
}

}  // namespace

std::vector<Figure> run_snapshot(const Settings& settings) {
  test::PostgresServer server({.settings = {{"fsync", "on"},
                                            {"shared_buffers", "512MB"},
                                            {"max_wal_size", "8GB"},
                                            {"checkpoint_timeout", "30min"},
                                            {"autovacuum", "off"}}});
  const char* given = std::getenv("MILLRACE_BENCH_SNAPSHOT_ROWS");
  const double rows = settings.tiny ? 20'000 : given != nullptr ? std::stod(given) : 10'000'000;
  server.create_database("shop");
  server.exec("shop",
              "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text, total "
              "numeric(12,2), note text, created_at timestamptz, paid boolean)");
  server.exec("shop",
              "INSERT INTO orders SELECT g, g % 997, 'shipped', g * 1.25, 'note number ' "
              "|| g, now(), g % 2 = 0 FROM generate_series(1, " +
                  std::to_string(static_cast<long>(rows)) + ") g");
  server.exec("shop", "VACUUM (FREEZE, ANALYZE) orders");

  std::vector<Figure> figures;
  for (const int workers : {1, 2}) {
    figures.push_back({.name = "snapshot on " + std::to_string(workers) +
                               (workers == 1 ? " connection" : " connections, of each"),
                       .unit = "rows/s",
                       .limit = "COPY binary",
                       .goal = 0.8});
  }
  figures.push_back(
      {.name = "memory snapshot", .unit = "MiB", .limit = "bound", .goal = 1, .at_most = true});
  const fs::path store = settings.directory / "snapshot.store";
  const auto ours = [&](int workers) {
    const ProcessCost cost =
        run_measured({settings.program, "capture", "run", "--source", server.uri("shop"), "--store",
                      store.string(), "--snapshot-workers", std::to_string(workers),
                      "--until-caught-up", "--log-level", "warn"});
    server.exec("shop", "SELECT pg_drop_replication_slot('millrace')");
    server.exec("shop", "DROP PUBLICATION millrace");
    fs::remove_all(store);
    return cost;
  };
  for (int round = 0; round < settings.rounds; ++round) {
    const double limit = rows / copy_away(server.uri("shop"), "orders");
    for (const int workers : {1, 2}) {
      const ProcessCost cost = ours(workers);
      Figure& figure = figures[static_cast<std::size_t>(workers) - 1];
      figure.ours.push_back(rows / cost.seconds / workers);
      figure.limits.push_back(limit);
      if (workers == 2) {
        figures[2].ours.push_back(cost.peak_mebibytes);
        figures[2].limits.push_back(96);
      }
    }
  }
  return figures;
}

}  // namespace millrace::bench
