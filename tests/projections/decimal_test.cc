#include "projections/decimal.h"

#include <cmath>
#include <random>

#include "projections/relational/datum.h"
#include "tests/support/catch.h"

using namespace millrace::projections;

namespace {

Decimal number(std::string_view text) {
  const auto parsed = Decimal::parse(text);
  REQUIRE(parsed);
  return *parsed;
}

std::string encoded(const Datum& datum) {
  std::string bytes;
  datum.encode(bytes);
  return bytes;
}

}  // namespace

TEST_CASE("a numeric's text comes back as it was", "[decimal]") {
  for (const char* text : {"0", "0.00", "1", "-1", "19.90", "-0.05",
                           "123456789012345678901234567890.123456789", "-99999999999999999999",
                           "0.000000000000000000001", "007", "NaN", "Infinity", "-Infinity"}) {
    INFO(text);
    CHECK(number(text).text() == (std::string(text) == "007" ? "7" : text));
  }
  for (const char* text : {"", "-", ".", "1.2.3", "abc", "+1", " 1", "0x10"}) {
    INFO(text);
    CHECK_FALSE(Decimal::parse(text));
  }
  CHECK_FALSE(Decimal::parse("0." + std::string(16'384, '0')));
}

TEST_CASE("an exponent moves the point, as PostgreSQL reads it", "[decimal]") {
  const auto text_of = [](std::string_view text) {
    const auto number = Decimal::parse(text);
    return number ? number->text() : "none";
  };
  CHECK(text_of("1e-3") == "0.001");
  CHECK(text_of("1.50e1") == "15.0");
  CHECK(text_of("-1.5E+3") == "-1500");
  CHECK(text_of("1e21") == "1000000000000000000000");
  CHECK(text_of("0e5") == "0");
  for (const char* none : {"e5", "1e", "1e+", "1e+-5", "1e5.0", "1e 5", "1e999999999999",
                           "1e-20000", "1e-2147483648", "1e2147483647"})
    CHECK(text_of(none) == "none");
  CHECK(Decimal::parse("1e400")->real() == HUGE_VAL);
  CHECK(Decimal::parse("-1e400")->real() == -HUGE_VAL);
  CHECK(Decimal::parse("1e-400")->real() == 0);
  CHECK(Decimal::parse("0.1")->real() == 0.1);
}

TEST_CASE("sums, differences and products are exact", "[decimal]") {
  CHECK((number("0.1") + number("0.2")).text() == "0.3");
  CHECK((number("1.50") + number("1.5")).text() == "3.00");
  CHECK((number("99999999999999999999") + Decimal(1)).text() == "100000000000000000000");
  CHECK((number("1.005") - number("1")).text() == "0.005");
  CHECK((number("19.90") * number("3")).text() == "59.70");
  CHECK((number("NaN") + number("1")).text() == "NaN");
  CHECK((number("Infinity") - number("Infinity")).text() == "NaN");
  CHECK((number("Infinity") + number("-7.5")).text() == "Infinity");
}

// What PostgreSQL 15 answers.
TEST_CASE("quotients have the digits that PostgreSQL gives them", "[decimal]") {
  CHECK((number("10") / number("3")).text() == "3.3333333333333333");
  CHECK((number("1") / number("3")).text() == "0.33333333333333333333");
  CHECK((number("2") / number("3")).text() == "0.66666666666666666667");
  CHECK((number("-2") / number("3")).text() == "-0.66666666666666666667");
  CHECK((number("100000") / number("7")).text() == "14285.714285714286");
  CHECK((number("0") / number("7")).text() == "0.00000000000000000000");
  CHECK((number("0.0001") / number("7")).text() == "0.000014285714285714285714");
  CHECK((number("59.70") / number("3")).text() == "19.9000000000000000");
}

TEST_CASE("numbers compare by size, whatever their digits", "[decimal]") {
  CHECK(number("1.5") == number("1.500"));
  CHECK(number("-2") < number("-1.9"));
  CHECK(number("Infinity") > number("99999999999999999999999999"));
  CHECK(number("NaN") > number("Infinity"));
  CHECK(number("NaN") == number("NaN"));
  CHECK(number("-Infinity") < number("-99999999999"));
}

TEST_CASE("encoded values sort as they compare, and come back", "[decimal][datum]") {
  std::mt19937_64 random(20261122);
  std::vector<Decimal> numbers{number("NaN"), number("Infinity"), number("-Infinity"), Decimal(0)};
  for (int i = 0; i < 300; ++i) {
    std::string text = random() % 2 == 0 ? "-" : "";
    const auto digits = 1 + random() % 30;
    for (std::size_t digit = 0; digit < digits; ++digit)
      text += static_cast<char>('0' + (random() % 3 == 0 ? 0 : random() % 10));
    if (random() % 2 == 0)
      text += "." + std::to_string(random() % 1000) + (random() % 2 ? "0" : "");
    numbers.push_back(number(text));
  }
  for (const Decimal& left : numbers) {
    const std::string left_bytes = encoded(left);
    std::string_view rest = left_bytes;
    const auto back = Datum::take(rest);
    REQUIRE(back);
    REQUIRE(rest.empty());
    REQUIRE(back->decimal()->text() == left.text());
    for (const Decimal& right : numbers) {
      if (left == right) continue;
      INFO(left.text() << " and " << right.text());
      REQUIRE((left < right) == (left_bytes < encoded(right)));
    }
  }
}

TEST_CASE("encoded lists of values sort as lists", "[datum]") {
  const std::vector<std::vector<Datum>> ascending{
      {Datum(), "z"},
      {Datum(INT64_MIN)},
      {Datum(-1), "a"},
      {Datum(-1), "b"},
      {Datum(5)},
      {Datum(-1e300)},
      {Datum(-0.5)},
      {Datum(0.0)},
      {Datum(1e-300)},
      {Datum(1e300)},
      {"", "b"},
      {"a", "b"},
      {std::string("a\0", 2), "a"},
      {std::string("a\0b", 3)},
      {"ab", ""},
      {Datum::blob("a")},
  };
  std::string last;
  for (const auto& list : ascending) {
    std::string bytes;
    for (const Datum& datum : list) datum.encode(bytes);
    REQUIRE(last < bytes);
    last = bytes;
    std::string_view rest = bytes;
    for (const Datum& datum : list) {
      const auto back = Datum::take(rest);
      REQUIRE(back);
      CHECK(*back == datum);
    }
    CHECK(rest.empty());
    for (std::size_t cut = 0; cut < bytes.size(); ++cut) {
      std::string_view part(bytes.data(), cut);
      std::size_t taken = 0;
      while (!part.empty() && Datum::take(part)) ++taken;
      CHECK(taken < list.size());
    }
  }
}
