#include <cstdlib>

#include "bench/bench.h"
#include "bench/process.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::bench {

/// One huge transaction. Once only, whatever the number of rounds: a peak has no median, and ten
/// million rows take their time.
std::vector<Figure> run_memory(const Settings& settings) {
  const char* given = std::getenv("MILLRACE_BENCH_MEMORY_ROWS");
  const double rows = given != nullptr ? std::atof(given) : settings.tiny ? 20'000 : 10'000'000;
  test::PostgresServer server(
      {.settings = {{"shared_buffers", "256MB"},
                    {"max_wal_size", "8GB"},
                    {"checkpoint_timeout", "30min"},
                    {"logical_decoding_work_mem", settings.tiny ? "64kB" : "64MB"}}});
  server.create_database("one");
  server.exec("one",
              "CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text, total "
              "numeric(12,2), note text, created_at timestamptz, paid boolean)");
  const auto drain = [&] {
    return run_measured({settings.program, "capture", "run", "--source", server.uri("one"),
                         "--store", (settings.directory / "memory.store").string(), "--snapshot",
                         "never", "--until-caught-up", "--log-level", "warn"});
  };
  drain();
  server.exec("one",
              "INSERT INTO orders SELECT g, g % 997, 'shipped', g * 1.25, 'note number ' || "
              "g, now(), g % 2 = 0 FROM generate_series(1, " +
                  std::to_string(static_cast<long>(rows)) + ") g");
  const ProcessCost cost = drain();
  if (server.value("one", "SELECT stream_txns > 0 FROM pg_stat_replication_slots") != "t")
    give_up("the server did not stream the transaction while it decoded it");
  Figure memory{.name = "memory one transaction",
                .unit = "MiB",
                .limit = {},
                .at_most = true,
                .goal_of_ours = 96,
                .ours = {cost.peak_mebibytes}};
  Figure speed{.name = "speed one transaction",
               .unit = "rows/s",
               .limit = {},
               .ours = {rows / cost.seconds}};
  return {std::move(memory), std::move(speed)};
}

}  // namespace millrace::bench
