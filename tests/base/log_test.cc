#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/support/catch.h"

using namespace millrace;

namespace {

/// What is in `descriptor` now.
std::string drain(int descriptor) {
  std::string text;
  char bytes[4096];
  for (pollfd in{descriptor, POLLIN, 0}; ::poll(&in, 1, 0) == 1;) {
    const ssize_t count = ::read(descriptor, bytes, sizeof bytes);
    if (count <= 0) break;
    text.append(bytes, static_cast<std::size_t>(count));
  }
  return text;
}

std::size_t count_of(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1))
    ++count;
  return count;
}

/// stderr is `descriptor` while it lives, and the default logger the one it was before afterwards.
class RedirectedStderr {
 public:
  explicit RedirectedStderr(int descriptor)
      : before_(::dup(STDERR_FILENO)), logger_(spdlog::default_logger()) {
    ::dup2(descriptor, STDERR_FILENO);
  }
  RedirectedStderr(const RedirectedStderr&) = delete;
  RedirectedStderr& operator=(const RedirectedStderr&) = delete;
  ~RedirectedStderr() {
    spdlog::set_default_logger(logger_);
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
  }

 private:
  int before_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace

TEST_CASE("F13: a stderr that nobody reads drops lines and counts them, and blocks nobody",
          "[base]") {
  int ends[2] = {-1, -1};  // read from the first, written to the second
  SECTION("a pipe") { REQUIRE(::pipe2(ends, O_CLOEXEC) == 0); }
  SECTION("a socket") { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0); }
  constexpr std::size_t kLines = 20'000;
  int flags = 0;
  std::atomic<bool> over = false, rescued = false;
  {
    const RedirectedStderr redirected(ends[1]);
    REQUIRE(start_logging("info"));
    // Should it block all the same, the test fails and does not hang.
    const std::jthread rescuer([&] {
      for (int i = 0; i < 1'000 && !over; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      while (!over) rescued = !drain(ends[0]).empty() || rescued;
    });
    spdlog::info("start {} stop",
                 std::string(100'000, 'x'));  // more than there is room for at once
    for (std::size_t i = 0; i < kLines; ++i) spdlog::info("line {}", i);
    over = true;
  }
  {
    const RedirectedStderr redirected(ends[1]);
    flags = ::fcntl(STDERR_FILENO, F_GETFL);
  }
  REQUIRE_FALSE(rescued);
  CHECK((flags & O_NONBLOCK) == 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("F13: when a stderr is read again, the number of dropped lines is told once", "[base]") {
  int ends[2] = {-1, -1};
  SECTION("a pipe") { REQUIRE(::pipe2(ends, O_CLOEXEC) == 0); }
  SECTION("a socket") { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0); }
  std::string text;
  std::size_t logged = 0;
  {
    const RedirectedStderr redirected(ends[1]);
    REQUIRE(start_logging("info"));
    while (logged < 5'000) spdlog::info("line {} {} end", logged++, std::string(200, '.'));
    for (int i = 0; i < 3; ++i) {
      text += drain(ends[0]);
      spdlog::info("line {} again end", logged++);
    }
    text += drain(ends[0]);
  }
  CHECK(text.ends_with("again end\n"));
  CHECK(count_of(text, "log lines were dropped") == 1);
  const std::size_t lines = count_of(text, "\n");
  CHECK(count_of(text, " end\n") == lines - 1);  // each is whole
  const std::size_t notice = text.find(" log lines were dropped");
  const std::size_t number = text.rfind(' ', notice - 1);
  CHECK(std::stoul(text.substr(number, notice - number)) == logged - (lines - 1));
  ::close(ends[0]);
  ::close(ends[1]);
}
