#include "projections/values.h"

#include <algorithm>
#include <cstdio>
#include <limits>

namespace millrace::projections {
namespace {

constexpr std::int64_t kMicrosPerDay = 86'400'000'000;
constexpr std::int64_t kDaysFrom0000To2000 = 730'425;  // 0000-03-01 to 2000-01-01

/// The civil date of a day counted from 2000-01-01, in the proleptic Gregorian calendar with a year
/// 0 (http://howardhinnant.github.io/date_algorithms.html, civil_from_days).
std::string civil_date(std::int64_t day) {
  day += kDaysFrom0000To2000;
  const std::int64_t era = (day >= 0 ? day : day - 146'096) / 146'097;
  const std::int64_t day_of_era = day - era * 146'097;
  const std::int64_t year_of_era =
      (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year =
      day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t month_from_march = (5 * day_of_year + 2) / 153;
  const std::int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
  const std::int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  const std::int64_t day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
  char text[40];
  std::snprintf(text, sizeof text, "%s%04lld-%02lld-%02lld",
                year < 0      ? "-"
                : year > 9999 ? "+"
                              : "",
                static_cast<long long>(year < 0 ? -year : year), static_cast<long long>(month),
                static_cast<long long>(day_of_month));
  return text;
}

template <typename T>
const char* infinity_name(T value) {
  if (value == std::numeric_limits<T>::min()) return "-infinity";
  if (value == std::numeric_limits<T>::max()) return "infinity";
  return nullptr;
}

}  // namespace

std::optional<UnixMicros> unix_micros(std::int64_t timestamptz) {
  if (infinity_name(timestamptz) ||
      timestamptz > std::numeric_limits<std::int64_t>::max() - kPostgresEpochUnixMicros)
    return std::nullopt;
  return UnixMicros{timestamptz + kPostgresEpochUnixMicros};
}

std::optional<TimePoint> time_point(std::int64_t timestamptz) {
  const auto time = unix_micros(timestamptz);
  if (!time) return std::nullopt;
  return TimePoint(std::chrono::microseconds(time->value));
}

std::int64_t timestamptz_of(UnixMicros time) { return time.value - kPostgresEpochUnixMicros; }

std::string iso_timestamp(std::int64_t timestamp) {
  if (const char* name = infinity_name(timestamp)) return name;
  std::int64_t day = timestamp / kMicrosPerDay;
  std::int64_t micros = timestamp % kMicrosPerDay;
  if (micros < 0) micros += kMicrosPerDay, --day;
  char time[32];
  std::snprintf(time, sizeof time, "T%02d:%02d:%02d.%06d", static_cast<int>(micros / 3'600'000'000),
                static_cast<int>(micros / 60'000'000 % 60),
                static_cast<int>(micros / 1'000'000 % 60), static_cast<int>(micros % 1'000'000));
  return civil_date(day) + time;
}

std::string iso_timestamptz(std::int64_t timestamptz) {
  return infinity_name(timestamptz) ? infinity_name(timestamptz) : iso_timestamp(timestamptz) + "Z";
}

std::string iso_date(std::int32_t date) {
  return infinity_name(date) ? infinity_name(date) : civil_date(date);
}

std::optional<std::int64_t> scaled(std::string_view numeric, int digits) {
  const bool negative = numeric.starts_with('-');
  if (negative) numeric.remove_prefix(1);
  std::int64_t value = 0;
  int after_point = -1;  // digits seen after the point; -1 before it
  bool any = false;
  const auto append = [&](int digit) {
    return !__builtin_mul_overflow(value, std::int64_t{10}, &value) &&
           !__builtin_sub_overflow(value, std::int64_t{digit},
                                   &value);  // below zero there is one more
  };
  for (const char c : numeric) {
    if (c == '.' && after_point < 0) {
      after_point = 0;
    } else if (c < '0' || c > '9') {
      return std::nullopt;
    } else if (after_point == digits) {
      if (c != '0') return std::nullopt;
    } else {
      any = true;
      if (after_point >= 0) ++after_point;
      if (!append(c - '0')) return std::nullopt;
    }
  }
  if (!any) return std::nullopt;
  for (int digit = std::max(after_point, 0); digit < digits; ++digit)
    if (!append(0)) return std::nullopt;
  if (negative) return value;
  if (value == std::numeric_limits<std::int64_t>::min()) return std::nullopt;
  return -value;
}

std::string Joined::operator()(const v1::StringArray& array, std::string_view between) const {
  if (array.has_text()) return array.text();
  std::string out;
  int null = 0;
  for (int i = 0; i < array.values_size(); ++i) {
    if (null < array.nulls_size() && array.nulls(null) == static_cast<std::uint32_t>(i)) {
      ++null;
      continue;
    }
    if (!out.empty()) out += between;
    out += array.values(i);
  }
  return out;
}

}  // namespace millrace::projections
