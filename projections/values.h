#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "millrace/v1/values.pb.h"

// PostgreSQL's values as row messages hold them, in forms that a view or a program can use.
// docs/rows.md lists which column type becomes what. All of it is pure.

namespace millrace::projections {

/// PostgreSQL counts microseconds from 2000-01-01 00:00 UTC; this many after the Unix epoch.
inline constexpr std::int64_t kPostgresEpochUnixMicros = 946'684'800'000'000;

using TimePoint = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

/// A timestamptz as Unix time; nothing for -infinity and infinity, and where Unix time does not
/// reach.
std::optional<UnixMicros> unix_micros(std::int64_t timestamptz);
std::optional<TimePoint> time_point(std::int64_t timestamptz);
/// The other way, as a row message holds it.
std::int64_t timestamptz_of(UnixMicros time);

/// "2026-01-01T12:30:00.000001Z"; six digits always, so that text sorts as time does from the year
/// 0 to 9999. Beyond, the year has a sign, as ISO 8601 wants it. "-infinity" and "infinity" as
/// PostgreSQL has them.
std::string iso_timestamptz(std::int64_t timestamptz);
/// "2026-01-01T12:30:00.000001", of a timestamp without zone.
std::string iso_timestamp(std::int64_t timestamp);
/// "2026-01-01", of a date.
std::string iso_date(std::int32_t date);

/// A numeric as an integer number of 10^-digits: scaled("19.90", 2) is 1990. Exact: nothing if it
/// is NaN or infinite, has more digits after the point than asked for (but for zeros), or is too
/// large.
std::optional<std::int64_t> scaled(std::string_view numeric, int digits);

/// joined(array, ", "): the elements of a text[] that are not null, with `between` between them;
/// text of another shape as it is. An object, so that change.map(&Row::tags, joined) is possible,
/// too.
struct Joined {
  std::string operator()(const v1::StringArray& array, std::string_view between = " ") const;
};
inline constexpr Joined joined;

}  // namespace millrace::projections
