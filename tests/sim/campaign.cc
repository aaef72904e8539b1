#include "tests/sim/campaign.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>

#include "base/check.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kHang = 60s;
constexpr std::uint64_t kTwiceEvery = 100;

/// What a process tells its parent, whatever becomes of it.
struct Report {
  std::atomic<std::uint64_t> seed = 0;  // that it is at
  std::atomic<bool> failed = false;
  std::atomic<std::uint64_t> hash = 0;
  char checker[160] = {};
  char message[2000] = {};

  void fail(const std::string& which, const std::string& what) {
    std::strncpy(checker, which.c_str(), sizeof checker - 1);
    std::strncpy(message, what.c_str(), sizeof message - 1);
    failed = true;
  }
  Outcome outcome() const {
    return {.failed = failed, .checker = checker, .message = message, .hash = hash};
  }
};

constexpr std::size_t kJobsMax = 256;

struct Board {
  ProbeCounters probes{};
  std::atomic<std::uint64_t> next = 0, end = 0, done = 0;
  Report reports[kJobsMax];
};

class SharedBoard {
 public:
  SharedBoard()
      : memory_(::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)) {
    MILLRACE_CHECK(memory_ != MAP_FAILED);
    board_ = new (memory_) Board;
  }
  SharedBoard(const SharedBoard&) = delete;
  SharedBoard& operator=(const SharedBoard&) = delete;
  ~SharedBoard() { ::munmap(memory_, sizeof(Board)); }
  Board* operator->() { return board_; }

 private:
  void* memory_;
  Board* board_ = nullptr;
};

/// Gives the hash, or reports and gives nothing.
bool run_once(const Trace& trace, Report& report) {
  try {
    Simulation simulation;
    simulation.run(trace);
    report.hash = simulation.hash();
    return true;
  } catch (const CheckFailed& failure) {
    report.fail(failure.checker, failure.what());
  } catch (const std::exception& failure) {
    report.fail("exception", failure.what());
  }
  return false;
}

void work(Board& board, Report& report) {
  count_in(&board.probes);
  while (!report.failed) {
    const std::uint64_t seed = board.next++;
    if (seed >= board.end) return;
    report.seed = seed;
    const Trace trace = trace_of(seed);
    if (!run_once(trace, report)) return;
    if (seed % kTwiceEvery == 0) {
      const std::uint64_t first = report.hash;
      if (!run_once(trace, report)) return;
      if (report.hash != first) report.fail("determinism", "two runs of one trace differ");
    }
    ++board.done;
  }
}

template <typename Work>
pid_t in_child(Work child_work) {
  const pid_t child = ::fork();
  MILLRACE_CHECK(child >= 0);
  if (child == 0) {
    child_work();
    ::_exit(0);
  }
  return child;
}

/// Adds to the report what the end of its process says.
void note_end(int status, Report& report) {
  if (!WIFEXITED(status) && !report.failed)
    report.fail("signal " + std::to_string(WTERMSIG(status)), "the process died");
  else if (WIFEXITED(status) && WEXITSTATUS(status) != 0 && !report.failed)
    report.fail("exit code " + std::to_string(WEXITSTATUS(status)), "the process ended");
}

}  // namespace

Outcome run_in_child(const Trace& trace) {
  SharedBoard board;
  Report& report = board->reports[0];
  const pid_t child = in_child([&] { run_once(trace, report); });
  const auto start = Clock::now();
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (Clock::now() - start > kHang) {
      report.fail("hang", "the run takes for ever");
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return report.outcome();
    }
    std::this_thread::sleep_for(200us);
  }
  note_end(status, report);
  return report.outcome();
}

