#include "capture/pgoutput/datetime_text.h"

#include <limits>

namespace millrace::pgoutput {
namespace {

constexpr std::int64_t kMicrosPerSecond = 1'000'000;
constexpr std::int64_t kMicrosPerDay = 86'400 * kMicrosPerSecond;

// What PostgreSQL can hold (src/include/datatype/timestamp.h), in days since 2000-01-01.
constexpr std::int64_t kFirstDay = -2'451'545;           // 4714-11-24 BC
constexpr std::int64_t kLastDay = 2'145'031'948;         // 5874897-12-31, of a date
constexpr std::int64_t kLastTimestampDay = 106'751'982;  // 294276-12-31

/// Reads text front to back; the first failure sticks.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  /// A number of `digits_min` to `digits_max` digits; at most 18, so that it can't overflow.
  std::int64_t number(std::size_t digits_min, std::size_t digits_max) {
    std::int64_t value = 0;
    std::size_t digits = 0;
    for (; digits < text_.size() && digits < digits_max && is_digit(text_[digits]); ++digits)
      value = value * 10 + (text_[digits] - '0');
    if (digits < digits_min) return fail(), 0;
    text_.remove_prefix(digits);
    return value;
  }

  /// What follows a decimal point, as microseconds; 0 where there is no point.
  std::int64_t fraction() {
    if (!take('.')) return 0;
    const std::size_t before = text_.size();
    std::int64_t micros = number(1, 6);
    for (std::size_t digits = before - text_.size(); digits < 6; ++digits) micros *= 10;
    return micros;
  }

