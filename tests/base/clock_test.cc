#include "base/clock.h"

#include "tests/support/catch.h"

using namespace millrace;

namespace {

std::string again(std::string_view text) {
  const auto time = parse_rfc3339(text);
  return time ? to_iso8601(*time) : "refused";
}

}  // namespace

TEST_CASE("a time of RFC 3339 is read as what it says", "[base][clock]") {
  CHECK(again("2026-01-31T10:00:00Z") == "2026-01-31T10:00:00.000000Z");
  CHECK(again("2026-01-31 10:00:00.5+02:00") == "2026-01-31T08:00:00.500000Z");
  CHECK(again("2026-01-31t23:59:59.123456789-00:30") == "2026-02-01T00:29:59.123456Z");
  CHECK(again("1969-12-31T23:59:59.999999z") == "1969-12-31T23:59:59.999999Z");
  CHECK(again("2016-12-31T23:59:60Z") == "2017-01-01T00:00:00.000000Z");
  CHECK(again("2024-02-29T00:00:00Z") == "2024-02-29T00:00:00.000000Z");
  CHECK(again("0000-01-01T00:00:00Z") == "0000-01-01T00:00:00.000000Z");
  CHECK(again("9999-12-31T23:59:59.999999Z") == "9999-12-31T23:59:59.999999Z");
}

TEST_CASE("what is no time of RFC 3339 is refused", "[base][clock]") {
  for (const char* text : {"",
                           "now",
                           "2026-01-31",
                           "2026-01-31T10:00:00",
                           "2026-01-31T10:00Z",
                           "2026-1-31T10:00:00Z",
                           "2026-01-31T10:00:00.Z",
                           "2026-01-31T24:00:00Z",
                           "2026-01-31T10:60:00Z",
                           "2026-01-31T10:00:61Z",
                           "2026-13-01T10:00:00Z",
                           "2026-02-29T10:00:00Z",
                           "2026-04-31T10:00:00Z",
                           "2026-00-01T10:00:00Z",
                           "2026-01-00T10:00:00Z",
                           "2026-01-31T10:00:00+2",
                           "2026-01-31T10:00:00+24:00",
                           "2026-01-31T10:00:00Z ",
                           " 2026-01-31T10:00:00Z",
                           "+026-01-31T10:00:00Z",
                           "2026-01-31X10:00:00Z"})
    CHECK(again(text) == "refused");
}

TEST_CASE("days and dates are each other's inverse", "[base][clock]") {
  for (std::int64_t day = -800'000; day <= 3'000'000; day += 37)
    REQUIRE(days_from_civil(civil_from_days(day)) == day);
}
