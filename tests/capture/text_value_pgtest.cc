// PostgreSQL is the judge: what it writes as text goes through append_text_value() and comes out as
// JSON, which is compared with its own to_json, but for the exceptions that docs/rows.md lists.

#include <bit>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "capture/pgoutput/builtin_types.h"
#include "capture/pgoutput/text_value.h"
#include "schemas/rendering/row.h"
#include "tests/schemas/dynamic_row.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {
namespace {

using pgoutput::builtin_type;
using Literals = std::vector<std::string>;

constexpr unsigned kSeed = 20'260'101;
constexpr int kRandomValues = 100;

/// What to_json would give, where ours differs from it on purpose.
const std::string kToJson = "to_json(v)";
const std::string kAsText = "to_json(v::text)";
const std::string kBase64 = "to_json(translate(encode(v, 'base64'), E'\\n', ''))";
const std::string kInt8 =
    "CASE WHEN v BETWEEN -9007199254740992 AND 9007199254740992 THEN to_json(v) ELSE "
    "to_json(v::text) END";

std::string of_elements(const std::string& expected) {
  return "(SELECT coalesce(array_to_json(array_agg(CASE WHEN e IS NULL THEN NULL ELSE (SELECT " +
         expected + " FROM (SELECT e AS v) x) END)), '[]') FROM unnest(v) AS e)";
}

struct TypeCase {
  std::string type;
  Literals values;
  std::string random;  ///< SQL of one random value, may use `i`; empty for none.
  std::string expected = kToJson;
};

class Oracle {
 public:
  Oracle() {
    database_.exec(
        "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = postgres; SET extra_float_digits = 3; "
        "SET bytea_output = hex; SET TimeZone = 'UTC'; SET xmloption = content");
    database_.exec(
        "CREATE TYPE mood AS ENUM ('sad', 'o''k', 'very \"happy\", {so}', '');"
        "CREATE TYPE pair AS (a int, b text);"
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)");
    database_.query("SELECT setseed(0.5)");
  }

  TestDatabase& database() { return database_; }

  /// Compares all values of `test`; gives how many there were.
  std::size_t compare(const TypeCase& test, ValueKind kind, bool array, std::uint32_t type_oid) {
    INFO("type " << test.type);
    TableSchema schema{
        .category = "public.t", .version = 1, .schema_name = "public", .table_name = "t"};
    schema.columns.push_back({.name = "v",
                              .field = 1,
                              .kind = kind,
                              .array = array,
                              .type_oid = type_oid,
                              .type_name = test.type});
    const DynamicRow message(schema);
    const Rows rows = database_.query(sql_of(test));
    for (const auto& row : rows) {
      REQUIRE(row[0].has_value());
      compare_value(schema, message, *row[0], row[1].value());
    }
    return rows.size();
  }

 private:
  static std::string sql_of(const TypeCase& test) {
    std::string values;
    for (const std::string& value : test.values)
      values += (values.empty() ? "VALUES ('" : ", ('") + doubled(value) + "'::" + test.type + ")";
    if (!test.random.empty())
      values += " UNION ALL SELECT (" + test.random + ")::" + test.type +
                " FROM generate_series(1, " + std::to_string(kRandomValues) + ") AS i";
    return "SELECT v, (" + test.expected + ")::text FROM (" + values + ") AS t (v)";
  }

  static std::string doubled(const std::string& text) {
    std::string result;
    for (const char c : text) result += c == '\'' ? "''" : std::string(1, c);
    return result;
  }

  static void compare_value(const TableSchema& schema, const DynamicRow& message,
                            const std::string& text, const std::string& expected) {
    CAPTURE(text.substr(0, 200), expected.substr(0, 200));
    std::string bytes, json;
    const auto appended = pgoutput::append_text_value(schema.columns[0], text, bytes);
    if (!appended) FAIL(appended.error().to_string());
    CHECK(message.parse(bytes).has_value());
    rendering::Row row;
    REQUIRE(row.read(schema, bytes));
    REQUIRE(row.field(0) != nullptr);
    REQUIRE(rendering::append_value(schema.columns[0], *row.field(0), json));
    CHECK(json.find('\n') == std::string::npos);
    if (same_text(json, expected)) return;
    // Escaped another way: DEL, C1 controls, line separators. Numbers never come here unnoticed.
    CAPTURE(json.substr(0, 200));
    REQUIRE(json.find('"') != std::string::npos);
    CHECK(nlohmann::json::parse(json) == nlohmann::json::parse(expected));
  }

