// F1, F47, F48, F123: one run in which capture is killed, its WAL senders are ended and the server
// crashes, all at random moments beside a random workload with domain events and changes of shape,
// and beside appends to the same streams. At the end every committed transaction is in the log once
// with its events, every append too, and the log folds to the tables.
#include <csignal>
#include <iostream>
#include <random>
#include <semaphore>

#include "base/error.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

using std::chrono::milliseconds;

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

/// So that the log does not become larger than what a test can look through.
constexpr int kTransactionsPerBlow = 40;

struct Counts {
  int kills = 0, senders = 0, crashes = 0;
};

/// A capture, a server and a writer.
class Storm {
 public:
  explicit Storm(unsigned seed)
      : random_(seed), workload_(database_, seed, Workload::Kind::kEverything) {
    workload_.make_tables();
    start_capture();
    REQUIRE(is_streaming());
    others_.emplace(directory_ / "store", seed);
    writer_ = std::jthread([this](const std::stop_token& stop) { write(stop); });
  }

  /// One blow; true where it hit. Half of them wait until capture streams, the rest come wherever
  /// it is.
  bool kill_capture() {
    pause();
    if (!capture_->running()) return start_capture(), false;
    capture_->kill(SIGKILL);
    REQUIRE(capture_->wait() == 128 + SIGKILL);
    start_capture();
    return true;
  }
  bool end_sender() {
    pause();
    return server_.value(
               "postgres",
               "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) AS done FROM "
               "pg_stat_replication WHERE application_name LIKE 'millrace/%') s WHERE done") != "0";
  }
  bool crash_server() {
    pause();
    const bool at_once = random_() % 2 == 0;
    ::kill(server_.pid(), at_once ? SIGKILL : SIGQUIT);
    server_.stop(at_once ? PostgresServer::Stop::kKill : PostgresServer::Stop::kImmediate);
    server_.start();
    return true;
  }
  /// A capture that has found no server when it started has ended, as it should.
  void look_after_capture() {
    if (capture_->running()) return;
    const int code = capture_->wait().value_or(-1);
    INFO(capture_->error_output());
    REQUIRE(code == exit_code_for(ErrorCode::kUnavailable));
    start_capture();
  }

  void check() {
    writer_.request_stop();
    writer_.join();
    others_->stop();
    capture_->kill(SIGTERM);
    REQUIRE(capture_->wait().has_value());
    const CommandResult last = run_command(command(true), {}, {}, std::chrono::minutes(5));
    INFO(last.err);
    REQUIRE(last.exit_code == 0);
    const CapturedLog log = read_captured_log(directory_ / "store", {"public.shapes"});
    CHECK(log.faults == std::vector<std::string>());
    std::vector<int> audited;
    for (const auto& event : log.of("public.audit", "c")) audited.push_back(event["after"]["id"]);
    CHECK(audited == workload_.committed());
    CHECK(workload_differences(database_, log) == std::vector<std::string>());
    const LoggedEvents events = read_domain_events(directory_ / "store");
    CHECK(events.faults == std::vector<std::string>());
    CHECK(workload_.event_difference(audited.size(), events.captured) == "");
    CHECK(others_->failure() == "");
    CHECK(first_difference(others_->lines(), events.appended) == "");
    const CommandResult verified = run_command(
        {MILLRACE_PROGRAM, "log", "verify", "--store", (directory_ / "store").string()});
    CHECK(verified.exit_code == 0);
    std::cout << "transactions: " << audited.size() << ", events: " << log.events.size()
              << ", domain events: " << events.captured.size() << " and " << events.appended.size()
              << " of others\n";
  }

 private:
  std::vector<std::string> command(bool to_the_end) {
    std::vector<std::string> argv{MILLRACE_PROGRAM,
                                  "capture",
                                  "run",
                                  "--source",
                                  database_.uri(),
                                  "--store",
                                  (directory_ / "store").string(),
                                  "--slot",
                                  "storm",
                                  "--outbox",
                                  "public.outbox",
                                  "--log-level",
                                  "warn"};
    if (to_the_end) argv.emplace_back("--until-caught-up");
    return argv;
  }
  void start_capture() { capture_.emplace(command(false)); }
  bool is_streaming() {
    return eventually(
        [&] {
          look_after_capture();
          return server_.value("postgres",
                               "SELECT count(*) FROM pg_stat_replication WHERE state = "
                               "'streaming' AND application_name LIKE 'millrace/%'") != "0";
        },
        std::chrono::minutes(2));
  }
  void pause() {
    room_.release(kTransactionsPerBlow);
    if (random_() % 2 == 0) REQUIRE(is_streaming());
    std::this_thread::sleep_for(milliseconds(random_() % 150));
  }
  void write(const std::stop_token& stop) {
    bool settled = true;
    while (!stop.stop_requested() || !settled) {
      if (settled && !room_.try_acquire_for(milliseconds(50))) continue;
      try {
        if (settled)
          workload_.one_transaction();
        else
          workload_.settle();
        settled = true;
      } catch (const std::runtime_error&) {
        settled = false;  // the server is down
      }
    }
  }

  PostgresServer server_;
  TestDatabase database_{server_};
  TemporaryDirectory directory_;
  std::minstd_rand random_;
  Workload workload_;
  std::optional<ChildProcess> capture_;
  std::optional<OtherAppends> others_;
  std::counting_semaphore<> room_{kTransactionsPerBlow};
  std::jthread writer_;
};

TEST_CASE("F1, F47, F48, F123: through a storm of kills, ended senders and crashes, exactly once",
          "[.][capture][storm]") {
  const int scale = setting("MILLRACE_STORM", 100);  // percent
  const Counts wanted{.kills = scale, .senders = 2 * scale, .crashes = scale / 2};
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  CAPTURE(seed, scale);
  Storm storm(seed);
  std::minstd_rand random(seed + 1);
  Counts done;
  for (;;) {
    const int left[] = {wanted.kills - done.kills, wanted.senders - done.senders,
                        wanted.crashes - done.crashes};
    const int all = std::max(left[0], 0) + std::max(left[1], 0) + std::max(left[2], 0);
    if (all == 0) break;
    const int pick = static_cast<int>(random() % static_cast<unsigned>(all));
    if (pick < left[0])
      done.kills += storm.kill_capture() ? 1 : 0;
    else if (pick < left[0] + left[1])
      done.senders += storm.end_sender() ? 1 : 0;
    else
      done.crashes += storm.crash_server() ? 1 : 0;
    storm.look_after_capture();
  }
  storm.check();
  std::cout << "kills: " << done.kills << ", senders ended: " << done.senders
            << ", crashes: " << done.crashes << "\n";
  CHECK(done.kills >= wanted.kills);
  CHECK(done.senders >= wanted.senders);
  CHECK(done.crashes >= wanted.crashes);
}

}  // namespace
}  // namespace millrace::test
