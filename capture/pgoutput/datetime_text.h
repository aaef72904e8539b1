#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

/// PostgreSQL's text of dates and times under DateStyle ISO, IntervalStyle postgres and TimeZone
/// UTC (https://www.postgresql.org/docs/15/datatype-datetime.html). Nothing where the text is no
/// such value, or one that PostgreSQL can't hold.
namespace millrace::pgoutput {

/// Days since 2000-01-01; the extremes are -infinity and infinity. "0044-03-15 BC"
std::optional<std::int32_t> parse_date(std::string_view text);
/// Microseconds since midnight, up to 24:00:00.
std::optional<std::int64_t> parse_time(std::string_view text);
/// Microseconds since 2000-01-01; the extremes are -infinity and infinity. With `zone` the text
/// must say "+00".
std::optional<std::int64_t> parse_timestamp(std::string_view text, bool zone);

struct TimeTz {
  std::int64_t micros = 0;
  std::int32_t offset_seconds = 0;  ///< East of UTC.
};
/// "04:05:06.789+05:30"
std::optional<TimeTz> parse_time_tz(std::string_view text);

struct Interval {
  std::int32_t months = 0;
  std::int32_t days = 0;
  std::int64_t micros = 0;
  std::int32_t infinity = 0;  ///< 1 or -1; the parts are then 0.
};
/// "1 year 2 mons -3 days +04:05:06.789"
std::optional<Interval> parse_interval(std::string_view text);

}  // namespace millrace::pgoutput
