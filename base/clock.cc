#include "base/clock.h"

#include <cstdio>
#include <ctime>

namespace millrace {
namespace {

class SystemClock final : public Clock {
 public:
  Monotonic monotonic() override { return std::chrono::steady_clock::now(); }
  UnixMicros wall() override {
    return {std::chrono::duration_cast<std::chrono::microseconds>(
                std::chrono::system_clock::now().time_since_epoch())
                .count()};
  }
};

}  // namespace

Clock& Clock::system() {
  static SystemClock clock;
  return clock;
}

std::string to_iso8601(UnixMicros time) {
  std::int64_t seconds = time.value / 1'000'000, micros = time.value % 1'000'000;
  if (micros < 0) --seconds, micros += 1'000'000;
  const std::time_t whole = seconds;
  std::tm parts{};
  gmtime_r(&whole, &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<int>(micros));
  return text;
}

}  // namespace millrace
