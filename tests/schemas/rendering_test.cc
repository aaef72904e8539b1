#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "schemas/rendering/json_string.h"
#include "schemas/rendering/pg_text.h"
#include "tests/support/catch.h"

namespace millrace::rendering {
namespace {

template <typename Append, typename... Values>
std::string text_of(const Append& append, const Values&... values) {
  std::string out = "#";  // what was there stays
  append(values..., out);
  REQUIRE(out[0] == '#');
  return out.substr(1);
}

std::string json_text(std::string_view text) { return text_of(append_json_text, text); }

}  // namespace

TEST_CASE("B43: a string is escaped so that it is one line, harmless and the same when read",
          "[json]") {
  CHECK(json_text("") == R"("")");
  CHECK(json_text("plain") == R"("plain")");
  CHECK(json_text("\"\\/\b\f\n\r\t\x01\x1f") == R"("\"\\/\b\f\n\r\t\u0001\u001f")");
  CHECK(json_text(std::string_view("a\0b", 3)) == R"("a\u0000b")");
  CHECK(json_text("\x7f\u0080\u0085\u009f\u00a0") == "\"\\u007f\\u0080\\u0085\\u009f\u00a0\"");
  CHECK(json_text("\u2027\u2028\u2029\u202a") == "\"\u2027\\u2028\\u2029\u202a\"");
  CHECK(json_text("水🌊") == "\"水🌊\"");
  std::string all;
  for (char32_t c = 1; c < 0x3000; ++c) {
    if (c < 0x80) {
      all += static_cast<char>(c);
    } else if (c < 0x800) {
      all += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
    } else {
      all += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3f)),
              static_cast<char>(0x80 | (c & 0x3f))};
    }
  }
  CHECK(nlohmann::json::parse(json_text(all)).get<std::string>() == all);
}

TEST_CASE("B14: bytes that are no UTF-8 are kept as base64, visibly", "[json]") {
  CHECK(json_text("caf\xe9") == R"({"base64":"Y2Fm6Q=="})");
  CHECK(json_text("\xff") == R"({"base64":"/w=="})");
  CHECK(json_text("ok\xed\xa0\x80") == R"({"base64":"b2vtoIA="})");  // a surrogate
  CHECK(text_of(append_json_name, std::string_view("caf\xe9\"\xff")) == R"("caf\\xe9\"\\xff")");
}

