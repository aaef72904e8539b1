#include "schemas/rendering/pg_text.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/bytes.h"
#include "base/clock.h"

namespace millrace::rendering {
namespace {

constexpr std::int64_t kMicrosPerSecond = 1'000'000;
constexpr std::int64_t kMicrosPerDay = 86'400 * kMicrosPerSecond;
constexpr std::int64_t kDaysTo2000 = 10'957;

/// ".789"; nothing for a whole second.
void append_fraction(std::uint64_t micros, std::string& out) {
  if (micros == 0) return;
  out += '.';
  append_padded(micros, 6, out);
  while (out.back() == '0') out.pop_back();
}

void append_clock(std::uint64_t micros, std::string& out) {
  const std::uint64_t seconds = micros / kMicrosPerSecond;
  append_padded(seconds / 3600, 2, out);
  out += ':';
  append_padded(seconds / 60 % 60, 2, out);
  out += ':';
  append_padded(seconds % 60, 2, out);
  append_fraction(micros % kMicrosPerSecond, out);
}

/// Without the era, which comes after everything else.
void append_civil(const CivilDate& date, std::string& out) {
  append_padded(static_cast<std::uint64_t>(date.year > 0 ? date.year : 1 - date.year), 4, out);
  out += '-';
  append_padded(date.month, 2, out);
  out += '-';
  append_padded(date.day, 2, out);
}

void append_era(const CivilDate& date, std::string& out) {
  if (date.year <= 0) out += " BC";
}

/// Whether `value` is one of the extremes, which mean infinity.
template <typename Int>
bool append_infinity(Int value, std::string& out) {
  if (value == std::numeric_limits<Int>::max()) return out += "infinity", true;
  if (value == std::numeric_limits<Int>::min()) return out += "-infinity", true;
  return false;
}

/// Whether the decimal `digits` (without a point) * 10^`exponent` lies exactly between two
/// neighbouring floating-point numbers of `precision` bits: then it is an odd number of one bit
/// more, times a power of two.
bool is_halfway(std::uint64_t digits, int exponent, int precision) {
  if (digits == 0) return false;
  std::uint64_t odd = digits >> std::countr_zero(digits);
  for (; exponent > 0; --exponent) {
    if (odd >> (precision + 1) != 0) return false;  // too long already
    odd *= 5;
  }
  for (; exponent < 0; ++exponent) {
    if (odd % 5 != 0) return false;
    odd /= 5;
  }
  return odd >> precision == 1;
}

struct Decimal {
  char digits[24];  // the first stands before the point
  int count = 0;
  int exponent = 0;

