// millrace_bench [--rounds N] [--tiny] [--json] [workload ...]
//
// Runs each workload and the limit that it is held against in turn, several rounds of both, and
// prints the median of each and the median of the ratios, pair by pair: absolute figures move from
// machine to machine. Scratch files are in MILLRACE_BENCH_DIR, else in /tmp, and go with the
// program, also when it fails or is interrupted.
//
//   append          150-byte events, group commit, against raw writes of the same sizes and syncs
//   append_callers  64 threads that append and wait, one that does, mode os; NATS JetStream beside
//   it scan            all events of a store on one core, against reading and hashing its files
//   scan_category   the events of one of a hundred categories, against scanning all
//   open            opening a store of 10 GiB (MILLRACE_BENCH_OPEN_GIB) against one of 1 GiB
//   compact         a store of which three quarters go, alone and with a reader beside it
//   streams         reading a stream of 20 events among 1,000,000 streams, and appending to a
//   stream
//                   with the version it is at, against without
//   stream          a backlog of W1 and W2 through `capture run` over a socket and TCP, against
//                   pg_recvlogical into /dev/null over the same; also peak memory, CPU, and bytes
//                   on disk against those sent
//   catchup         the same backlogs with --catch-up-from, against the same
//   encode          one row of W1's types from pgoutput's bytes to the event, binary against text
//   memory          peak memory of `capture run` for one transaction of 10,000,000 rows
//                   (MILLRACE_BENCH_MEMORY_ROWS), which the server streams while it decodes it
//   snapshot        the first start's rows of a table of 10,000,000 (MILLRACE_BENCH_SNAPSHOT_ROWS),
//                   per connection, against one COPY in binary that is thrown away
//   latency         commit to durable at 2,000 transactions/s, against pg_recvlogical's output
//   visible         commit to visible in a view's SQLite file at 1,000 transactions/s, against the
//                   same commits durable in the store
//   project_table   a worker that folds events into a SQLite cache table, against a bare SQLite
//                   loop that writes the same rows with its settings, as many in a commit
//   project_search  the same into a SQLite FTS5 index
//   rebuild_table   a rebuild of that table, against a bare loop with a rebuild's settings
//   rebuild_keys    a rebuild of a declared table from 10,000,000 events on 1,000,000 keys, against
//   a
//                   bare loop that applies every event as an upsert; and of an aggregation
//   project_sinks   a worker and its sinks: PostgreSQL against a bare libpq pipeline of the same
//                   upserts, Redis against redis-benchmark -P 64 with the same DEL and HSET
//   join_update     fold time of one update of a join of two tables of 1,000,000 rows each
//   min_max         min and max whose values are deleted and inserted, against sum and count
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "bench/bench.h"
#include "tests/support/temporary_directory.h"

namespace millrace::bench {

std::vector<Workload> workloads() {
  return {{"append", "150-byte events, group commit", run_append},
          {"append_callers", "many threads that append and wait", run_append_callers},
          {"scan", "all events of a store", run_scan},
          {"scan_category", "the events of one category", run_scan_category},
          {"open", "opening a large store", run_open},
          {"compact", "three quarters of a store that are superseded, and a reader beside",
           run_compact},
          {"streams", "one stream among a million, and appends to it", run_streams},
          {"encode", "a change's bytes into an event, text and binary", run_encode},
          {"stream", "a backlog through the replication protocol", run_stream},
          {"catchup", "a backlog by stretches of WAL", run_catchup},
          {"memory", "peak of capture for one transaction of ten million rows", run_memory},
          {"snapshot", "the rows that are there at the first start", run_snapshot},
          {"latency", "commit to durable", run_latency},
          {"visible", "commit to visible in a view", run_visible},
          {"project_table", "events into a cache table", run_project_table},
          {"project_search", "events into a search index", run_project_search},
          {"rebuild_table", "all events into a new cache table", run_rebuild_table},
          {"rebuild_keys", "ten events for each of a million keys", run_rebuild_keys},
          {"project_sinks", "events into PostgreSQL and Redis", run_project_sinks},
          {"join_update", "one row of a join of a million each", run_join_update},
          {"min_max", "aggregates of groups that lose rows", run_min_max}};
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) give_up("no values to take a percentile of");
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::max<std::size_t>(rank, 1) - 1];
}

double median(std::vector<double> values) { return percentile(std::move(values), 0.5); }

void give_up(const std::string& what) { throw std::runtime_error(what); }

