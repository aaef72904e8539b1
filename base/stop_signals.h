#pragma once

#include <atomic>
#include <csignal>
#include <stop_token>
#include <thread>

#include "base/wakeup.h"

namespace millrace {

/// While it lives, SIGTERM and SIGINT ask its token to stop instead of ending the process; the
/// second one ends it at once, with 128 + signal. Stop callbacks run on a thread of its own, never
/// in a signal handler.
///
/// Make one, early in main: threads that were started before it would still be ended by the
/// signals.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  /// The signal that asked to stop; 0 if none did. Threads: any.
  int received() const { return received_; }

 private:
  void watch(int signals, const std::stop_token& end);

  std::stop_source source_;
  std::atomic<int> received_ = 0;
  sigset_t mask_before_;
  Wakeup wakeup_;
  std::jthread watcher_;  // last: it uses all of the above
};

}  // namespace millrace
