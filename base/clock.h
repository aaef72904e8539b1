#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace millrace {

/// Microseconds since 1970-01-01 00:00 UTC; wall time as data, never as a timer.
struct UnixMicros {
  std::int64_t value = 0;
  auto operator<=>(const UnixMicros&) const = default;
};

/// Where time comes from, so that a test can move an hour.
class Clock {
 public:
  using Monotonic = std::chrono::steady_clock::time_point;

  virtual ~Clock() = default;
  virtual Monotonic monotonic() = 0;  ///< For every timer: never goes back.
  virtual UnixMicros wall() = 0;      ///< For what a person reads.

  static Clock& system();
};

/// "2026-01-01T00:00:00.000001Z".
std::string to_iso8601(UnixMicros time);

}  // namespace millrace
