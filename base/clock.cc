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

// https://howardhinnant.github.io/date_algorithms.html#days_from_civil
std::int64_t days_from_civil(const CivilDate& date) {
  const std::int64_t year = date.year - (date.month <= 2 ? 1 : 0);
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const auto year_of_era = static_cast<unsigned>(year - era * 400);
  const unsigned day_of_year =
      (153 * (date.month > 2 ? date.month - 3 : date.month + 9) + 2) / 5 + date.day - 1;
  const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + static_cast<std::int64_t>(day_of_era) - 719'468;
}

namespace {

/// Reads RFC 3339 front to back; the first thing that is not there sticks.
class TimeReader {
 public:
  explicit TimeReader(std::string_view text) : left_(text) {}

  unsigned number(std::size_t digits, unsigned least, unsigned greatest) {
    unsigned value = 0;
    for (std::size_t i = 0; i < digits; ++i) value = value * 10 + digit();
    if (value < least || value > greatest) failed_ = true;
    return value;
  }
  void one_of(std::string_view characters) {
    if (left_.empty() || characters.find(left_.front()) == std::string_view::npos)
      failed_ = true;
    else
      left_.remove_prefix(1);
  }
  bool take(char character) {
    if (left_.empty() || left_.front() != character) return false;
    left_.remove_prefix(1);
    return true;
  }
  bool at_digit() const { return !left_.empty() && left_.front() >= '0' && left_.front() <= '9'; }
  unsigned digit() {
    if (!at_digit()) return failed_ = true, 0;
    const auto value = static_cast<unsigned>(left_.front() - '0');
    left_.remove_prefix(1);
    return value;
  }
  bool ok() const { return !failed_ && left_.empty(); }

 private:
  std::string_view left_;
  bool failed_ = false;
};

/// "Z" or "+02:00", as seconds east of Greenwich.
std::int64_t read_zone(TimeReader& in) {
  if (in.take('Z') || in.take('z')) return 0;
  const bool west = in.take('-');
  if (!west) in.one_of("+");
  const std::int64_t hours = in.number(2, 0, 23);
  in.one_of(":");
  const std::int64_t seconds = hours * 3600 + std::int64_t{in.number(2, 0, 59)} * 60;
  return west ? -seconds : seconds;
}

}  // namespace

// date-time = 4DIGIT "-" 2DIGIT "-" 2DIGIT ("T" / " ") 2DIGIT ":" 2DIGIT ":" 2DIGIT ["." 1*DIGIT]
//             ("Z" / ("+" / "-") 2DIGIT ":" 2DIGIT)                    RFC 3339, section 5.6
Result<UnixMicros> parse_rfc3339(std::string_view text) {
  TimeReader in(text);
  CivilDate date{.year = in.number(4, 0, 9999)};
  in.one_of("-");
  date.month = in.number(2, 1, 12);
  in.one_of("-");
  date.day = in.number(2, 1, 31);
  in.one_of("Tt ");
  std::int64_t seconds = in.number(2, 0, 23);
  in.one_of(":");
  seconds = seconds * 60 + in.number(2, 0, 59);
  in.one_of(":");
  seconds = seconds * 60 + in.number(2, 0, 60);  // 60: a leap second is the next minute's first
  std::int64_t micros = 0;
  if (in.take('.')) {
    std::int64_t unit = 100'000;
    do micros += unit * in.digit(), unit /= 10;
    while (in.at_digit());
  }
  seconds -= read_zone(in);
  const std::int64_t days = days_from_civil(date);
  const CivilDate same = civil_from_days(days);
  if (!in.ok() || same.month != date.month || same.day != date.day)
    return Error(ErrorCode::kInvalidArgument,
                 "'" + printable(text) + "' is no time like 2026-01-31T10:00:00Z");
  return UnixMicros{(days * 86'400 + seconds) * 1'000'000 + micros};
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
