#include "capture/pgoutput/text_value.h"

#include <bit>
#include <random>

#include "base/bytes.h"
#include "capture/pgoutput/builtin_types.h"
#include "millrace/v1/values.pb.h"
#include "schemas/rendering/row.h"
#include "tests/support/catch.h"

namespace millrace::pgoutput {
namespace {

using enum ValueKind;

ColumnSchema column_of(ValueKind kind, bool array = false, std::uint32_t type_oid = 25) {
  return {.name = "value",
          .field = 7,
          .kind = kind,
          .array = array,
          .type_oid = type_oid,
          .type_name = std::string(name_of(kind))};
}

/// The field as bytes, without its tag; nothing where the text was refused.
std::optional<std::string> encoded(const ColumnSchema& column, std::string_view text) {
  std::string row = "before";
  const auto appended = append_text_value(column, text, row);
  if (!appended) {
    CHECK(appended.error().code() == ErrorCode::kInvalidArgument);
    CHECK(appended.error().message().find("\"value\"") != std::string::npos);
    CHECK(row == "before");
    return std::nullopt;
  }
  REQUIRE(row.substr(0, 6) == "before");
  CHECK(static_cast<std::uint8_t>(row[6]) >> 3 == 7);
  return row.substr(7);
}

/// The value as JSON; "refused" where the text is none.
std::string json_of(const ColumnSchema& column, std::string_view text) {
  std::string bytes;
  if (!append_text_value(column, text, bytes)) return "refused";
  TableSchema schema;
  schema.columns = {column};
  rendering::Row row;
  REQUIRE(row.read(schema, bytes));
  std::string json;
  REQUIRE(rendering::append_value(column, *row.field(0), json));
  return json;
}
std::string json_of(ValueKind kind, std::string_view text) {
  return json_of(column_of(kind), text);
}
std::string json_of_array(ValueKind kind, std::string_view text) {
  return json_of(column_of(kind, true, 1009), text);
}

template <typename Message>
Message message_of(ValueKind kind, bool array, std::string_view text) {
  const auto bytes = encoded(column_of(kind, array, 1009), text);
  REQUIRE(bytes.has_value());
  ByteReader in(*bytes);
  const std::string_view content = in.bytes(in.varint());
  CHECK(in.remaining() == 0);
  Message message;
  REQUIRE(message.ParseFromArray(content.data(), static_cast<int>(content.size())));
  CHECK(message.SerializeAsString() == content);  // as Protobuf itself would write it
  return message;
}

void check_refused(ValueKind kind, std::initializer_list<std::string_view> texts) {
  for (const std::string_view text : texts) {
    CAPTURE(name_of(kind), text);
    CHECK_FALSE(encoded(column_of(kind), text).has_value());
  }
}

}  // namespace

TEST_CASE("numbers are kept exactly or refused", "[pgoutput]") {
  CHECK(encoded(column_of(kBool), "t") == std::string("\1"));
  CHECK(encoded(column_of(kBool), "f") == std::string("\0", 1));
  CHECK(encoded(column_of(kInt32), "-1") == std::string("\1"));
  CHECK(json_of(kInt32, "2147483647") == "2147483647");
  CHECK(json_of(kInt32, "-2147483648") == "-2147483648");
  CHECK(json_of(kInt64, "9007199254740992") == "9007199254740992");
  CHECK(json_of(kInt64, "-9007199254740993") == "\"-9007199254740993\"");
  CHECK(json_of(kInt64, "-9223372036854775808") == "\"-9223372036854775808\"");
  CHECK(json_of(kUInt32, "4294967295") == "4294967295");
  CHECK(json_of(kFloat, "0.1") == "0.1");
  CHECK(json_of(kFloat, "1e-45") == "1e-45");
  CHECK(json_of(kDouble, "5e-324") == "5e-324");
  CHECK(json_of(kDouble, "-0") == "-0");
  CHECK(json_of(kDouble, "NaN") == "\"NaN\"");
  CHECK(json_of(kDouble, "-Infinity") == "\"-Infinity\"");
  CHECK(json_of(kNumeric, "123456789012345678901234567890.10") ==
        "\"123456789012345678901234567890.10\"");
  check_refused(kBool, {"", "true", "1", "T"});
  check_refused(kInt32, {"", "2147483648", "-2147483649", "1.0", "+1", " 1", "1 ", "0x1", "--1"});
  check_refused(kInt64, {"", "9223372036854775808", "1e3"});
  check_refused(kUInt32, {"", "-1", "4294967296"});
  check_refused(kFloat, {"", "1e39", "-1e39", "1e-60", "inf", "nan", "nan(1)", "infinity", "+1",
                         ".5", "0x1p3", "1.5x"});
  check_refused(kDouble, {"", "1e400", "-", "-inf", "--1", "1e"});
  check_refused(kNumeric, {"", "-", ".5", "5.", "1.2.3", "1e5", "nan", "+1", " 1", "-NaN", "1,5"});
}

TEST_CASE("text is copied, whatever it holds", "[pgoutput]") {
  for (const ValueKind kind : {kText, kJson, kEnum, kExactText})
    for (const std::string_view text : {std::string_view(), std::string_view("a\nb"),
                                        std::string_view("\xff\xfe"), std::string_view("a\0b", 3)})
      CHECK(encoded(column_of(kind), text) == static_cast<char>(text.size()) + std::string(text));
  CHECK(encoded(column_of(kText), std::string(300, 'x')) == "\xac\x02" + std::string(300, 'x'));
}

TEST_CASE("what should be JSON and is not comes out as a string", "[pgoutput][json]") {
  CHECK(json_of(kJson, "{\"a\": 1}") == "{\"a\": 1}");
  CHECK(json_of(kJson, "{\"a\": 1},\"op\":\"d\"") == R"("{\"a\": 1},\"op\":\"d\"")");
  CHECK(json_of(kJson, "\"\xff\"") == R"({"base64":"Iv8i"})");
}

TEST_CASE("bytea is read from hexadecimal", "[pgoutput]") {
  CHECK(encoded(column_of(kBytes), "\\x") == std::string("\0", 1));
  CHECK(encoded(column_of(kBytes), "\\x00ff7F") == std::string("\3\0\xff\x7f", 4));
  CHECK(json_of(kBytes, "\\xfbfffe") == "\"+//+\"");
  check_refused(kBytes, {"", "x", "\\", "\\x0", "\\x0g", "\\xg0", "00", "\\x0 ", "abc"});
}

TEST_CASE("a uuid is 36 characters", "[pgoutput]") {
  constexpr std::string_view kUuidText = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
  CHECK(json_of(kUuid, kUuidText) == "\"" + std::string(kUuidText) + "\"");
  for (std::size_t i = 0; i < kUuidText.size(); ++i) {
    std::string damaged(kUuidText);
    damaged[i] = damaged[i] == '-' ? '0' : '-';
    CHECK(json_of(kUuid, damaged) == "refused");
    CHECK(json_of(kUuid, kUuidText.substr(0, i)) == "refused");
  }
}

TEST_CASE("B12: dates are kept from 4714 BC to the end of PostgreSQL's time", "[pgoutput]") {
  for (const std::string_view text :
       {"2000-01-01", "2024-02-29", "0001-01-01", "0001-12-31 BC", "0044-03-15 BC", "0005-02-28 BC",
        "0001-02-29 BC", "4714-11-24 BC", "10000-01-01", "5874897-12-31", "infinity",
        "-infinity"}) {
    CAPTURE(text);
    CHECK(json_of(kDate, text) == "\"" + std::string(text) + "\"");
  }
  check_refused(kDate, {"",
                        "2000",
                        "2000-1-1",
                        "2000-13-01",
                        "2000-00-01",
                        "2000-02-30",
                        "2001-02-29",
                        "1900-02-29",
                        "2000-01-00",
                        "0000-01-01",
                        "4714-11-23 BC",
                        "5874898-01-01",
                        "99999999-01-01",
                        "2000-01-01 ",
                        "2000-01-01 AD",
                        "01/02/2000",
                        "2000-01-01 BC ",
                        "Infinity",
                        "now",
                        "-2000-01-01"});
}

TEST_CASE("B12: times are kept up to 24:00:00", "[pgoutput]") {
  for (const std::string_view text :
       {"00:00:00", "24:00:00", "23:59:59.999999", "00:00:00.000001", "12:34:56.7"})
    CHECK(json_of(kTime, text) == "\"" + std::string(text) + "\"");
  for (const std::string_view text : {"00:00:00+00", "24:00:00-15:59:59", "04:05:06.789+05:30",
                                      "01:02:03-00:30", "01:02:03-00:00:01"})
    CHECK(json_of(kTimeTz, text) == "\"" + std::string(text) + "\"");
  check_refused(kTime,
                {"", "1:00:00", "00:00", "24:00:00.000001", "25:00:00", "00:60:00", "00:00:60",
                 "00:00:00.", "00:00:00.1234567", "00:00:00+00", "-00:00:01", "00:00:00 AM"});
  check_refused(kTimeTz,
                {"", "00:00:00", "00:00:00Z", "00:00:00+", "00:00:00+1", "00:00:00+16",
                 "00:00:00+05:60", "00:00:00+05:30:", "00:00:00+05:30:00:00", "00:00:00 UTC"});
}

TEST_CASE("B12: timestamps are kept over all of PostgreSQL's time, and a zone must be UTC",
          "[pgoutput]") {
  const auto round = [](ValueKind kind, std::string text) {
    std::string json = json_of(kind, text);
    for (std::string* t : {&text, &json}) std::erase(*t, '"');
    const std::size_t t = json.find('T');
    if (t != std::string::npos) json[t] = ' ';
    const std::size_t zone = json.find("+00:00");
    if (zone != std::string::npos) json.erase(zone + 3, 3);
    return json == text;
  };
  for (const std::string text :
       {"2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "0044-03-15 12:00:00 BC",
        "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity"})
    CHECK(round(kTimestamp, text));
  for (const std::string text : {"2000-01-01 00:00:00+00", "0044-03-15 12:00:00.5+00 BC",
                                 "294276-12-31 23:59:59.999999+00", "infinity"})
    CHECK(round(kTimestampTz, text));
  check_refused(kTimestamp,
                {"", "2000-01-01", "2000-01-01T00:00:00", "2000-01-01 24:00:00",
                 "2000-01-01 00:00:00+00", "294277-01-01 00:00:00", "4714-11-23 23:59:59 BC",
                 "2000-01-01 00:00:00 BC BC", "2000-02-30 00:00:00"});
  check_refused(kTimestampTz,
                {"2000-01-01 00:00:00", "2000-01-01 00:00:00+01", "2000-01-01 00:00:00+00:30",
                 "2000-01-01 00:00:00-00", "2000-01-01 00:00:00Z", "2000-01-01 00:00:00 BC+00"});
}

TEST_CASE("intervals keep months, days and microseconds apart", "[pgoutput]") {
  for (const std::string_view text :
       {"00:00:00", "1 year 2 mons -3 days +04:05:06.789", "-00:00:00.000001", "-1 years", "1 mon",
        "2 days", "-1 days +00:00:01",
        "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807", "infinity", "-infinity",
        "-178956970 years -8 mons -2147483648 days -2562047788:00:54.775808"}) {
    CAPTURE(text);
    CHECK(json_of(kInterval, text) == "\"" + std::string(text) + "\"");
  }
  const auto parts =
      message_of<v1::Interval>(kInterval, false, "1 year 2 mons -3 days +04:05:06.789");
  CHECK(parts.months() == 14);
  CHECK(parts.days() == -3);
  CHECK(parts.micros() == 14'706'789'000);
  CHECK(message_of<v1::Interval>(kInterval, false, "-infinity").infinity() == -1);
  check_refused(kInterval, {"",
                            " ",
                            "1",
                            "1 day ",
                            "1 fortnight",
                            "1 day 1 year",
                            "1 day 1 day",
                            "178956971 years",
                            "2147483648 days",
                            "2562047788:00:54.775808",
                            "-2562047788:00:54.775809",
                            "9999999999:00:00",
                            "1:00:00",
                            "00:60:00",
                            "P1Y",
                            "@ 1 day",
                            "1 day ago",
                            "1-2",
                            "00:00:00 1 day",
                            "1  day",
                            "1 dayss",
                            "99999999999 days",
                            "+ 1 day"});
}

TEST_CASE("time with zone keeps its zone", "[pgoutput]") {
  const auto value = message_of<v1::TimeTz>(kTimeTz, false, "04:05:06.789-05:30");
  CHECK(value.micros() == 14'706'789'000);
  CHECK(value.offset_seconds() == -19'800);
}

TEST_CASE("arrays are messages, with the places of their nulls", "[pgoutput]") {
  const auto ints = message_of<v1::Int32Array>(kInt32, true, "{1,NULL,-3}");
  CHECK(std::vector<std::int32_t>(ints.values().begin(), ints.values().end()) ==
        std::vector<std::int32_t>{1, 0, -3});
  CHECK(std::vector<std::uint32_t>(ints.nulls().begin(), ints.nulls().end()) ==
        std::vector<std::uint32_t>{1});
  CHECK_FALSE(ints.has_text());
  const auto texts = message_of<v1::StringArray>(kText, true, R"({a,"b,\"c\\",NULL,"NULL",""})");
  CHECK(std::vector<std::string>(texts.values().begin(), texts.values().end()) ==
        std::vector<std::string>{"a", "b,\"c\\", "", "NULL", ""});
  CHECK(texts.nulls(0) == 2);
  CHECK(message_of<v1::DoubleArray>(kDouble, true, "{NULL,0.5}").values(1) == 0.5);
  CHECK(message_of<v1::BytesArray>(kBytes, true, R"({"\\x00ff",NULL})").values(0) ==
        std::string("\0\xff", 2));
  CHECK(message_of<v1::BoolArray>(kBool, true, "{t,f}").values(0));
  CHECK(message_of<v1::UInt32Array>(kUInt32, true, "{4294967295}").values(0) == 4294967295);
  CHECK(message_of<v1::FloatArray>(kFloat, true, "{0.1}").values(0) == 0.1f);
  CHECK(message_of<v1::Int64Array>(kTimestamp, true, "{infinity}").values(0) ==
        std::numeric_limits<std::int64_t>::max());
  CHECK(message_of<v1::StringArray>(kTimeTz, true, "{04:05:06-08}").values(0) == "04:05:06-08");
  CHECK(message_of<v1::StringArray>(kInterval, true, "{\"1 day\"}").values(0) == "1 day");
}

TEST_CASE("arrays are in JSON what they are in PostgreSQL", "[pgoutput][json]") {
  CHECK(json_of_array(kInt32, "{}") == "[]");
  CHECK(json_of_array(kInt32, "{1,NULL,3}") == "[1,null,3]");
  CHECK(json_of_array(kInt32, "{NULL,NULL}") == "[null,null]");
  CHECK(json_of_array(kText, R"({a,"b,\"c\\",NULL,"NULL",""})") ==
        R"(["a","b,\"c\\",null,"NULL",""])");
  CHECK(json_of_array(kNumeric, "{1.50,NULL,NaN}") == R"(["1.50",null,"NaN"])");
  CHECK(json_of_array(kJson, R"({"{\"a\": 1}",NULL})") == R"([{"a": 1},null])");
  CHECK(json_of_array(kBytes, R"({"\\xff",NULL})") == R"(["/w==",null])");
}

TEST_CASE("B13: an array of another shape is kept whole", "[pgoutput]") {
  for (const std::string_view text :
       {"{{1,2},{3,4}}", "[0:1]={1,2}", "[-2:-1][1:1]={{1},{NULL}}", "{{{5}}}"}) {
    CAPTURE(text);
    const auto array = message_of<v1::Int32Array>(kInt32, true, text);
    CHECK(array.values().empty());
    CHECK(array.text() == text);
    CHECK(json_of_array(kInt32, text) == "\"" + std::string(text) + "\"");
  }
}

TEST_CASE("an array whose delimiter only the catalog knows is kept whole", "[pgoutput]") {
  constexpr std::uint32_t kBoxArray = 1020, kInetArray = 1041, kOfAnExtension = 16'500;
  CHECK(json_of(column_of(kExactText, true, kInetArray), "{::1,NULL}") == R"(["::1",null])");
  CHECK(json_of(column_of(kExactText, true, kBoxArray), "{(1,1),(0,0);(2,2),(1,1)}") ==
        R"("{(1,1),(0,0);(2,2),(1,1)}")");
  CHECK(json_of(column_of(kExactText, true, kOfAnExtension), "{0101:0102}") == R"("{0101:0102}")");
  CHECK(json_of(column_of(kEnum, true, kOfAnExtension), "{a,b}") ==
        R"(["a","b"])");  // an enum's is ','
  CHECK(json_of(column_of(kExactText, true, kOfAnExtension), "0101:0102") == "refused");
}

TEST_CASE("B13: what is no array is refused", "[pgoutput]") {
  for (const std::string_view text :
       {"",      "{",        "}",          "1",        "{1",        "{1,",        "{1,}",
        "{,1}",  "{1}}",     "{1}x",       "{{1}",     "{1,{2}}",   "{\"1}",      "{1\"}",
        "{1\\}", "[0:1]",    "[0:1]{1,2}", "[0]={1}",  "[a:b]={1}", "[0:1={1}",   "{{1}{2}}x",
        "{\"\\", "{a\"b\"}", "{1 2}",      "{\"1\"2}", "{x}",       "[1:1]={1}]", "{2147483648}"}) {
    CAPTURE(text);
    CHECK(json_of_array(kInt32, text) == "refused");
  }
}

TEST_CASE("B1: no cut of a literal is taken for another array", "[pgoutput]") {
  const std::string_view text = R"({1,"a \"b\" \\ ,{}",NULL,"x"})";
  for (std::size_t size = 0; size < text.size(); ++size)
    CHECK(json_of_array(kText, text.substr(0, size)) == "refused");
  CHECK(json_of_array(kText, text) == R"(["1","a \"b\" \\ ,{}",null,"x"])");
}

