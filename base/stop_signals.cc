#include "base/stop_signals.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/check.h"

namespace millrace {

StopSignals::StopSignals() {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  ::sigaddset(&mask, SIGINT);
  MILLRACE_CHECK(::pthread_sigmask(SIG_BLOCK, &mask, &mask_before_) == 0);
  const int signals = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  MILLRACE_CHECK(signals >= 0);
  watcher_ = std::jthread([this, signals](const std::stop_token& end) { watch(signals, end); });
}

StopSignals::~StopSignals() {
  watcher_.request_stop();
  wakeup_.notify();
  watcher_.join();
  ::pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

void StopSignals::watch(int signals, const std::stop_token& end) {
  while (!end.stop_requested()) {
    pollfd waits[] = {{signals, POLLIN, 0}, {wakeup_.descriptor(), POLLIN, 0}};
    if (::poll(waits, 2, -1) < 0) continue;
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) == sizeof info) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (received_.exchange(signal) != 0) ::_exit(128 + signal);
      source_.request_stop();
    }
  }
  ::close(signals);
}

}  // namespace millrace
