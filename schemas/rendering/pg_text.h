#pragma once

#include <cstdint>
#include <string>

/// Values as PostgreSQL writes them under DateStyle ISO, IntervalStyle postgres, TimeZone UTC and
/// extra_float_digits 3.
namespace millrace::rendering {

/// 'T' is what to_json writes between date and time, ' ' what the type's output does.
enum class DateTimeStyle : char { kJson = 'T', kSql = ' ' };

/// Days since 2000-01-01: "2026-01-01", "0044-03-15 BC", "-infinity".
void append_date(std::int32_t days, std::string& out);
/// Microseconds since midnight, 0 to 24 h: "04:05:06.789".
void append_time(std::int64_t micros, std::string& out);
/// "04:05:06+05:30"; `offset_seconds` east of UTC, less than a day.
void append_time_tz(std::int64_t micros, std::int32_t offset_seconds, std::string& out);
/// Microseconds since 2000-01-01. In JSON style "2026-01-01T00:00:00.5" and, with `zone`,
/// "...+00:00".
void append_timestamp(std::int64_t micros, bool zone, DateTimeStyle style, std::string& out);
/// "1 year 2 mons -3 days +04:05:06.789".
void append_interval(std::int32_t months, std::int32_t days, std::int64_t micros, std::string& out);

/// The fewest digits that only this value has: "0.1", "1e+23", "-0", "NaN", "-Infinity".
void append_float(float value, std::string& out);
void append_double(double value, std::string& out);

}  // namespace millrace::rendering
