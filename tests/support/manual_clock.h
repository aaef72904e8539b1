#pragma once

#include <atomic>
#include <chrono>

#include "base/clock.h"

namespace millrace::test {

/// The time of day moves when it is told to.
class ManualClock final : public Clock {
 public:
  Monotonic monotonic() override { return std::chrono::steady_clock::now(); }
  UnixMicros wall() override { return {now_}; }
  void advance(std::chrono::seconds by) { now_ += std::chrono::microseconds(by).count(); }

 private:
  std::atomic<std::int64_t> now_ = 1'767'225'600'000'000;
};

}  // namespace millrace::test
