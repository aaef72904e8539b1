#pragma once

#include <chrono>

#include "base/clock.h"

namespace millrace::test {

/// Both times move only when told to.
class FrozenClock final : public Clock {
 public:
  Monotonic monotonic() override { return now_; }
  UnixMicros wall() override { return {1'767'225'600'000'000 + since()}; }
  void advance(std::chrono::milliseconds by) { now_ += by; }

 private:
  std::int64_t since() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(now_ - kBegin).count();
  }
  static constexpr Monotonic kBegin{std::chrono::hours(1000)};
  Monotonic now_ = kBegin;
};

}  // namespace millrace::test
