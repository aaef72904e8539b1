// Catch2 2 wants its main compiled once; version 3 brings it in a library.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
int main(int argc, char** argv) { return Catch::Session().run(argc, argv); }
namespace {
using Listener = Catch::EventListenerBase;
}
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
namespace {
using Listener = Catch::TestEventListenerBase;
}
#endif

#include <fcntl.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

namespace {

/// What a test case logs is printed where it fails, after its assertion, and nowhere else:
/// thousands of lines of cases that passed would hide the one that counts. The log is a file
/// without a name, so that a forked child's lines are in it too, also those of a child that was
/// killed.
class LogOfCase final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  LogOfCase() : file_(::memfd_create("log of a test case", MFD_CLOEXEC)) {
    ::fcntl(file_, F_SETFL, O_APPEND);
  }
  ~LogOfCase() override { ::close(file_); }
  LogOfCase(const LogOfCase&) = delete;
  LogOfCase& operator=(const LogOfCase&) = delete;

  void clear() { std::ignore = ::ftruncate(file_, 0); }

  /// Writes `title` and the last lines of the log to stderr. May be called by a signal handler.
  void print(const char* title) const {
    static constexpr off_t kMost = 16 << 10;
    static std::array<char, kMost> tail;
    const off_t end = ::lseek(file_, 0, SEEK_END);
    const ssize_t size = ::pread(file_, tail.data(), tail.size(), end > kMost ? end - kMost : 0);
    std::ignore = ::write(STDERR_FILENO, title, std::strlen(title));
    if (size > 0) std::ignore = ::write(STDERR_FILENO, tail.data(), static_cast<std::size_t>(size));
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    std::ignore = ::write(file_, line.data(), line.size());
  }
  void flush_() override {}

 private:
  int file_;
};

/// A case that takes so long is told, with its log, while it runs: it may be killed for it.
constexpr unsigned kLongCaseSeconds = 300;

std::shared_ptr<LogOfCase> log_of_case;
std::string long_case;  // what is said of it

class PrintsLogOfFailures final : public Listener {
 public:
  using Listener::Listener;
  void testRunStarting(const Catch::TestRunInfo&) override {
    log_of_case = std::make_shared<LogOfCase>();
    // Level and pattern stay what they are: a test's own file may have set them before main.
    spdlog::default_logger()->sinks() = {log_of_case};
    struct sigaction on_alarm {};
    on_alarm.sa_handler = [](int) { log_of_case->print(long_case.c_str()); };
    on_alarm.sa_flags = SA_RESTART;
    ::sigaction(SIGALRM, &on_alarm, nullptr);
  }
  void testCaseStarting(const Catch::TestCaseInfo& test) override {
    log_of_case->clear();
    long_case = "still running: " + test.name + "; the end of what it logged:\n";
    ::alarm(kLongCaseSeconds);
  }
  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    ::alarm(0);
    if (stats.totals.assertions.failed > 0) log_of_case->print("the end of what it logged:\n");
  }
};

CATCH_REGISTER_LISTENER(PrintsLogOfFailures)

}  // namespace

/// libpqxx 6 leaks libpq's result when a query finds its connection broken. Asked for by
/// LeakSanitizer, where there is one.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() { return "leak:libpqxx"; }
