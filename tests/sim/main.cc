#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/sim/campaign.h"
#include "tests/sim/simulation.h"

// The simulation of the store; scripts/sim builds and runs it, docs/HACKING.md tells how to use it.

namespace {

using namespace millrace::sim;

constexpr std::string_view kUsage =
    "usage: sim [--seeds N] [--from K] [--jobs N] [--probes]   many seeds (20000), from K (1)\n"
    "       sim --seed N [--verbose]                           one seed\n"
    "       sim --trace FILE [--verbose]                       the steps in a file\n"
    "--no-shrink says which seed failed and leaves it at that.\n"
    "Probes are checked when there are at least 20000 seeds, with --probes always.\n";
constexpr std::uint64_t kSeeds = 20'000;
constexpr int kShrinkSeconds = 60;

struct CommandLine {
  std::uint64_t seeds = kSeeds, from = 1;
  std::optional<std::uint64_t> seed;
  std::string trace;
  unsigned jobs = std::max(1u, std::thread::hardware_concurrency());
  bool is_verbose = false, wants_probes = false, shrinks = true;
};

[[noreturn]] void fail_usage() {
  std::fputs(kUsage.data(), stderr);
  std::exit(2);
}

CommandLine parse(int argc, char** argv) {
  CommandLine arguments;
  if (const char* seeds = std::getenv("MILLRACE_SIM_SEEDS")) arguments.seeds = std::stoull(seeds);
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const auto number = [&]() -> std::uint64_t {
      if (++i >= argc) fail_usage();
      char* end = nullptr;
      const std::uint64_t value = std::strtoull(argv[i], &end, 10);
      if (*argv[i] == '\0' || *end != '\0') fail_usage();
      return value;
    };
    if (name == "--seeds")
      arguments.seeds = number();
    else if (name == "--from")
      arguments.from = number();
    else if (name == "--seed")
      arguments.seed = number();
    else if (name == "--jobs")
      arguments.jobs = static_cast<unsigned>(std::max<std::uint64_t>(1, number()));
    else if (name == "--trace" && i + 1 < argc)
      arguments.trace = argv[++i];
    else if (name == "--verbose")
      arguments.is_verbose = true;
    else if (name == "--no-shrink")
      arguments.shrinks = false;
    else if (name == "--probes")
      arguments.wants_probes = true;
    else
      fail_usage();
  }
  return arguments;
}

std::string git_commit() {
  char line[80] = {};
  std::FILE* git = ::popen("git -C '" MILLRACE_SOURCE_DIR "' rev-parse --short HEAD 2>&-", "r");
  if (git == nullptr) return "unknown";
  if (std::fgets(line, sizeof line, git) == nullptr) std::strcpy(line, "unknown");
  ::pclose(git);
  line[std::strcspn(line, "\n")] = '\0';
  return line;
}

/// Tells what failed, shrinks it and says how to see it again.
int report(const Trace& trace, const Outcome& outcome, const std::string& name) {
  std::printf("%s fails: %s\ncommit %s, %zu steps; shrinking ...\n", name.c_str(),
              outcome.message.c_str(), git_commit().c_str(), trace.size());
  std::fflush(stdout);
  if (!run_in_child(trace).failed) {
    std::printf("it does not fail again alone: something in it depends on time\n");
    return 1;
  }
  const Trace smallest = shrink(trace, outcome.checker, kShrinkSeconds);
  const Outcome last = run_in_child(smallest);
  const std::string text = to_text(smallest);
  std::string file = std::filesystem::temp_directory_path() / "millrace-sim-";
  file += std::to_string(::getpid()) + ".trace";
  std::ofstream(file) << "# " << last.message << "\n" << text;
  std::printf("%zu steps are left:\n%s-> %s\nsee it again with: scripts/sim --trace %s --verbose\n",
              smallest.size(), text.c_str(), last.message.c_str(), file.c_str());
  return 1;
}

int run_one(const Trace& trace, const std::string& name, bool is_verbose) {
  if (is_verbose) {  // in this process, so that a debugger sees it
    try {
      Simulation simulation;
      simulation.is_verbose = true;
      simulation.run(trace);
    } catch (const CheckFailed& failure) {
      std::printf("%s fails: %s\n", name.c_str(), failure.what());
      return 1;
    }
    std::printf("%s: fine\n", name.c_str());
    return 0;
  }
  const Outcome outcome = run_in_child(trace);
  if (outcome.failed) return report(trace, outcome, name);
  std::printf("%s: fine, %016llx\n", name.c_str(), static_cast<unsigned long long>(outcome.hash));
  return 0;
}

int run_many(const CommandLine& arguments) {
  const bool is_terminal = ::isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const CampaignResult result =
      run_campaign({.from = arguments.from,
                    .seeds = arguments.seeds,
                    .jobs = arguments.jobs,
                    .progress = [&](std::uint64_t done) {
                      if (is_terminal)
                        std::fprintf(stderr, "\r%llu of %llu seeds, %.0f s ",
                                     static_cast<unsigned long long>(done),
                                     static_cast<unsigned long long>(arguments.seeds), seconds());
                    }});
  if (is_terminal) std::fputc('\n', stderr);
  if (result.outcome.failed && !arguments.shrinks) {
    std::printf("seed %llu fails: %s\n", static_cast<unsigned long long>(result.failed_seed),
                result.outcome.message.c_str());
    return 1;
  }
  if (result.outcome.failed)
    return report(trace_of(result.failed_seed), result.outcome,
                  "seed " + std::to_string(result.failed_seed));
  std::printf("%llu seeds from %llu on are fine, %.1f s\n",
              static_cast<unsigned long long>(result.done),
              static_cast<unsigned long long>(arguments.from), seconds());
  bool is_missing = false;
  for (std::size_t i = 0; i < kProbes; ++i) {
    const auto name = name_of(static_cast<Probe>(i));
    std::printf("%12llu  %.*s\n", static_cast<unsigned long long>(result.probes[i]),
                static_cast<int>(name.size()), name.data());
    is_missing = is_missing || result.probes[i] == 0;
  }
  if (!is_missing || (arguments.seeds < kSeeds && !arguments.wants_probes)) return 0;
  std::printf("what was never hit is not proven\n");
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const CommandLine arguments = parse(argc, argv);
  if (arguments.seed)
    return run_one(trace_of(*arguments.seed), "seed " + std::to_string(*arguments.seed),
                   arguments.is_verbose);
  if (arguments.trace.empty()) return run_many(arguments);
  std::ifstream file(arguments.trace);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto trace = parse_trace(text);
  if (!file || !trace) {
    std::fprintf(stderr, "%s: %s\n", arguments.trace.c_str(),
                 trace ? "can't be read" : trace.error().to_string().c_str());
    return 2;
  }
  return run_one(*trace, arguments.trace, arguments.is_verbose);
}