  bool take(char c) {
    if (text_.empty() || text_[0] != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool take(std::string_view word) {
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail();
  }

  void fail() { failed_ = true, text_ = {}; }
  bool at_end() const { return text_.empty(); }
  bool failed() const { return failed_; }
  /// Everything was read and nothing was wrong.
  bool done() const { return !failed_ && text_.empty(); }
  std::string_view rest() const { return text_; }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  std::string_view text_;
  bool failed_ = false;
};

struct CivilDate {
  std::int64_t year = 0;  ///< As written, from 1.
  std::int64_t month = 0;
  std::int64_t day = 0;
};

bool is_leap(std::int64_t year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

std::int64_t days_in_month(std::int64_t year, std::int64_t month) {
  constexpr std::int64_t kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month == 2 && is_leap(year) ? 29 : kDays[month - 1];
}

/// year "-" month "-" day
CivilDate read_date(Cursor& in) {
  CivilDate date;
  date.year = in.number(4, 7);
  in.expect('-');
  date.month = in.number(2, 2);
  in.expect('-');
  date.day = in.number(2, 2);
  return date;
}

/// Takes the era, which ends every text with a date, and gives days since 2000-01-01
/// (https://howardhinnant.github.io/date_algorithms.html#days_from_civil).
std::int64_t finish_date(Cursor& in, const CivilDate& date) {
  const bool before_christ = in.take(" BC");
  if (!in.done() || date.year == 0 || date.month < 1 || date.month > 12) return in.fail(), 0;
  std::int64_t year = before_christ ? 1 - date.year : date.year;  // astronomical: 0 is 1 BC
  if (date.day < 1 || date.day > days_in_month(year, date.month)) return in.fail(), 0;
  if (date.month <= 2) --year;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const std::int64_t year_of_era = year - era * 400;
  const std::int64_t day_of_year =
      (153 * (date.month > 2 ? date.month - 3 : date.month + 9) + 2) / 5 + date.day - 1;
  const std::int64_t day_of_era =
      year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 730'425;
}

/// hours ":" minutes ":" seconds ["." fraction], below `hours_max` + 1 hours
std::int64_t read_clock(Cursor& in, std::int64_t hours_max) {
  const std::int64_t hours = in.number(2, 10);
  in.expect(':');
  const std::int64_t minutes = in.number(2, 2);
  in.expect(':');
  const std::int64_t seconds = in.number(2, 2);
  const std::int64_t micros = in.fraction();
  if (hours > hours_max || minutes > 59 || seconds > 59) return in.fail(), 0;
  return (hours * 3600 + minutes * 60 + seconds) * kMicrosPerSecond + micros;
}

std::int64_t read_time(Cursor& in) {
  const std::int64_t micros = read_clock(in, 24);
  if (micros > kMicrosPerDay) in.fail();
  return micros;
}

/// The extreme of `Int` that "infinity" or "-infinity" stands for.
template <typename Int>
std::optional<Int> parse_infinity(std::string_view text) {
  if (text == "infinity") return std::numeric_limits<Int>::max();
  if (text == "-infinity") return std::numeric_limits<Int>::min();
  return std::nullopt;
}

/// Years, months and days of an interval: sign, number, unit. Nothing is taken where a time
/// follows.
struct IntervalPart {
  std::int64_t value = 0;
  char unit = 0;  ///< 'y', 'm' or 'd'; 0 where there is none.
};
IntervalPart read_interval_part(Cursor& in) {
  Cursor ahead = in;
  const bool negative = ahead.take('-');
  if (!negative) ahead.take('+');
  IntervalPart part;
  part.value = ahead.number(1, 10);
  if (negative) part.value = -part.value;
  if (ahead.failed() || !ahead.take(' ')) return {};
  part.unit = ahead.take("year") ? 'y' : ahead.take("mon") ? 'm' : ahead.take("day") ? 'd' : '\0';
  if (part.unit == 0) return {};
  ahead.take('s');
  if (!ahead.at_end() && !ahead.take(' ')) return {};
  in = ahead;
  return part;
}

/// A time of either sign. Its magnitude may be one more than the largest number.
std::int64_t read_interval_time(Cursor& in) {
  const bool negative = in.take('-');
  if (!negative) in.take('+');
  const std::int64_t hours = in.number(2, 10);
  in.expect(':');
  const std::int64_t minutes = in.number(2, 2);
  in.expect(':');
  const std::int64_t seconds = in.number(2, 2);
  const std::int64_t micros = in.fraction();
  if (minutes > 59 || seconds > 59) return in.fail(), 0;
  __int128 total = hours;
  total = (total * 3600 + minutes * 60 + seconds) * kMicrosPerSecond + micros;
  if (negative) total = -total;
  if (total != static_cast<std::int64_t>(total)) return in.fail(), 0;
  return static_cast<std::int64_t>(total);
}

bool is_int32(std::int64_t value) { return value == static_cast<std::int32_t>(value); }

}  // namespace

std::optional<std::int32_t> parse_date(std::string_view text) {
  if (const auto infinity = parse_infinity<std::int32_t>(text)) return infinity;
  Cursor in(text);
  const std::int64_t days = finish_date(in, read_date(in));
  if (in.failed() || days < kFirstDay || days > kLastDay) return std::nullopt;
  return static_cast<std::int32_t>(days);
}

std::optional<std::int64_t> parse_time(std::string_view text) {
  Cursor in(text);
  const std::int64_t micros = read_time(in);
  if (!in.done()) return std::nullopt;
  return micros;
}

std::optional<std::int64_t> parse_timestamp(std::string_view text, bool zone) {
  if (const auto infinity = parse_infinity<std::int64_t>(text)) return infinity;
  Cursor in(text);
  const CivilDate date = read_date(in);
  in.expect(' ');
  const std::int64_t micros = read_clock(in, 23);
  if (zone && !in.take("+00")) return std::nullopt;
  const std::int64_t days = finish_date(in, date);
  if (in.failed() || days < kFirstDay || days > kLastTimestampDay) return std::nullopt;
  return days * kMicrosPerDay + micros;
}

std::optional<TimeTz> parse_time_tz(std::string_view text) {
  Cursor in(text);
  TimeTz value{.micros = read_time(in)};
  const bool west = in.take('-');
  if (!west) in.expect('+');
  std::int64_t offset = in.number(2, 2) * 3600;
  for (std::int64_t unit = 60; unit >= 1 && in.take(':'); unit /= 60) {
    const std::int64_t part = in.number(2, 2);
    if (part > 59) in.fail();
    offset += part * unit;
  }
  if (!in.done() || offset >= 16 * 3600) return std::nullopt;
  value.offset_seconds = static_cast<std::int32_t>(west ? -offset : offset);
  return value;
}

std::optional<Interval> parse_interval(std::string_view text) {
  if (text == "infinity") return Interval{.infinity = 1};
  if (text == "-infinity") return Interval{.infinity = -1};
  Cursor in(text);
  std::int64_t months = 0, days = 0, micros = 0;
  std::string_view allowed = "ymd";  // each once, in this order
  while (!in.at_end()) {
    const IntervalPart part = read_interval_part(in);
    if (part.unit == 0) {
      micros = read_interval_time(in);
      break;
    }
    const std::size_t place = allowed.find(part.unit);
    if (place == std::string_view::npos) return std::nullopt;
    allowed.remove_prefix(place + 1);
    (part.unit == 'd' ? days : months) += part.unit == 'y' ? part.value * 12 : part.value;
  }
  if (text.empty() || text.back() == ' ' || !in.done() || !is_int32(months) || !is_int32(days))
    return std::nullopt;
  return Interval{.months = static_cast<std::int32_t>(months),
                  .days = static_cast<std::int32_t>(days),
                  .micros = micros};
}

}  // namespace millrace::pgoutput
