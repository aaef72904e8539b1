#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>

namespace millrace {
namespace {

/// A stderr that somebody else reads, and may cease to read: a pipe or a socket. What does not fit
/// is dropped and counted; the count is told as soon as there is room again.
///
/// The descriptor is shared with whoever started the program, so it is not made non-blocking. A
/// pipe can be opened once more, for our own; where that fails, and for good measure, it is asked
/// first and given no more than it takes at once. A socket takes that as a flag of each call.
constexpr int kErrorWaitMs = 500;

class PipeSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit PipeSink(bool is_socket) : is_socket_(is_socket) {
    if (!is_socket_) own_ = ::open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  }
  ~PipeSink() override {
    if (own_ >= 0) ::close(own_);
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (message.level >= spdlog::level::err) wait_for_room();  // perhaps the last words
    if (dropped_ != 0 && write_rest()) {
      const std::string text =
          std::to_string(dropped_) + " log lines were dropped: nobody read them";
      if (write_line({message.logger_name, spdlog::level::warn, text})) dropped_ = 0;
    }
    if (dropped_ != 0 || !write_line(message)) ++dropped_;
  }
  void flush_() override {}

 private:
  void wait_for_room() {
    pollfd room{.fd = own_ >= 0 ? own_ : STDERR_FILENO, .events = POLLOUT, .revents = 0};
    ::poll(&room, 1, kErrorWaitMs);
  }

  /// False if nothing of the line was taken. What was begun is ended before the next one.
  bool write_line(const spdlog::details::log_msg& message) {
    if (!write_rest()) return false;
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    rest_.assign(line.data(), line.size());
    const std::size_t size = rest_.size();
    if (write_rest() || rest_.size() != size) return true;
    rest_.clear();
    return false;
  }

  /// True if nothing is left of it.
  bool write_rest() {
    while (!rest_.empty()) {
      const ssize_t count = write_some();
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
      if (count < 0) return rest_.clear(), true;  // closed: nowhere left to report to
      rest_.erase(0, static_cast<std::size_t>(count));
    }
    return true;
  }

  ssize_t write_some() {
    if (is_socket_)
      return ::send(STDERR_FILENO, rest_.data(), rest_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    const int descriptor = own_ >= 0 ? own_ : STDERR_FILENO;
    pollfd room{.fd = descriptor, .events = POLLOUT, .revents = 0};
    if (::poll(&room, 1, 0) == 0) return errno = EAGAIN, -1;
    // With room for anything, a pipe has room for this much.
    return ::write(descriptor, rest_.data(), std::min<std::size_t>(rest_.size(), PIPE_BUF));
  }

  const bool is_socket_;
  int own_ = -1;
  std::string rest_;  // of a line that was taken in part
  std::uint64_t dropped_ = 0;
};

std::shared_ptr<spdlog::logger> make_logger() {
  struct stat status {};
  const bool there = ::fstat(STDERR_FILENO, &status) == 0;
  if (!there || (!S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode)))
    return spdlog::stderr_color_mt("millrace");
  return std::make_shared<spdlog::logger>("millrace",
                                          std::make_shared<PipeSink>(S_ISSOCK(status.st_mode)));
}

}  // namespace

Result<void> start_logging(std::string_view level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off")
    return Error(ErrorCode::kInvalidArgument, "unknown log level '" + std::string(level) + "'")
        .hint("Use one of trace, debug, info, warn, error, off.");
  spdlog::drop("millrace");  // of an earlier call
  auto logger = make_logger();
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::trace);
  logger->set_error_handler([](const std::string&) {});  // nowhere left to report to
  spdlog::set_default_logger(std::move(logger));
  // A pipe that nobody reads and a file at its size limit are errors to report, not to die of.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return {};
}

}  // namespace millrace