TEST_CASE("an error names the column and no more than the value's beginning", "[pgoutput]") {
  std::string row;
  const auto refused = append_text_value(column_of(kInt32), "x\n" + std::string(1000, 'y'), row);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() ==
        "column \"value\": \"x\\x0a" + std::string(38, 'y') +
            "...\" is no int32 as PostgreSQL writes it in a session of capture");
  CHECK_FALSE(refused.error().hint().empty());
}

TEST_CASE("random text of any kind is refused or comes out as JSON", "[pgoutput][json]") {
  std::mt19937_64 random(20'260'101);
  constexpr std::string_view kAlphabet = "0123456789-:+. {}\",\\NULaetfx[]=BCdyrsmon\xff\xc3\xa4";
  int accepted = 0;
  for (int i = 0; i < 100'000; ++i) {
    std::string text;
    for (std::size_t size = random() % 12; size > 0; --size)
      text += kAlphabet[random() % kAlphabet.size()];
    if (random() % 2 == 0) text = '{' + text + '}';
    const auto kind = static_cast<ValueKind>(1 + random() % 19);
    if (json_of(column_of(kind, random() % 2 == 0, 1009), text) != "refused") ++accepted;
  }
  CHECK(accepted > 10'000);
}

TEST_CASE("built-in types are known by their OIDs, arrays by theirs", "[pgoutput]") {
  CHECK(builtin_type(23) == BuiltinType{.kind = kInt32, .array = false});
  CHECK(builtin_type(1007) == BuiltinType{.kind = kInt32, .array = true});
  CHECK(builtin_type(3802) == BuiltinType{.kind = kJson, .array = false});
  CHECK(builtin_type(0) == std::nullopt);
  CHECK(builtin_type(16'384) == std::nullopt);
  CHECK(builtin_type(4'294'967'295) == std::nullopt);
}

}  // namespace millrace::pgoutput
