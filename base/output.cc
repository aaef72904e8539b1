#include "base/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace millrace {

Result<void> Output::flush() {
  std::string_view rest = text_;
  while (!rest.empty()) {
    const auto written = ::write(STDOUT_FILENO, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {  // whoever shares the terminal or pipe made it non-blocking
      pollfd room{STDOUT_FILENO, POLLOUT, 0};
      ::poll(&room, 1, -1);
    } else if (errno == EPIPE) {
      return Error(ErrorCode::kCancelled, "nobody reads standard output any more");
    } else if (errno != EINTR) {
      return Error::from_errno(errno, "write to standard output");
    }
  }
  text_.clear();
  return {};
}

Result<void> Output::check_reader() const {
  pollfd output{STDOUT_FILENO, 0, 0};
  if (::poll(&output, 1, 0) > 0 && (output.revents & POLLERR) != 0)
    return Error(ErrorCode::kCancelled, "nobody reads standard output any more");
  return {};
}

}  // namespace millrace
