#include "projections/command/stop_signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "base/check.h"

namespace millrace::projections {
namespace {

sigset_t stop_set() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t set = stop_set();
  MILLRACE_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  descriptor_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  MILLRACE_CHECK(descriptor_ >= 0);
  thread_ = std::jthread([this] { watch(); });
}

StopSignals::~StopSignals() {
  done_.notify();
  thread_.join();
  ::close(descriptor_);
  const sigset_t set = stop_set();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void StopSignals::watch() {
  pollfd waited[2] = {{descriptor_, POLLIN, 0}, {done_.descriptor(), POLLIN, 0}};
  while (true) {
    ::poll(waited, 2, -1);
    if (waited[1].revents != 0) return;
    signalfd_siginfo signal;
    if (::read(descriptor_, &signal, sizeof signal) == sizeof signal) stop_.request_stop();
  }
}

}  // namespace millrace::projections