  /// From "-1.2345e-06".
  static Decimal parse(std::string_view text) {
    Decimal decimal;
    const std::size_t e = text.find('e');
    for (const char c : text.substr(0, e))
      if (c >= '0' && c <= '9') decimal.digits[decimal.count++] = c;
    const char* exponent = text.data() + e + 1 + (text[e + 1] == '+' ? 1 : 0);
    std::from_chars(exponent, text.data() + text.size(), decimal.exponent);
    return decimal;
  }
  std::uint64_t whole() const {
    std::uint64_t value = 0;
    std::from_chars(digits, digits + count, value);
    return value;
  }
};

/// The fewest digits that lie strictly nearer to `value` than to any other number. std::to_chars
/// takes a decimal half way between two if reading would round it to `value`; PostgreSQL does not.
template <typename Float>
Decimal shortest_decimal(Float value) {
  char text[64];
  const auto parse = [&](std::to_chars_result result) {
    return Decimal::parse({text, static_cast<std::size_t>(result.ptr - text)});
  };
  constexpr auto kScientific = std::chars_format::scientific;
  constexpr int kPrecision = std::numeric_limits<Float>::digits;
  Decimal decimal = parse(std::to_chars(text, text + sizeof text, value, kScientific));
  const auto halfway = [&] {
    return is_halfway(decimal.whole(), decimal.exponent - decimal.count + 1, kPrecision);
  };
  while (halfway() && decimal.count < std::numeric_limits<Float>::max_digits10) {
    const int digits = decimal.count;  // after the point: one more than now in all
    for (int more = digits; more < std::numeric_limits<Float>::max_digits10; ++more) {
      const auto result = std::to_chars(text, text + sizeof text, value, kScientific, more);
      Float back = 0;
      std::from_chars(text, result.ptr, back);
      decimal = parse(result);
      if (back == value) break;
    }
  }
  return decimal;
}

/// As printf's %g lays it out: in full from 1e-4 up to `digits10` places, else with an exponent.
template <typename Float>
void append_number(Float value, std::string& out) {
  if (std::isnan(value)) {
    out += "NaN";
    return;
  }
  if (std::signbit(value)) out += '-';
  if (std::isinf(value)) {
    out += "Infinity";
    return;
  }
  const Decimal decimal = shortest_decimal(value < 0 ? -value : value);
  const std::string_view digits(decimal.digits, static_cast<std::size_t>(decimal.count));
  const int exponent = decimal.exponent;
  if (value == 0) {
    out += '0';
  } else if (exponent < -4 || exponent >= std::numeric_limits<Float>::digits10) {
    out += digits[0];
    if (digits.size() > 1) (out += '.') += digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    append_padded(static_cast<std::uint64_t>(std::abs(exponent)), 2, out);
  } else if (exponent < 0) {
    out += "0.";
    out.append(static_cast<std::size_t>(-exponent - 1), '0');
    out += digits;
  } else {
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    out += digits.substr(0, whole);
    if (digits.size() < whole) out.append(whole - digits.size(), '0');
    if (digits.size() > whole) (out += '.') += digits.substr(whole);
  }
}

}  // namespace

void append_date(std::int32_t days, std::string& out) {
  if (append_infinity(days, out)) return;
  const CivilDate date = civil_from_days(kDaysTo2000 + days);
  append_civil(date, out);
  append_era(date, out);
}

void append_time(std::int64_t micros, std::string& out) {
  append_clock(static_cast<std::uint64_t>(micros), out);
}

void append_time_tz(std::int64_t micros, std::int32_t offset_seconds, std::string& out) {
  append_time(micros, out);
  out += offset_seconds < 0 ? '-' : '+';
  const auto offset = static_cast<std::uint32_t>(std::abs(offset_seconds));
  append_padded(offset / 3600, 2, out);
  if (offset % 3600 == 0) return;
  out += ':';
  append_padded(offset / 60 % 60, 2, out);
  if (offset % 60 == 0) return;
  out += ':';
  append_padded(offset % 60, 2, out);
}

void append_timestamp(std::int64_t micros, bool zone, DateTimeStyle style, std::string& out) {
  if (append_infinity(micros, out)) return;
  std::int64_t days = micros / kMicrosPerDay, time = micros % kMicrosPerDay;
  if (time < 0) --days, time += kMicrosPerDay;
  const CivilDate date = civil_from_days(kDaysTo2000 + days);
  append_civil(date, out);
  out += static_cast<char>(style);
  append_clock(static_cast<std::uint64_t>(time), out);
  if (zone) out += style == DateTimeStyle::kJson ? "+00:00" : "+00";
  append_era(date, out);
}

void append_interval(std::int32_t months, std::int32_t days, std::int64_t micros,
                     std::string& out) {
  const std::size_t start = out.size();
  bool before_negative = false;  // PostgreSQL writes a plus only after a negative part
  const auto append_part = [&](std::int32_t value, std::string_view unit) {
    if (value == 0) return;
    if (out.size() != start) out += ' ';
    if (before_negative && value > 0) out += '+';
    char digits[12];
    out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
    (out += ' ') += unit;
    if (value != 1) out += 's';
    before_negative = value < 0;
  };
  append_part(months / 12, "year");
  append_part(months % 12, "mon");
  append_part(days, "day");
  if (micros == 0 && out.size() != start) return;
  if (out.size() != start) out += ' ';
  if (micros < 0)
    out += '-';
  else if (before_negative)
    out += '+';
  const auto magnitude = static_cast<std::uint64_t>(micros);
  append_clock(micros < 0 ? 0 - magnitude : magnitude, out);
}

void append_float(float value, std::string& out) { append_number(value, out); }
void append_double(double value, std::string& out) { append_number(value, out); }

}  // namespace millrace::rendering
