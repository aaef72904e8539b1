#include "schemas/row_text.h"

#include "capture/pgoutput/text_value.h"
#include "tests/support/catch.h"

namespace millrace {
namespace {

using enum ValueKind;

TableSchema schema_of(std::vector<std::pair<ValueKind, bool>> kinds) {
  TableSchema schema{
      .category = "public.t", .version = 1, .schema_name = "public", .table_name = "t"};
  for (const auto& [kind, array] : kinds) {
    const auto field = static_cast<std::uint32_t>(schema.columns.size() + 1);
    schema.columns.push_back({.name = "c" + std::to_string(field),
                              .field = field,
                              .kind = kind,
                              .array = array,
                              .type_oid = 1009,
                              .type_name = "t"});
  }
  return schema;
}

std::string row_of(const TableSchema& schema,
                   const std::vector<std::optional<std::string_view>>& texts) {
  std::string row;
  for (std::size_t i = 0; i < texts.size(); ++i)
    if (texts[i]) REQUIRE(pgoutput::append_text_value(schema.columns[i], *texts[i], row));
  return row;
}

void check_round_trip(ValueKind kind, bool array, std::string_view text) {
  CAPTURE(name_of(kind), text);
  const TableSchema schema = schema_of({{kind, array}});
  RowText row;
  REQUIRE(row.read(schema, row_of(schema, {text})));
  CHECK(row.value(0) == text);
}

std::string literal(std::optional<std::string_view> text) {
  std::string out;
  REQUIRE(append_sql_literal(text, out));
  return out;
}

std::string copied(std::optional<std::string_view> text) {
  std::string out;
  append_copy_field(text, out);
  return out;
}

}  // namespace

TEST_CASE("B12, B13: the text of a kept value is the text that it was kept from", "[row_text]") {
  for (const auto& [kind, texts] : std::vector<std::pair<ValueKind, std::vector<std::string_view>>>{
           {kBool, {"t", "f"}},
           {kInt32, {"0", "-2147483648", "2147483647"}},
           {kInt64, {"0", "-9223372036854775808", "9223372036854775807"}},
           {kUInt32, {"0", "4294967295"}},
           {kFloat, {"0", "-0", "0.1", "1e-45", "3.4028235e+38", "NaN", "Infinity", "-Infinity"}},
           {kDouble, {"-0", "0.1", "5e-324", "1e+22", "9.999999999999999e+22", "123456789012345", "NaN", "-Infinity"}},
           {kNumeric, {"0.00", "-1.50", "NaN", "Infinity", "12345678901234567890.0"}},
           {kText, {"", "a\nb", "\xff", "NULL"}},
           {kBytes, {"\\x", "\\x00ff7f"}},
           {kDate, {"2000-01-01", "0044-03-15 BC", "5874897-12-31", "infinity", "-infinity"}},
           {kTime, {"00:00:00", "24:00:00", "12:34:56.000001"}},
           {kTimeTz, {"24:00:00-15:59:59", "12:00:00+00", "01:02:03.5+05:30"}},
           {kTimestamp, {"4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity"}},
           {kTimestampTz, {"2026-01-01 00:00:00.5+00", "0044-03-15 12:00:00+00 BC", "-infinity"}},
           {kInterval,
            {"00:00:00", "1 year 2 mons -3 days +04:05:06.789", "-178956970 years -8 mons",
             "infinity"}},
           {kUuid, {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
           {kJson, {"{\"a\": [1, 1e400]}", "null"}},
           {kEnum, {"sad", ""}},
           {kExactText, {"", "(1,2)", "\\x"}}})
    for (const std::string_view text : texts) check_round_trip(kind, false, text);
}

TEST_CASE("B13: the text of a kept array is the one that array_out wrote", "[row_text]") {
  check_round_trip(kInt32, true, "{}");
  check_round_trip(kInt32, true, "{1,NULL,-3}");
  check_round_trip(kInt32, true, "[0:2]={1,2,3}");
  check_round_trip(kInt32, true, "{{1,NULL},{3,4}}");
  check_round_trip(kBool, true, "{t,NULL,f}");
  check_round_trip(kDouble, true, "{0.1,NULL,NaN,-0}");
  check_round_trip(kFloat, true, "{0.1,-Infinity}");
  check_round_trip(kText, true, "{a,\"\",NULL,\"NULL\",\"null\",\"nuLL\",nul}");
  check_round_trip(kText, true, R"({" a ","{}","\"\\","a,b",'})");
  check_round_trip(kText, true, "{\"a\nb\",\"\t\",\"\v\",\"\f\",\"\r\",\x01}");
  check_round_trip(kBytes, true, R"({"\\x00ff",NULL,"\\x"})");
  check_round_trip(kDate, true, "{2026-01-01,NULL,infinity,\"0044-03-15 BC\"}");
  check_round_trip(kTimestamp, true, "{\"2026-01-01 00:00:00.5\",-infinity}");
  check_round_trip(kTimeTz, true, "{24:00:00+00,01:02:03-05:30}");
  check_round_trip(kInterval, true, "{\"1 year -3 days\",00:00:00}");
  check_round_trip(kNumeric, true, "{0.10,NULL,NaN}");
  check_round_trip(kJson, true, R"({"{\"a\": 1}",null1})");
}

TEST_CASE("a null, an unchanged value and an empty one are three things", "[row_text]") {
  const TableSchema schema = schema_of({{kText, false}, {kText, false}, {kText, false}});
  RowText row;
  REQUIRE(row.read(schema, row_of(schema, {"", std::nullopt, std::nullopt}), "\3"));
  REQUIRE(row.size() == 3);
  CHECK(row.value(0) == "");
  CHECK_FALSE(row.unchanged(0));
  CHECK_FALSE(row.value(1).has_value());
  CHECK_FALSE(row.unchanged(1));
  CHECK_FALSE(row.value(2).has_value());
  CHECK(row.unchanged(2));
}

TEST_CASE("B28: a row or a list that can't be gives an error and no value", "[row_text]") {
  const TableSchema schema = schema_of({{kInt32, false}, {kInt32, true}, {kTimeTz, false}});
  const std::string good = row_of(schema, {"1", "{1,NULL}", "01:02:03+01"});
  RowText row;
  for (const auto& [bytes, unchanged] : std::vector<std::pair<std::string, std::string>>{
           {good + "\x20\1", ""},                          // a field of no column
           {good, "\1"},                                   // unchanged and there
           {"", "\7"},                                     // unchanged, and no column
           {"", "\x80"},                                   // cut
           {good.substr(0, good.size() - 1), ""},          // cut
           {std::string("\x08\x80\x80\x80\x80\x20"), ""},  // 2^33 as an int4
           {"\x0a\1x", ""},                                // bytes where a number stands
           {"\x12\x03\x12\x01\x05", ""},                   // a null that no element stands for
           {"\x1a\x02\x18\x01", ""}}) {                    // a part that timetz has not
    CAPTURE(bytes, unchanged);
    const auto read = row.read(schema, bytes, unchanged);
    REQUIRE_FALSE(read);
    CHECK(read.error().code() == ErrorCode::kCorruption);
    CHECK(row.size() == 0);
  }
  std::string out = "before";
  CHECK_FALSE(append_value_text(schema.columns[0], good, out));
  CHECK_FALSE(append_value_text(schema.columns[0], "", out));
  CHECK_FALSE(append_value_text(schema.columns[1], "\x08\2", out));
  CHECK(out == "before");
  REQUIRE(append_value_text(schema.columns[0], "\x08\2", out));
  CHECK(out == "before1");
}

TEST_CASE("B40: a literal can't be read in another way than it was written", "[row_text]") {
  CHECK(literal(std::nullopt) == "NULL");
  CHECK(literal("") == "''");
  CHECK(literal("it's") == "'it''s'");
  CHECK(literal("a\\'b") == " E'a\\\\''b'");
  CHECK(literal("Grüße") == "'Grüße'");
  std::string out = "before";
  for (const std::string_view text : {"\xff", "a\xc3", "\xc3'", "\xed\xa0\x80"}) {
    CHECK_FALSE(append_sql_literal(text, out));
    CHECK(out == "before");
  }
  CHECK_FALSE(append_sql_literal(std::string_view("a\0b", 3), out));
}

TEST_CASE("a field of COPY is escaped so that a line stays one", "[row_text]") {
  CHECK(copied(std::nullopt) == "\\N");
  CHECK(copied("") == "");
  CHECK(copied("\\N") == "\\\\N");
  CHECK(copied("\\.") == "\\\\.");
  CHECK(copied("a\tb\nc\rd\be\ff\vg") == "a\\tb\\nc\\rd\\be\\ff\\vg");
}

}  // namespace millrace