  /// A json value may hold newlines between its tokens, which are spaces in ours.
  static bool same_text(const std::string& json, const std::string& expected) {
    std::string line = expected;
    for (char& c : line)
      if (c == '\n' || c == '\r') c = ' ';
    return json == line;
  }

  TestDatabase database_;
};

/// Doubles (or floats) that are hard to print: all orders of magnitude, neighbours of powers of
/// two, random bits.
template <typename Float, typename Bits>
Literals hard_floats() {
  std::vector<Float> floats = {0,
                               Float(-0.0),
                               1,
                               Float(0.1),
                               Float(1) / 3,
                               std::numeric_limits<Float>::max(),
                               std::numeric_limits<Float>::min(),
                               std::numeric_limits<Float>::denorm_min(),
                               std::numeric_limits<Float>::epsilon(),
                               Float(123456789012345678.0)};
  constexpr int kExponentMax = std::numeric_limits<Float>::max_exponent10;
  for (int exponent = -kExponentMax; exponent <= kExponentMax; ++exponent)
    for (const Float digit : {1, 2, 5, 7, 9}) {
      const Float value = digit * std::pow(Float(10), Float(exponent));
      if (std::isfinite(value)) floats.push_back(value);
    }
  for (int power = -30; power < 120; ++power) {
    const Float value = std::ldexp(Float(1), power);
    for (const Float near :
         {value, std::nextafter(value, Float(0)), std::nextafter(value, value * 2)})
      floats.push_back(near);
  }
  std::mt19937_64 random(kSeed);
  while (floats.size() < 2000) {
    const auto value = std::bit_cast<Float>(static_cast<Bits>(random()));
    if (std::isfinite(value)) floats.push_back(value);
  }
  Literals literals = {"NaN", "Infinity", "-Infinity", "1e23", "9007199254740993", "5e-324"};
  if (sizeof(Float) == 4) literals.resize(4);
  for (const Float value : floats) {
    char text[64];
    literals.emplace_back(text, std::to_chars(text, text + sizeof text, value).ptr);
  }
  return literals;
}

const std::string kRandomBits = "('x' || substr(md5(random()::text), 1, 16))::bit(64)::bigint";
const std::string kRandomText =
    "(SELECT string_agg(substr(E'aZ0 "
    ",;{}()\"\\\\''NULL\\n\\t\\u00e4\\u2028\\u0085\\u007f\\u6c34\\U0001F30A', "
    "1 + (random() * 24)::int, 1 + (random() * 3)::int), '') FROM generate_series(0, i % 7))";
const std::string kRandomTimestamp =
    "timestamp '2000-01-01' + ((random() - 0.02) * 9e18)::bigint * interval '1 microsecond'";

std::vector<TypeCase> scalar_cases() {
  const Literals texts = {"",
                          " ",
                          "a",
                          "NULL",
                          "null",
                          "\"",
                          "\\",
                          "\\\\x",
                          "a\nb\r\n\tc",
                          "\x01\x1f\x7f",
                          "\u0085\u009b",
                          "line\u2028para\u2029",
                          "Grüße, 水, 🌊, \u202e",
                          "{}",
                          "{\"a\":1}",
                          "'",
                          std::string(5000, 'x')};
  return {
      {"bool", {"t", "f"}, "random() < 0.5"},
      {"int2", {"0", "1", "-1", "32767", "-32768"}, "(random() * 65535 - 32768)::int"},
      {"int4", {"0", "2147483647", "-2147483648"}, "(random() * 4294967295 - 2147483648)::bigint"},
      {"int8",
       {"0", "-1", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740992",
        "-9007199254740993", "9223372036854775807", "-9223372036854775808"},
       kRandomBits,
       kInt8},
      {"oid", {"0", "1", "2147483648", "4294967295"}, "(random() * 4294967295)::bigint", "v::text"},
      {"float4", hard_floats<float, std::uint32_t>(), ""},
      {"float8", hard_floats<double, std::uint64_t>(), ""},
      {"numeric",
       {"0", "-0", "0.00", "1", "-1.50", "NaN", "Infinity", "-Infinity", "1e-16383", "1e400",
        "1" + std::string(131071, '0'), "0." + std::string(16382, '9') + "1",
        "99999999999999999999.999999999999999999"},
       "(random() * 1e12)::numeric(30, 12) - 5e11",
       kAsText},
      {"numeric(12,2)", {"0", "19.9", "-1234567890.12"}, "random() * 1e9", kAsText},
      {"text", texts, kRandomText},
      {"varchar", texts, kRandomText},
      {"varchar(20)", {"", "abc"}, ""},
      {"char(10)", {"", "abc", "Grüße"}, ""},
      {"name", {"", "pg_class", "a\"b"}, ""},
      {"\"char\"", {"", "a", "\\"}, ""},
      {"xml", {"<a b=\"c\">\n&amp;</a>", ""}, ""},
      {"bytea",
       {"", "\\x00", "\\xdeadbeef", "\\x0001fffe", "abc"},
       "decode(repeat(md5(random()::text), i % 5), 'hex')",
       kBase64},
      {"date",
       {"2000-01-01", "1999-12-31", "2024-02-29", "1970-01-01", "0001-01-01", "0001-12-31 BC",
        "0044-03-15 BC", "4714-11-24 BC", "5874897-12-31", "10000-01-01", "infinity", "-infinity",
        "1900-02-28", "0004-02-29", "0005-02-28 BC", "0001-02-29 BC"},
       "date '2000-01-01' + (random() * 2147483492.0 - 2451545)::int"},
      {"time",
       {"00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.7", "00:00:00.000001"},
       "time '00:00' + random() * interval '24 hours'"},
      {"timetz",
       {"00:00:00+00", "24:00:00-15:59:59", "23:59:59.999999+15:59:59", "12:00:00-08",
        "04:05:06.789+05:30", "01:02:03-00:30", "01:02:03+00:00:01", "01:02:03-00:00:59"},
       "(time '00:00' + random() * interval '24 hours')::text || CASE WHEN random() < 0.5 THEN '-' "
       "ELSE '+' END || "
       "to_char((random() * 15)::int, 'FM00') || ':' || to_char((random() * 59)::int, 'FM00') || "
       "':' || "
       "to_char((random() * 59)::int, 'FM00')"},
      {"timestamp",
       {"2000-01-01", "1999-12-31 23:59:59.999999", "2026-01-01 00:00:00.000001",
        "0044-03-15 12:00:00 BC", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999",
        "10000-01-01", "infinity", "-infinity", "0001-01-01 00:00:00", "0001-12-31 23:59:59.5 BC"},
       kRandomTimestamp},
      {"timestamptz",
       {"2000-01-01 00:00:00+00", "2026-01-01 00:00:00.000001+01", "0044-03-15 12:00:00+00 BC",
        "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "infinity", "-infinity"},
       kRandomTimestamp},
      {"interval",
       {"0",
        "1 year",
        "-1 year",
        "2 years",
        "1 mon",
        "-1 mons",
        "1 day",
        "-1 day",
        "1 year 2 mons -3 days 04:05:06.789",
        "-1 year 3 days",
        "-1 days +00:00:01",
        "-00:00:01",
        "-00:00:00.000001",
        "1 mon -00:00:00.5",
        "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807",
        "-178956970 years -7 mons",
        "-2147483648 days",
        "-2562047788:00:54.775807",
        "100:00:00",
        "-11 mons 1 day -1 us"},
       "((random() - 0.5) * 4e9)::bigint * interval '1 microsecond' * (1 + 1000 * (i % 3)) + "
       "((random() - 0.5) * 4000)::int * interval '1 day' + ((random() - 0.5) * 4000)::int * "
       "interval '1 month'"},
      {"uuid",
       {"00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
       "md5(random()::text)::uuid"},
      {"json",
       {"null", "1e400", "-0.0", "\"\\ud83c\\udf0a\"", "\"\\u0000\"", "{}",
        " {\n\t\"b\" : 1,\r\n \"a\":[1, 2 ,{}]} ", "{\"a\":1,\"a\":2}", "\"水 \u2028\"",
        std::string(3000, '[') + std::string(3000, ']'), "123456789012345678901234567890"},
       "json_build_object('k', random(), 't', " + kRandomText + ")"},
      {"jsonb",
       {"null", "1e400", "true", "{\"b\":1,\"a\":[1,2,{}]}", "\"\\u2028\\u007f\"", "0.10",
        std::string(3000, '[') + std::string(3000, ']')},
       "jsonb_build_object('k', random(), 't', " + kRandomText + ")"},
      {"mood", {"sad", "o'k", "very \"happy\", {so}", ""}, ""},
      {"positive", {"1", "2147483647"}, ""},
      {"pair", {"(1,a)", "(,)", "(-5,\"x, \"\"y\"\" \\\\\")"}, "", kAsText},
      {"money", {"0", "-12.34", "92233720368547758.07"}, ""},
      {"inet", {"127.0.0.1", "10.0.0.0/8", "::1", "fe80::1/64"}, ""},
      {"cidr", {"10.0.0.0/8"}, ""},
      {"macaddr", {"08:00:2b:01:02:03"}, ""},
      {"macaddr8", {"08:00:2b:01:02:03:04:05"}, ""},
      {"point", {"(1.5,-2)", "(NaN,Infinity)"}, ""},
      {"box", {"((0,0),(1,1))"}, ""},
      {"circle", {"<(0,0),1>"}, ""},
      {"bit(4)", {"1010"}, ""},
      {"varbit", {"", "101"}, ""},
      {"tsvector", {"'a':1 'b c':2A", ""}, ""},
      {"tsquery", {"'a' & !'b'"}, ""},
      {"int4range", {"empty", "[1,10)", "(,)"}, ""},
      {"numrange", {"[1.5,2.50]"}, ""},
      {"tstzrange", {"[2026-01-01,infinity)", "(,2026-01-01]"}, ""},
      {"int4multirange", {"{}", "{[1,3),[5,8)}"}, ""},
      {"pg_lsn", {"0/0", "FFFFFFFF/FFFFFFFF"}, ""},
      {"xid8", {"18446744073709551615"}, ""},
      {"int2vector", {"1 2 3", ""}, "", kAsText},
      {"regclass", {"pg_class"}, ""},
      {"jsonpath", {"$.a[*] ? (@ > 1)"}, ""},
  };
}

std::vector<TypeCase> array_cases() {
  const std::string random_array =
      "(SELECT array_agg(CASE WHEN random() < 0.2 THEN NULL ELSE e END) FROM (SELECT ";
  const auto random_of = [&](const std::string& element) {
    return random_array + element + " AS e FROM generate_series(1, 1 + i % 6)) AS x)";
  };
  const Literals text_arrays = {"{}",
                                "{NULL}",
                                "{\"NULL\",null,\"null\"}",
                                "{\"\"}",
                                "{\" a \",\"{}\",\"\\\"\\\\\"}",
                                "{\"a,b\",c}",
                                "{\"a\nb\"}",
                                "{Grüße,水}"};
  return {
      {"bool[]", {"{}", "{t,f,NULL}", "{NULL,NULL}"}, random_of("random() < 0.5")},
      {"int2[]", {"{}", "{1,-2,NULL,32767}"}, random_of("(random() * 1000)::int")},
      {"int4[]", {"{}", "{NULL,2147483647,-2147483648,0}"}, random_of("(random() * 1e9)::int")},
      {"int8[]",
       {"{}", "{9007199254740993,1,NULL,-9223372036854775808}"},
       random_of(kRandomBits),
       of_elements(kInt8)},
      {"oid[]", {"{}", "{0,NULL,4294967295}"}, "", "array_to_json(v::bigint[])"},
      {"float4[]", {"{}", "{0.1,NULL,NaN,-Infinity,1e10}"}, random_of("random() * 1e10")},
      {"float8[]", {"{}", "{0.1,NULL,NaN,-Infinity,1e300,-0}"}, random_of("random() * 1e10")},
      {"numeric[]",
       {"{}", "{0.10,NULL,NaN,1e30}"},
       random_of("(random() * 1e10)::numeric(20, 5)"),
       of_elements(kAsText)},
      {"text[]", text_arrays, random_of(kRandomText)},
      {"varchar(50)[]", text_arrays, ""},
      {"char(4)[]", {"{a,NULL}"}, ""},
      {"bytea[]",
       {"{}", "{\"\\\\x00ff\",NULL,\"\"}"},
       random_of("decode(md5(random()::text), 'hex')"),
       of_elements(kBase64)},
      {"date[]",
       {"{}", "{2026-01-01,NULL,infinity,\"0044-03-15 BC\"}"},
       random_of("date '2000-01-01' + (random() * 9999)::int")},
      {"time[]", {"{24:00:00,NULL}"}, ""},
      {"timetz[]", {"{24:00:00+00,NULL,01:02:03-05:30}"}, ""},
      {"timestamp[]", {"{\"2026-01-01 00:00:00.5\",NULL,-infinity}"}, random_of(kRandomTimestamp)},
      {"timestamptz[]",
       {"{\"2026-01-01 00:00:00.5+00\",NULL,-infinity}"},
       random_of(kRandomTimestamp)},
      {"interval[]", {"{\"1 year -3 days\",NULL,00:00:00,01:02:03}"}, ""},
      {"uuid[]",
       {"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"},
       random_of("md5(random()::text)::uuid")},
      {"json[]", {"{\"{\\\"a\\\": [1]}\",NULL,\"null\"}"}, ""},
      {"jsonb[]",
       {"{\"{\\\"a\\\": [1]}\",NULL,\"null\"}"},
       random_of("jsonb_build_object('t', " + kRandomText + ")")},
      {"mood[]", {"{}", "{sad,NULL,\"\",\"o'k\",\"very \\\"happy\\\", {so}\"}"}, ""},
      {"inet[]", {"{127.0.0.1,NULL,::1}"}, ""},
      {"int4range[]", {"{\"[1,3)\",empty,NULL}"}, ""},
      {"point[]", {"{\"(1,2)\",NULL}"}, ""},
      // Shapes that are kept whole, as text.
      {"box[]", {"{}", "{(1,1),(0,0);(2,2),(1,1)}", "{NULL}"}, "", kAsText},
      {"int4[]",
       {"{{1,2},{3,4}}", "{{{1}}}", "[0:2]={1,2,3}", "[-1:0][2:3]={{1,NULL},{3,4}}"},
       "",
       kAsText},
      {"text[]", {"{{a,\"}\"},{\"\\\"\",NULL}}", "[2:2]={x}"}, "", kAsText},
      {"bytea[]", {"{{\"\\\\x00\"}}"}, "", kAsText},
      {"timetz[]", {"{{24:00:00+00}}"}, "", kAsText},
  };
}

/// Kind of a type as capture's catalog would tell; the pipeline's own test asks that one.
pgoutput::BuiltinType kind_of(TestDatabase& database, const std::string& type, std::uint32_t& oid) {
  oid =
      static_cast<std::uint32_t>(std::stoul(database.value("SELECT '" + type + "'::regtype::oid")));
  if (type.starts_with("mood")) return {.kind = ValueKind::kEnum, .array = type.ends_with("[]")};
  if (type == "positive") return {.kind = ValueKind::kInt32};
  if (type == "pair") return {.kind = ValueKind::kExactText};
  const auto known = builtin_type(oid);
  REQUIRE(known.has_value());
  return *known;
}

}  // namespace

TEST_CASE("B12, B13: a value of every type is in JSON what PostgreSQL's to_json says",
          "[pgoutput][json][pg]") {
  Oracle oracle;
  std::size_t count = 0;
  std::vector<TypeCase> cases = scalar_cases();
  std::ranges::copy(array_cases(), std::back_inserter(cases));
  for (const TypeCase& test : cases) {
    std::uint32_t oid = 0;
    const pgoutput::BuiltinType type = kind_of(oracle.database(), test.type, oid);
    count += oracle.compare(test, type.kind, type.array, oid);
  }
  CHECK(count > 5000);
}

TEST_CASE("an infinite interval of PostgreSQL 17 is one in JSON", "[pgoutput][json][pg]") {
  Oracle oracle;
  const TypeCase test{.type = "interval", .values = {"infinity", "-infinity"}, .random = ""};
  if (oracle.database().server().version() < 17) {
    CHECK_THROWS(oracle.compare(test, ValueKind::kInterval, false, 1186));
    return;
  }
  CHECK(oracle.compare(test, ValueKind::kInterval, false, 1186) == 2);
}

TEST_CASE("the table of built-in types is the server's", "[pgoutput][pg]") {
  TestDatabase database;
  // Types that no table of a user has, or that only the system can make values of.
  const std::set<std::string> left_out = {"pg_node_tree",
                                          "pg_ndistinct",
                                          "pg_dependencies",
                                          "pg_mcv_list",
                                          "gtsvector",
                                          "pg_brin_bloom_summary",
                                          "pg_brin_minmax_multi_summary"};
  std::set<std::string> not_known;
  std::map<std::string, ValueKind> other_than_text;
  for (const auto& row : database.query(
           "SELECT t.oid, t.typname, t.typarray, d.typdelim FROM pg_type t LEFT JOIN pg_type d ON "
           "d.oid = t.oid "
           "WHERE t.typtype IN ('b', 'r', 'm') AND t.typnamespace = 'pg_catalog'::regnamespace AND "
           "t.oid < 16384 "
           "AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) ORDER BY t.oid")) {
    const std::string& name = *row[1];
    const auto known = builtin_type(static_cast<std::uint32_t>(std::stoul(*row[0])));
    CAPTURE(name);
    if (!known) {
      not_known.insert(name);
      continue;
    }
    CHECK_FALSE(known->array);
    CHECK(builtin_type(static_cast<std::uint32_t>(std::stoul(*row[2]))) ==
          pgoutput::BuiltinType{.kind = known->kind, .array = true});
    CHECK(((*row[3] == ",") || name == "box"));
    if (known->kind != ValueKind::kExactText) other_than_text[name] = known->kind;
  }
  for (const std::string& name : not_known) {
    CAPTURE(name);
    CHECK(left_out.contains(name));
  }
  using enum ValueKind;
  CHECK(other_than_text == std::map<std::string, ValueKind>{{"bool", kBool},
                                                            {"bytea", kBytes},
                                                            {"char", kText},
                                                            {"name", kText},
                                                            {"int8", kInt64},
                                                            {"int2", kInt32},
                                                            {"int4", kInt32},
                                                            {"text", kText},
                                                            {"oid", kUInt32},
                                                            {"json", kJson},
                                                            {"xml", kText},
                                                            {"float4", kFloat},
                                                            {"float8", kDouble},
                                                            {"bpchar", kText},
                                                            {"varchar", kText},
                                                            {"date", kDate},
                                                            {"time", kTime},
                                                            {"timestamp", kTimestamp},
                                                            {"timestamptz", kTimestampTz},
                                                            {"interval", kInterval},
                                                            {"timetz", kTimeTz},
                                                            {"numeric", kNumeric},
                                                            {"uuid", kUuid},
                                                            {"jsonb", kJson}});
}

}  // namespace millrace::test
