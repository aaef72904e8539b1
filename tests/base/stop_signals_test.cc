#include "base/stop_signals.h"

#include <sys/wait.h>
#include <unistd.h>

#include <future>

#include "tests/support/catch.h"

namespace millrace::test {
namespace {

TEST_CASE("a signal asks to stop, on a thread where callbacks may do anything", "[base]") {
  const int signal = GENERATE(SIGTERM, SIGINT);
  const StopSignals signals;
  std::promise<std::thread::id> stopped;
  const std::stop_callback callback(signals.token(),
                                    [&] { stopped.set_value(std::this_thread::get_id()); });
  CHECK(signals.received() == 0);
  REQUIRE(::kill(::getpid(), signal) == 0);
  CHECK(stopped.get_future().get() != std::this_thread::get_id());
  CHECK(signals.token().stop_requested());
  CHECK(signals.received() == signal);
}

TEST_CASE("the second signal ends the process at once", "[base]") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const StopSignals signals;
    ::kill(::getpid(), SIGINT);
    while (!signals.token().stop_requested()) ::usleep(1000);
    ::kill(::getpid(), SIGTERM);
    for (;;) ::pause();  // what does not look at the token
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 128 + SIGTERM);
}

}  // namespace
}  // namespace millrace::test