const StopSignals& stop_signals() {
  static const StopSignals signals;
  return signals;
}

void stop_if_asked() {
  if (stop_signals().received() != 0) give_up("interrupted");
}

namespace {

/// A scratch folder that goes with its object; in MILLRACE_BENCH_DIR where it is given.
class Scratch {
 public:
  Scratch() {
    const char* base = std::getenv("MILLRACE_BENCH_DIR");
    path_ = test::make_temporary_directory("millrace-bench",
                                           base == nullptr ? test::temporary_root() : base);
    std::filesystem::permissions(path_, std::filesystem::perms(0755));
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<double> ratios(const Figure& figure) {
  std::vector<double> list;
  for (std::size_t i = 0; i < figure.ours.size() && i < figure.limits.size(); ++i)
    list.push_back(figure.ours[i] / figure.limits[i]);
  return list;
}

std::string number(double value) {
  char text[64];
  std::snprintf(text, sizeof text, value >= 1000 ? "%.0f" : "%.3g", value);
  return text;
}

std::string verdict(double goal, bool at_most, double value, const std::string& unit = "") {
  const bool reached = at_most ? value <= goal : value >= goal;
  return std::string("  goal ") + (at_most ? "<= " : ">= ") + number(goal) + unit +
         (reached ? ": reached" : ": MISSED");
}

void print_text(const Figure& figure) {
  const double ours = median(figure.ours);
  std::printf("%-22s %14s %-10s", figure.name.c_str(), number(ours).c_str(), figure.unit.c_str());
  const std::vector<double> all = ratios(figure);
  if (!all.empty()) {
    const double middle = median(all);
    std::printf("  %14s %-28s ratio %.2f (%.2f-%.2f)", number(median(figure.limits)).c_str(),
                figure.limit.c_str(), middle, *std::min_element(all.begin(), all.end()),
                *std::max_element(all.begin(), all.end()));
    if (figure.goal > 0) std::printf("%s", verdict(figure.goal, figure.at_most, middle).c_str());
  }
  if (figure.goal_of_ours > 0)
    std::printf("%s",
                verdict(figure.goal_of_ours, figure.at_most, ours, " " + figure.unit).c_str());
  std::printf("\n");
  std::fflush(stdout);
}

void print_json(const Figure& figure) {
  nlohmann::ordered_json json{{"name", figure.name}, {"unit", figure.unit}, {"ours", figure.ours}};
  if (!figure.limits.empty()) {
    json["limit"] = figure.limit;
    json["limits"] = figure.limits;
    json["ratio"] = median(ratios(figure));
  }
  if (figure.goal > 0)
    json["goal"] = figure.goal, json["goal_is"] = figure.at_most ? "at most" : "at least";
  if (figure.goal_of_ours > 0) json["goal_of_ours"] = figure.goal_of_ours;
  std::printf("%s\n", json.dump().c_str());
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> names;
  bool json = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--tiny")
      settings.tiny = true;
    else if (argument == "--json")
      json = true;
    else if (argument == "--rounds" && i + 1 < argc)
      settings.rounds = std::max(1, std::atoi(argv[++i]));
    else if (argument.starts_with("-"))
      give_up("unknown option " + argument +
              "; usage: millrace_bench [--rounds N] [--tiny] [--json] [workload ...]");
    else
      names.push_back(argument);
  }
  if (settings.tiny) settings.rounds = 1;
  std::vector<Workload> chosen = workloads();
  for (const std::string& name : names)
    if (std::none_of(chosen.begin(), chosen.end(),
                     [&](const Workload& w) { return w.name == name; }))
      give_up("no workload is called " + name);
  if (!names.empty())
    std::erase_if(chosen, [&](const Workload& w) {
      return std::find(names.begin(), names.end(), w.name) == names.end();
    });

  const Scratch scratch;
  settings.directory = scratch.path();
  settings.program = MILLRACE_PROGRAM;
  for (const Workload& workload : chosen) {
    stop_if_asked();
    for (const Figure& figure : workload.run(settings))
      json ? print_json(figure) : print_text(figure);
  }
  return 0;
}

}  // namespace
}  // namespace millrace::bench

// Every end but a second signal goes through here, and so past the destructors: of servers, of
// child processes, of the scratch folder.
int main(int argc, char** argv) {
  namespace bench = millrace::bench;
  bench::stop_signals();
  try {
    return bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
  }
  const int signal = bench::stop_signals().received();
  return signal == 0 ? 1 : 128 + signal;
}
