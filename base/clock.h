#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

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

struct CivilDate {
  std::int64_t year = 0;  ///< Astronomical: 0 is 1 BC.
  unsigned month = 0;
  unsigned day = 0;
};
/// In the proleptic Gregorian calendar; `days` since 1970-01-01.
CivilDate civil_from_days(std::int64_t days);

/// The other way round; 29 February of a year without one is 1 March.
std::int64_t days_from_civil(const CivilDate& date);

/// A date and time of RFC 3339, "2026-01-01T10:00:00.5+02:00"; a blank may stand for the T, and
/// digits behind the microseconds don't count. Errors: kInvalidArgument.
Result<UnixMicros> parse_rfc3339(std::string_view text);

/// "2026-01-01T00:00:00.000001Z", always with six digits.
void append_iso8601(UnixMicros time, std::string& out);
std::string to_iso8601(UnixMicros time);

}  // namespace millrace
