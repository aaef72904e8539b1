#include "bench/paced_load.h"

#include <fstream>

#include "base/clock.h"
#include "base/file.h"
#include "tests/support/process.h"

namespace millrace::bench {

PacedLoad::PacedLoad(const Settings& settings, test::PostgresServer& server,
                     const Options& options) {
  const Path script = settings.directory / (options.database + ".sql");
  std::ofstream(script) << options.script;
  thread_ = std::jthread(
      [this, argv = std::vector<std::string>{server.program("pgbench"), "-n", "-c",
                                             std::to_string(options.clients), "-t",
                                             std::to_string(options.transactions / options.clients),
                                             "-R", std::to_string(options.per_second), "-f",
                                             script.string(), server.uri(options.database)}] {
        failed_ = test::run_command(argv, {}, {}, std::chrono::minutes(2)).exit_code != 0;
      });
}

void wait_until_read(test::PostgresServer& server, const std::string& database,
                     const std::string& slot) {
  while (server.value(database, "SELECT active FROM pg_replication_slots WHERE slot_name = '" +
                                    slot + "'") != "t") {
    stop_if_asked();
    std::this_thread::yield();
  }
}

double micros_since(std::int64_t unix_micros) {
  return static_cast<double>(Clock::system().wall().value - unix_micros);
}

}  // namespace millrace::bench