TEST_CASE("base64 is RFC 4648's", "[json]") {
  const auto base64 = [](std::string_view bytes) { return text_of(append_json_base64, bytes); };
  CHECK(base64("") == R"("")");
  CHECK(base64("f") == R"("Zg==")");
  CHECK(base64("fo") == R"("Zm8=")");
  CHECK(base64("foo") == R"("Zm9v")");
  CHECK(base64("foob") == R"("Zm9vYg==")");
  CHECK(base64("fooba") == R"("Zm9vYmE=")");
  CHECK(base64("foobar") == R"("Zm9vYmFy")");
  CHECK(base64("\xfb\xff\xfe") == R"("+//+")");
}

TEST_CASE("B54: what is JSON and what is not", "[json]") {
  for (const std::string_view good : {"null",
                                      "true",
                                      "false",
                                      "0",
                                      "-0",
                                      "1.5",
                                      "-1.5e+10",
                                      "1E5",
                                      "1e400",
                                      "\"\"",
                                      "\"a\\u00e4\\n\\/\"",
                                      "\"\\ud800\"",
                                      "[]",
                                      "{}",
                                      "[1,2]",
                                      " [ 1 , {\"a\" : [ ] , \"b\":null} ] \n",
                                      "{\"a\":1,\"a\":2}",
                                      "\"水\x7f\"",
                                      "[[],{}]",
                                      "{\"a\":{},\"b\":[]}"}) {
    CAPTURE(good);
    CHECK(is_json(good));
  }
  for (const std::string_view bad :
       {"",          " ",           "nul",      "nulll",    "True",
        "01",        "-",           "1.",       ".5",       "1e",
        "1e+",       "+1",          "\"",       "\"\\",     "\"\\x\"",
        "\"\\u12\"", "\"\\u12g4\"", "\"\n\"",   "\"\xff\"", "\xef\xbb\xbf{}",
        "[",         "]",           "[1",       "[1,",      "[1,]",
        "[,1]",      "[1 2]",       "{",        "{\"a\"",   "{\"a\":",
        "{\"a\":1",  "{\"a\":1,}",  "{a:1}",    "{1:2}",    "{\"a\" 1}",
        "{]",        "[}",          "1 2",      "[]]",      "{}{}",
        "'a'",       "NaN",         "Infinity", "水"}) {
    CAPTURE(bad);
    CHECK_FALSE(is_json(bad));
  }
  const std::string deep(1'000'000, '[');
  CHECK_FALSE(is_json(deep));
  CHECK(is_json(deep + std::string(deep.size(), ']')));
  CHECK_FALSE(is_json(deep + std::string(deep.size() - 1, ']')));
}

TEST_CASE("every start of a JSON value that is not a value itself is none", "[json]") {
  const std::string_view json = R"({"a":[1.5e3,"x\u0041",true,null],"b":{"c":-1}})";
  for (std::size_t size = 0; size < json.size(); ++size) CHECK_FALSE(is_json(json.substr(0, size)));
  CHECK(is_json(json));
}

TEST_CASE("embedded JSON stays what it is, on one line", "[json]") {
  const std::string_view json = "{\n\t\"a\" :\r\n [1,\"x\\n \u2028\u0085\x7f水\"]\n}";
  const std::string line = text_of(append_json_verbatim, json);
  CHECK(line == "{ \t\"a\" :   [1,\"x\\n \\u2028\\u0085\\u007f水\"] }");
  CHECK(nlohmann::json::parse(line) == nlohmann::json::parse(json));
}

TEST_CASE("B12: dates and times are written as PostgreSQL does, whatever the number", "[json]") {
  CHECK(text_of(append_date, 0) == "2000-01-01");
  CHECK(text_of(append_date, -1) == "1999-12-31");
  CHECK(text_of(append_date, 59) == "2000-02-29");
  CHECK(text_of(append_date, -730'119) == "0001-01-01");
  CHECK(text_of(append_date, -730'120) == "0001-12-31 BC");
  CHECK(text_of(append_date, std::numeric_limits<std::int32_t>::max()) == "infinity");
  CHECK(text_of(append_date, std::numeric_limits<std::int32_t>::min()) == "-infinity");
  CHECK(text_of(append_date, std::numeric_limits<std::int32_t>::max() - 1).starts_with("5881610-"));
  const auto timestamp = [](std::int64_t micros) {
    return text_of([](std::int64_t m,
                      std::string& out) { append_timestamp(m, true, DateTimeStyle::kJson, out); },
                   micros);
  };
  CHECK(timestamp(0) == "2000-01-01T00:00:00+00:00");
  CHECK(timestamp(-1) == "1999-12-31T23:59:59.999999+00:00");
  CHECK(timestamp(500'000) == "2000-01-01T00:00:00.5+00:00");
  CHECK(timestamp(std::numeric_limits<std::int64_t>::max()) == "infinity");
  CHECK(timestamp(std::numeric_limits<std::int64_t>::min()) == "-infinity");
  CHECK(timestamp(std::numeric_limits<std::int64_t>::min() + 1).ends_with(" BC"));
  CHECK(text_of(append_time_tz, std::int64_t{86'400'000'000}, -57'599) == "24:00:00-15:59:59");
  CHECK(text_of(append_time_tz, std::int64_t{1}, 19'800) == "00:00:00.000001+05:30");
}

TEST_CASE("an interval of any extreme is written without overflow", "[json]") {
  using Int32 = std::numeric_limits<std::int32_t>;
  using Int64 = std::numeric_limits<std::int64_t>;
  CHECK(text_of(append_interval, 0, 0, std::int64_t{0}) == "00:00:00");
  CHECK(text_of(append_interval, 14, -3, std::int64_t{14'706'789'000}) ==
        "1 year 2 mons -3 days +04:05:06.789");
  CHECK(text_of(append_interval, -1, 1, std::int64_t{-1}) == "-1 mons +1 day -00:00:00.000001");
  CHECK(text_of(append_interval, Int32::min(), Int32::min(), Int64::min()) ==
        "-178956970 years -8 mons -2147483648 days -2562047788:00:54.775808");
  CHECK(text_of(append_interval, Int32::max(), Int32::max(), Int64::max()) ==
        "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807");
}

TEST_CASE("floats are written with the fewest digits that read back, as PostgreSQL does",
          "[json]") {
  CHECK(text_of(append_double, 0.1) == "0.1");
  CHECK(text_of(append_double, -0.0) == "-0");
  CHECK(text_of(append_double, 1e14) == "100000000000000");
  CHECK(text_of(append_double, 1e15) == "1e+15");
  CHECK(text_of(append_double, 0.0001) == "0.0001");
  CHECK(text_of(append_double, 0.00001) == "1e-05");
  CHECK(text_of(append_double, 5e-324) == "5e-324");
  CHECK(text_of(append_double, 1.5e300) == "1.5e+300");
  CHECK(text_of(append_float, 1e5f) == "100000");
  CHECK(text_of(append_float, 1e6f) == "1e+06");
  CHECK(text_of(append_float, 0.1f) == "0.1");
  CHECK(text_of(append_double, std::nan("")) == "NaN");
  CHECK(text_of(append_float, -std::numeric_limits<float>::infinity()) == "-Infinity");
  // Half way between two doubles: readers that round otherwise would give the neighbour.
  CHECK(text_of(append_double, 9007199254740994.0 * 1024) != "9.223372036854776e+18");
}

TEST_CASE("any float comes back from its text", "[json]") {
  std::mt19937_64 random(20'260'101);
  for (int i = 0; i < 20'000; ++i) {
    const auto value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    const std::string text = text_of(append_double, value);
    const double back = std::strtod(text.c_str(), nullptr);
    if (std::bit_cast<std::uint64_t>(back) != std::bit_cast<std::uint64_t>(value)) FAIL(text);
  }
}

}  // namespace millrace::rendering
