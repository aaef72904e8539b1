#pragma once

#include <stop_token>
#include <thread>

#include "base/wakeup.h"

namespace millrace::projections {

/// Turns SIGTERM and SIGINT into a stop while it lives. Make it before other threads: they inherit
/// that these signals are blocked, so that one thread alone takes them.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  std::stop_token token() const { return stop_.get_token(); }

 private:
  void watch();

  std::stop_source stop_;
  Wakeup done_;
  int descriptor_ = -1;
  std::jthread thread_;
};

}  // namespace millrace::projections