CampaignResult run_campaign(const Campaign& campaign) {
  SharedBoard board;
  board->next = campaign.from;
  board->end = campaign.from + campaign.seeds;
  struct Worker {
    pid_t process = 0;
    std::uint64_t seed = 0;
    Clock::time_point since;
  };
  std::vector<Worker> workers;
  for (unsigned i = 0; i < std::min<std::size_t>(campaign.jobs, kJobsMax); ++i)
    workers.push_back(
        {in_child([&] { work(*board.operator->(), board->reports[i]); }), 0, Clock::now()});
  std::size_t alive = workers.size();
  CampaignResult result;
  while (alive != 0) {
    for (std::size_t i = 0; i < workers.size(); ++i) {
      Worker& worker = workers[i];
      Report& report = board->reports[i];
      if (worker.process == 0) continue;
      if (worker.seed != report.seed) {
        worker.seed = report.seed;
        worker.since = Clock::now();
      } else if (Clock::now() - worker.since > kHang) {
        report.fail("hang", "the run takes for ever");
        ::kill(worker.process, SIGKILL);
      }
      int status = 0;
      if (::waitpid(worker.process, &status, WNOHANG) == 0) continue;
      note_end(status, report);
      worker.process = 0;
      --alive;
      if (report.failed) board->next = board->end.load();  // the others finish what they are at
      if (report.failed && !result.outcome.failed) {
        result.outcome = report.outcome();
        result.failed_seed = report.seed;
      }
    }
    if (campaign.progress) campaign.progress(board->done);
    std::this_thread::sleep_for(20ms);
  }
  result.done = board->done;
  for (std::size_t i = 0; i < kProbes; ++i) result.probes[i] = board->probes[i];
  return result;
}

namespace {

class Shrinker {
 public:
  Shrinker(Trace trace, std::string checker, int seconds)
      : trace_(std::move(trace)),
        checker_(std::move(checker)),
        deadline_(Clock::now() + std::chrono::seconds(seconds)) {}

  Trace run() {
    for (bool smaller = true; smaller;) {
      smaller = delete_chunks();
      smaller = lower_arguments() || smaller;
    }
    return trace_;
  }

 private:
  bool is_late() const { return Clock::now() >= deadline_; }

  bool take(Trace candidate) {
    if (is_late()) return false;
    const Outcome outcome = run_in_child(candidate);
    if (!outcome.failed || outcome.checker != checker_) return false;
    trace_ = std::move(candidate);
    return true;
  }

  bool delete_chunks() {
    bool any = false;
    for (std::size_t chunk = std::max<std::size_t>(trace_.size() / 2, 1); chunk != 0; chunk /= 2)
      for (std::size_t at = 0; at + chunk <= trace_.size() && !is_late();) {
        Trace candidate = trace_;
        const auto from = candidate.begin() + static_cast<std::ptrdiff_t>(at);
        candidate.erase(from, from + static_cast<std::ptrdiff_t>(chunk));
        if (take(std::move(candidate)))
          any = true;
        else
          at += chunk;
      }
    return any;
  }

  bool lower_arguments() {
    bool any = false;
    for (std::size_t i = 0; i < trace_.size(); ++i)
      for (std::size_t k = 0; k < kArguments; ++k) {
        const auto with = [&](std::uint32_t value) {
          Trace candidate = trace_;
          candidate[i].arguments[k] = value;
          return candidate;
        };
        if (trace_[i].arguments[k] == 0) continue;
        if (take(with(0))) {
          any = true;
          continue;
        }
        // What counts is mostly a remainder: so try small numbers of the same one first.
        for (const std::uint32_t modulus : {2520u, 1u << 16}) {
          const std::uint32_t value = trace_[i].arguments[k] % modulus;
          if (value != trace_[i].arguments[k] && take(with(value))) any = true;
        }
        while (trace_[i].arguments[k] > 1 && take(with(trace_[i].arguments[k] / 2))) any = true;
      }
    return any;
  }

  Trace trace_;
  std::string checker_;
  Clock::time_point deadline_;
};

}  // namespace

Trace shrink(Trace trace, const std::string& checker, int seconds) {
  return Shrinker(std::move(trace), checker, seconds).run();
}

}  // namespace millrace::sim
