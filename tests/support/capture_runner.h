#pragma once

#include <atomic>
#include <chrono>
#include <stop_token>
#include <string>
#include <thread>

#include "capture/capture.h"

namespace millrace::test {

/// Runs capture to the point where everything committed so far is durable.
Result<void> catch_up(CaptureOptions options);

/// A capture on a thread of this process, stopped with its object.
class BackgroundCapture {
 public:
  explicit BackgroundCapture(CaptureOptions options);
  ~BackgroundCapture() { static_cast<void>(stop()); }

  void request_stop() { thread_.request_stop(); }
  /// Asks it to stop and gives what run_capture gave.
  Result<void> stop();
  /// What it ended with by itself; throws if it has not within 30 s.
  Result<void> wait();
  bool ended() const { return ended_; }

 private:
  CaptureOptions options_;
  Result<void> outcome_;
  std::atomic<bool> ended_ = false;
  std::jthread thread_;
};

/// Looks every few milliseconds; false if `condition` has not come true within `limit`.
template <typename Condition>
bool eventually(Condition&& condition, std::chrono::milliseconds limit = std::chrono::seconds(30)) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace millrace::test
