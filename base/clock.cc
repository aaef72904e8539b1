#include "base/clock.h"

#include <cstdlib>

#include "base/bytes.h"

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

// https://howardhinnant.github.io/date_algorithms.html#civil_from_days
CivilDate civil_from_days(std::int64_t days) {
  days += 719'468;  // since 0000-03-01
  const std::int64_t era = (days >= 0 ? days : days - 146'096) / 146'097;
  const auto day_of_era = static_cast<unsigned>(days - era * 146'097);
  const unsigned year_of_era =
      (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const unsigned day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const unsigned shifted_month = (5 * day_of_year + 2) / 153;
  const unsigned month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
  return {.year = static_cast<std::int64_t>(year_of_era) + era * 400 + (month <= 2 ? 1 : 0),
          .month = month,
          .day = day_of_year - (153 * shifted_month + 2) / 5 + 1};
}

void append_iso8601(UnixMicros time, std::string& out) {
  constexpr std::int64_t kMicrosPerDay = 86'400'000'000;
  std::int64_t days = time.value / kMicrosPerDay, micros = time.value % kMicrosPerDay;
  if (micros < 0) --days, micros += kMicrosPerDay;
  const CivilDate date = civil_from_days(days);
  if (date.year < 0) out += '-';
  append_padded(static_cast<std::uint64_t>(std::abs(date.year)), 4, out);
  append_padded(date.month, 2, out += '-');
  append_padded(date.day, 2, out += '-');
  const auto seconds = static_cast<std::uint64_t>(micros / 1'000'000);
  append_padded(seconds / 3600, 2, out += 'T');
  append_padded(seconds / 60 % 60, 2, out += ':');
  append_padded(seconds % 60, 2, out += ':');
  append_padded(static_cast<std::uint64_t>(micros % 1'000'000), 6, out += '.');
  out += 'Z';
}

std::string to_iso8601(UnixMicros time) {
  std::string text;
  append_iso8601(time, text);
  return text;
}

}  // namespace millrace
