#include "projections/values.h"

#include <limits>

#include "tests/support/catch.h"

using namespace millrace;
using namespace millrace::projections;

namespace {
constexpr std::int64_t kDay = 86'400'000'000;
constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
}  // namespace

TEST_CASE("a timestamptz becomes Unix time where there is one", "[projections][values]") {
  CHECK(unix_micros(0) == UnixMicros{946'684'800'000'000});
  CHECK(unix_micros(-946'684'800'000'000) == UnixMicros{0});
  CHECK(unix_micros(kMin) == std::nullopt);
  CHECK(unix_micros(kMax) == std::nullopt);
  CHECK(unix_micros(kMax - 1) == std::nullopt);
  CHECK(timestamptz_of(UnixMicros{946'684'800'000'001}) == 1);
  CHECK(std::chrono::system_clock::to_time_t(*time_point(0)) == 946'684'800);
}

TEST_CASE("times are written as ISO 8601 over PostgreSQL's whole range", "[projections][values]") {
  CHECK(iso_timestamptz(0) == "2000-01-01T00:00:00.000000Z");
  CHECK(iso_timestamptz(-1) == "1999-12-31T23:59:59.999999Z");
  CHECK(iso_timestamp(59 * kDay + 45'296'000'001) == "2000-02-29T12:34:56.000001");
  CHECK(iso_timestamptz(820'454'400'000'001) == "2025-12-31T00:00:00.000001Z");
  CHECK(iso_timestamptz(kMin) == "-infinity");
  CHECK(iso_timestamptz(kMax) == "infinity");
  CHECK(iso_date(0) == "2000-01-01");
  CHECK(iso_date(-1) == "1999-12-31");
  CHECK(iso_date(-730'119) == "0001-01-01");
  CHECK(iso_date(-730'120) == "0000-12-31");
  CHECK(iso_date(-730'486) == "-0001-12-31");
  CHECK(iso_date(-2'451'545) == "-4713-11-24");  // the first day that PostgreSQL has
  CHECK(iso_date(2'921'940) == "+10000-01-01");
  CHECK(iso_date(std::numeric_limits<std::int32_t>::max()) == "infinity");
}

TEST_CASE("a numeric becomes an integer exactly or not at all", "[projections][values]") {
  CHECK(scaled("19.90", 2) == 1990);
  CHECK(scaled("-19.9", 2) == -1990);
  CHECK(scaled("19.900", 2) == 1990);
  CHECK(scaled("7", 2) == 700);
  CHECK(scaled("0", 0) == 0);
  CHECK(scaled("9223372036854775807", 0) == kMax);
  CHECK(scaled("-9223372036854775808", 0) == kMin);
  for (const char* text :
       {"19.901", "NaN", "Infinity", "", "-", "1e3", "1.2.3", "9223372036854775808"}) {
    INFO(text);
    CHECK(scaled(text, 2) == std::nullopt);
  }
}

TEST_CASE("an array of text is joined without its nulls", "[projections][values]") {
  v1::StringArray array;
  CHECK(joined(array).empty());
  for (const char* text : {"a", "", "b"}) array.add_values(text);
  array.add_nulls(1);
  CHECK(joined(array) == "a b");
  CHECK(joined(array, ", ") == "a, b");
  array.set_text("{{a},{b}}");
  CHECK(joined(array) == "{{a},{b}}");
}
