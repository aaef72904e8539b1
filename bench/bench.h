#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/stop_signals.h"

namespace millrace::bench {

/// One figure of one workload: what we reach, and the limit that was measured beside it in the same
/// rounds.
struct Figure {
  std::string name;         ///< "stream W1"
  std::string unit;         ///< "changes/s"
  std::string limit;        ///< What the limit is: "pg_recvlogical".
  double goal = 0;          ///< For the ratio ours/limit; 0: none, the figure is for information.
  bool at_most = false;     ///< The ratio must stay below the goal (latencies, memory), not above.
  double goal_of_ours = 0;  ///< For our figure itself, in the same sense; 0: none.
  std::vector<double> ours = {}, limits = {};  ///< One a round.
};

struct Settings {
  int rounds = 5;
  bool tiny = false;  ///< Small enough for a test run: shows that the workload works, says nothing
                      ///< of speed.
  std::filesystem::path directory;  ///< For scratch files; on the disk that is to be measured.
  std::string program;              ///< The millrace program.
};

struct Workload {
  std::string name;
  std::string about;
  std::function<std::vector<Figure>(const Settings&)> run;
};

/// Every workload, in the order of the report. Each is in the file of its name.
std::vector<Workload> workloads();
std::vector<Figure> run_append(const Settings& settings);
std::vector<Figure> run_append_callers(const Settings& settings);
std::vector<Figure> run_scan(const Settings& settings);
std::vector<Figure> run_scan_category(const Settings& settings);
std::vector<Figure> run_open(const Settings& settings);
std::vector<Figure> run_compact(const Settings& settings);
std::vector<Figure> run_streams(const Settings& settings);
std::vector<Figure> run_encode(const Settings& settings);
std::vector<Figure> run_stream(const Settings& settings);
std::vector<Figure> run_catchup(const Settings& settings);
std::vector<Figure> run_memory(const Settings& settings);
std::vector<Figure> run_snapshot(const Settings& settings);
std::vector<Figure> run_latency(const Settings& settings);
std::vector<Figure> run_visible(const Settings& settings);
std::vector<Figure> run_project_table(const Settings& settings);
std::vector<Figure> run_rebuild_table(const Settings& settings);
std::vector<Figure> run_project_search(const Settings& settings);
std::vector<Figure> run_project_sinks(const Settings& settings);
std::vector<Figure> run_join_update(const Settings& settings);
std::vector<Figure> run_min_max(const Settings& settings);
std::vector<Figure> run_rebuild_keys(const Settings& settings);

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

double median(std::vector<double> values);
/// Nearest-rank percentile, 0 < share <= 1.
double percentile(std::vector<double> values, double share);

/// Ends the bench with what failed, as an exception that main() reports: a bench that goes on after
/// an error measures nothing.
[[noreturn]] void give_up(const std::string& what);

/// SIGINT and SIGTERM from the start of the program on.
const StopSignals& stop_signals();
/// Gives up once such a signal has come. Workloads with long loops call it, or must(), in them.
void stop_if_asked();

template <typename T>
T must(Result<T> result) {
  stop_if_asked();
  if (!result) give_up(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

}  // namespace millrace::bench
