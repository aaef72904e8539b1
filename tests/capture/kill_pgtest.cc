// F1, F4: a random workload, with domain events and changes of shape, runs while capture is killed
// with SIGKILL at random moments. At the end the fold of the log equals every table, every
// committed transaction is in it once with its events, and none that was rolled back.
//
// MILLRACE_KILLS sets how many kills there are, MILLRACE_SEED the workload; both are printed.
#include <algorithm>
#include <csignal>
#include <memory>
#include <random>
#include <span>
#include <thread>

#include "eventstore/inspect.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_workload.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using test::CapturedLog;

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

std::uint64_t durable_end(const Path& store) {
  const auto summary = summarize_store(store);
  return summary ? summary->durable_end.value : 0;
}

TEST_CASE("F1, F4: capture killed at random moments loses nothing and repeats nothing",
          "[capture][kill]") {
  const int kills = setting("MILLRACE_KILLS", 25);
  const auto seed = static_cast<unsigned>(
      setting("MILLRACE_SEED", static_cast<int>(std::random_device{}() & 0x7fffffff)));
  CAPTURE(seed, kills);
  test::TestDatabase database;
  test::TemporaryDirectory directory;
  test::Workload workload(database, seed, test::Workload::Kind::kEverything);
  workload.make_tables();
  const std::string store = directory / "store";
  const auto command = [&](bool to_the_end) {
    std::vector<std::string> argv{MILLRACE_PROGRAM, "capture",     "run",  "--source",
                                  database.uri(),   "--store",     store,  "--slot",
                                  database.name(),  "--log-level", "warn", "--outbox",
                                  "public.outbox"};
    if (to_the_end) argv.emplace_back("--until-caught-up");
    return argv;
  };

  std::minstd_rand random(seed);
  {
    std::jthread writer([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) workload.one_transaction();
    });
    for (int i = 0; i < kills; ++i) {
      const std::uint64_t before = durable_end(store);
      auto capture = std::make_unique<test::ChildProcess>(command(false));
      const auto has_captured = [&] {
        // A table that is dropped in the moment of the very first start ends it, before anything is
        // made: whoever looks after it starts it again.
        if (i == 0 && !capture->running())
          capture = std::make_unique<test::ChildProcess>(command(false));
        return durable_end(store) > before;
      };
      // Every other one is killed wherever it is, the rest at some moment after they have captured
      // something.
      if (i % 2 == 0 && !test::eventually(has_captured, std::chrono::minutes(1))) {
        capture->kill(SIGTERM);
        capture->wait();
        FAIL("kill " << i << ": nothing was captured within a minute\n" << capture->error_output());
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(
          std::uniform_int_distribution<int>(0, i % 2 == 0 ? 200 : 700)(random)));
      capture->kill(SIGKILL);
      const int code = capture->wait().value_or(-1);
      INFO("kill " << i << "\n" << capture->error_output());
      REQUIRE(code == 128 + SIGKILL);
    }
  }
  const test::CommandResult last =
      test::run_command(command(true), {}, {}, std::chrono::minutes(2));
  INFO(last.err);
  REQUIRE(last.exit_code == 0);

  const CapturedLog log = test::read_captured_log(store, {"public.shapes"});
  CHECK(log.of("public.audit", "c").size() >
        log.of("public.audit", "r").size());  // most of it came through the stream
  CHECK(log.faults == std::vector<std::string>());
  // What the stream brought of them is the last part of all, in their order; the snapshot has the
  // rest.
  std::vector<int> streamed;
  for (const auto& event : log.of("public.audit", "c")) streamed.push_back(event["after"]["id"]);
  REQUIRE(streamed.size() <= workload.committed().size());
  CHECK(std::ranges::equal(streamed, std::span(workload.committed()).last(streamed.size())));
  CHECK(log.tables.at("public.audit").size() == workload.committed().size());
  REQUIRE(workload.committed().size() > static_cast<std::size_t>(kills));

  CHECK(test::workload_differences(database, log) == std::vector<std::string>());
  const test::LoggedEvents events = test::read_domain_events(store);
  CHECK(events.faults == std::vector<std::string>());
  CHECK(workload.event_difference(streamed.size(), events.captured) == "");
  const test::CommandResult verified =
      test::run_command({MILLRACE_PROGRAM, "log", "verify", "--store", store});
  CHECK(verified.exit_code == 0);
}

}  // namespace
}  // namespace millrace
