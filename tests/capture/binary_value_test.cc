#include "capture/pgoutput/binary_value.h"

#include <bit>
#include <random>

#include "base/bytes.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pgoutput/text_value.h"
#include "schemas/row_text.h"
#include "tests/support/catch.h"

namespace millrace::pgoutput {
namespace {

/// A type as PostgreSQL's catalog knows it.
struct Type {
  explicit Type(std::uint32_t oid) {
    const auto known = builtin_type(oid);
    REQUIRE(known.has_value());
    column = {.name = "value",
              .field = 7,
              .kind = known->kind,
              .array = known->array,
              .type_oid = oid,
              .type_name = "t"};
    binary = binary_type(oid, known->kind, known->array);
    REQUIRE(binary.exact());
  }
  ColumnSchema column;
  BinaryType binary;
};

std::string from(std::string_view hex) {
  std::string digits;
  for (const char c : hex)
    if (c != ' ') digits += c;
  return from_hex(digits).value();
}

/// The field, or nothing where the bytes were refused.
std::optional<std::string> from_binary(const Type& type, std::string_view bytes) {
  std::string row = "before";
  const auto appended = append_binary_value(type.column, type.binary, bytes, row);
  if (appended) return row.substr(6);
  CHECK(row == "before");
  CHECK(appended.error().message().find("\"value\"") != std::string::npos);
  return std::nullopt;
}

std::optional<std::string> from_text(const Type& type, std::string_view text) {
  std::string row;
  if (!append_text_value(type.column, text, row)) return std::nullopt;
  return row;
}

void check_same(std::uint32_t oid, std::string_view hex, std::string_view text) {
  CAPTURE(oid, hex, text);
  const Type type(oid);
  const auto expected = from_text(type, text);
  REQUIRE(expected.has_value());
  CHECK(from_binary(type, from(hex)) == expected);
}

void check_refused(std::uint32_t oid, std::initializer_list<std::string_view> all) {
  for (const std::string_view hex : all) {
    CAPTURE(oid, hex);
    CHECK_FALSE(from_binary(Type(oid), from(hex)).has_value());
  }
}

// What PostgreSQL 15 sends: COPY (SELECT '...'::type) TO STDOUT (FORMAT binary).
struct Golden {
  std::uint32_t oid;
  std::string_view hex, text;
};
const Golden kGolden[] = {
    {16, "01", "t"},
    {16, "00", "f"},
    {17, "", "\\x"},
    {17, "00ff5c", "\\x00ff5c"},
    {19, "7067", "pg"},
    {20, "8000000000000000", "-9223372036854775808"},
    {20, "0020000000000001", "9007199254740993"},
    {21, "8000", "-32768"},
    {23, "7fffffff", "2147483647"},
    {25, "", ""},
    {25, "c3a4", "ä"},
    {26, "ffffffff", "4294967295"},
    {114, "7b7d20", "{} "},
    {700, "3dcccccd", "0.1"},
    {700, "80000000", "-0"},
    {700, "7fc00000", "NaN"},
    {700, "ff800000", "-Infinity"},
    {701, "3fb999999999999a", "0.1"},
    {701, "7ff8000000000000", "NaN"},
    {701, "fff8000000000001", "NaN"},
    {701, "7ff0000000000000", "Infinity"},
    {1042, "61202020", "a   "},
    {1043, "61", "a"},
    {1082, "00000000", "2000-01-01"},
    {1082, "ffda97a7", "4714-11-24 BC"},
    {1082, "7fda970c", "5874897-12-31"},
    {1082, "7fffffff", "infinity"},
    {1082, "80000000", "-infinity"},
    {1083, "000000141dd76000", "24:00:00"},
    {1114, "0000000000000001", "2000-01-01 00:00:00.000001"},
    {1114, "fd0f7cc1411fa000", "4714-11-24 00:00:00 BC"},
    {1114, "7fffffffffffffff", "infinity"},
    {1184, "ffffffffffffffff", "1999-12-31 23:59:59.999999+00"},
    {1184, "8000000000000000", "-infinity"},
    {1266, "0000000000000000 0000e0ff", "00:00:00-15:59:59"},
    {1266, "000000141dd76000 ffffb2a8", "24:00:00+05:30"},
    {1700, "0000 0000 0000 0000", "0"},
    {1700, "0000 0000 0000 0002", "0.00"},
    {1700, "0000 0000 c000 0000", "NaN"},
    {1700, "0000 0020 d000 0000", "Infinity"},
    {1700, "0000 0020 f000 0000", "-Infinity"},
    {1700, "0002 0000 0000 0002 0013 2328", "19.90"},
    {1700, "0001 0001 4000 0000 0001", "-10000"},
    {1700, "0001 fffe 0000 0008 0001", "0.00000001"},
    {1700, "0001 fffd 0000 000a 0064", "0.0000000001"},
    {1700, "0003 0001 0000 0006 0001 0929 0fa0", "12345.400000"},
    {1700, "0001 0002 0000 0000 007b", "12300000000"},
    {2950, "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
    {3802, "017b2261223a20317d", "{\"a\": 1}"},
    {1007, "00000000 00000000 00000017", "{}"},
    {1007, "00000001 00000001 00000017 00000002 00000001 00000004 00000001 ffffffff", "{1,NULL}"},
    {1007, "00000001 00000000 00000017 00000001 00000000 00000004 00000007", "[0:0]={7}"},
    {1007,
     "00000002 00000001 00000017 00000002 00000001 00000002 00000001 00000004 00000001 ffffffff "
     "00000004 00000003 00000004 00000004",
     "{{1,NULL},{3,4}}"},
    {1007,
     "00000002 00000000 00000017 00000001 fffffffe 00000002 00000003 00000004 00000001 00000004 "
     "00000002",
     "[-2:-2][3:4]={{1,2}}"},
    {1009, "00000001 00000001 00000019 00000003 00000001 00000001 61 00000000 ffffffff",
     "{a,\"\",NULL}"},
    {1009,
     "00000002 00000000 00000019 00000001 00000001 00000002 00000001 00000004 4e554c4c "
     "00000003 612c22",
     R"({{"NULL","a,\""}})"},
    {1000, "00000001 00000001 00000010 00000002 00000001 00000001 01 ffffffff", "{t,NULL}"},
    {1022, "00000001 00000000 000002bd 00000001 00000001 00000008 8000000000000000", "{-0}"},
    {1270,
     "00000001 00000001 000004f2 00000002 00000001 0000000c 0000000000000000 0000e0ff ffffffff",
     "{00:00:00-15:59:59,NULL}"},
    {1115, "00000001 00000000 0000045a 00000001 00000000 00000008 0000000000000001",
     "[0:0]={\"2000-01-01 00:00:00.000001\"}"},
    {1001, "00000001 00000000 00000011 00000001 00000002 00000002 00ff", "[2:2]={\"\\\\x00ff\"}"},
    {1231, "00000001 00000000 000006a4 00000001 00000001 0000000a 0001 0000 0000 0002 0007",
     "{7.00}"},
};

}  // namespace

TEST_CASE("B11, B12, B13: a value in binary makes the same row as its text", "[pgoutput][binary]") {
  for (const Golden& golden : kGolden) check_same(golden.oid, golden.hex, golden.text);
}

TEST_CASE("B13: a numeric in binary has all its digits", "[pgoutput][binary]") {
  // 131,072 digits before the point and 16,383 behind it.
  const std::string whole(131'072, '9'), fraction(16'383, '9');
  std::string bytes = from("9000 7fff 0000 3fff");
  bytes[0] = static_cast<char>((32'768 + 4'096) >> 8);
  bytes[1] = static_cast<char>((32'768 + 4'096) & 0xff);
  for (int i = 0; i < 32'768 + 4'095; ++i) bytes += from("270f");
  bytes += from("2706");  // 9990: the last digit is beyond the scale
  const Type type(1700);
  CHECK(from_binary(type, bytes) == from_text(type, whole + "." + fraction));
  // A number of ten bytes may be long, but no longer than that.
  CHECK(from_binary(type, from("0001 7fff 0000 3fff 0001")) ==
        from_text(type, "1" + std::string(131'068, '0') + "." + std::string(16'383, '0')));
}

TEST_CASE("B11: types whose text only PostgreSQL can write have no binary decoder",
          "[pgoutput][binary]") {
  using enum ValueKind;
  for (const std::uint32_t oid : {18u, 142u, 1186u, 790u, 869u, 600u, 3614u, 3904u, 4451u, 3220u})
    CHECK_FALSE(binary_type(oid, builtin_type(oid)->kind, false).exact());
  for (const std::uint32_t array : {1002u, 143u, 1187u, 791u, 1041u, 1017u, 1020u, 3905u})
    CHECK_FALSE(binary_type(array, builtin_type(array)->kind, true).exact());
  CHECK_FALSE(binary_type(16'500, kExactText, false).exact());
  CHECK(binary_type(16'500, kEnum, false).exact());
  CHECK(binary_type(16'501, kEnum, true).exact());
  CHECK(binary_type(23, kInt32, false).exact());
  const ColumnSchema inet{.name = "v", .field = 1, .kind = kExactText, .type_name = "inet"};
  std::string row;
  CHECK_FALSE(append_binary_value(inet, binary_type(869, kExactText, false), "", row));
}

TEST_CASE("an enum is its label in binary too, also in an array of any type",
          "[pgoutput][binary]") {
  Type type(25);
  type.column.kind = ValueKind::kEnum;
  type.binary = binary_type(16'500, ValueKind::kEnum, false);
  CHECK(from_binary(type, "sad") == from_text(type, "sad"));
  type.column.array = true;
  type.binary = binary_type(16'501, ValueKind::kEnum, true);
  CHECK(from_binary(type, from("00000001 00000000 00004074 00000001 00000001 00000003 736164")) ==
        from_text(type, "{sad}"));
}

TEST_CASE("B4, B12: what is no value in binary is refused", "[pgoutput][binary]") {
  check_refused(16, {"", "02", "0101"});
  check_refused(21, {"", "00", "00000000"});
  check_refused(23, {"", "000000", "0000000000000000"});
  check_refused(20, {"", "00000000"});
  check_refused(26, {"", "0000"});
  check_refused(700, {"", "0000000000000000"});
  check_refused(701, {"", "00000000"});
  check_refused(1082, {"", "ffda97a6", "7fda970d", "80000001", "7ffffffe"});
  check_refused(1083, {"", "ffffffffffffffff", "000000141dd76001"});
  check_refused(1114, {"", "fd0f7cc1411f9fff", "7fffff5bb3b2a000", "8000000000000001"});
  check_refused(1266, {"", "000000000000000000", "0000000000000000 0000e0ff 00",
                       "0000000000000000 0000e0ffff", "0000000000000000 0000e100",
                       "ffffffffffffffff 00000000"});
  check_refused(1700, {"", "0000 0000 0000", "0001 0000 0000 0000", "0000 0000 0000 0000 0001",
                       "0001 0000 0000 0000 2710", "0000 0000 1000 0000", "0000 0000 0000 4000",
                       "ffff 0000 0000 0000", "0001 0000 c000 0000 0001"});
  check_refused(2950, {"", "00", "a0eebc999c0b4ef8bb6d6bb9bd380a"});
  check_refused(3802, {"", "00", "027b7d"});
}

TEST_CASE("B4: an array whose counts can't be is refused before there is room for it",
          "[pgoutput][binary]") {
  check_refused(
      1007,
      {"", "00000000", "00000000 00000000 00000019",  // another element type
       "00000007 00000000 00000017",                  // seven dimensions
       "00000000 00000002 00000017",                  // an unknown flag
       "00000001 00000000 00000017 ffffffff 00000001",
       "00000001 00000000 00000017 7fffffff 00000001 00000004 00000001",
       "00000006 00000000 00000017 00010000 00000001 00010000 00000001 00010000 00000001 00010000 "
       "00000001 00010000 00000001 00010000 00000001",
       "00000001 00000000 00000017 00000001 00000001 00000004 0000",         // cut
       "00000001 00000000 00000017 00000001 00000001 00000005 0000000000",   // too long an int
       "00000001 00000000 00000017 00000001 00000001 fffffffe",              // length -2
       "00000001 00000000 00000017 00000001 00000001 00000004 00000001 00",  // left over
       "00000001 00000000 00000017 00000001 7fffffff 00000004 00000001 00",
       "00000001 00000000 00000017 00000002 7fffffff 00000004 00000001 00000004 00000001",
       "00000000 00000000 00000017 00"});
}

TEST_CASE("B1, B2: no cut and no flipped bit of a value does worse than an error or another value",
          "[pgoutput][binary]") {
  for (const Golden& golden : kGolden) {
    const Type type(golden.oid);
    const std::string whole = from(golden.hex);
    const auto check = [&](const std::string& bytes) {
      const auto row = from_binary(type, bytes);
      if (!row) return;
      std::string text;
      REQUIRE(append_value_text(type.column, *row, text));
      CHECK(from_text(type, text) == row);  // what was taken for a value is one
    };
    for (std::size_t cut = 0; cut < whole.size(); ++cut) check(whole.substr(0, cut));
    for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
      std::string flipped = whole;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      check(flipped);
    }
  }
}

TEST_CASE("random numbers in binary are the text of the same digits", "[pgoutput][binary]") {
  std::mt19937 random(20'260'101);
  const Type type(1700);
  for (int i = 0; i < 2000; ++i) {
    // As PostgreSQL holds it: groups without zeros at either end.
    const auto groups = static_cast<int>(1 + random() % 6);
    const auto weight = static_cast<int>(random() % 9) - 4;
    const auto scale = static_cast<std::uint16_t>(std::max(0, (groups - 1 - weight) * 4));
    std::string bytes, digits;
    append_be<std::uint16_t>(bytes, static_cast<std::uint16_t>(groups));
    append_be<std::uint16_t>(bytes, static_cast<std::uint16_t>(weight));
    append_be<std::uint16_t>(bytes, 0);
    append_be<std::uint16_t>(bytes, scale);
    for (int g = 0; g < groups; ++g) {
      const auto group = static_cast<std::uint16_t>(1 + random() % 9999);
      append_be<std::uint16_t>(bytes, group);
      append_padded(group, 4, digits);
    }
    // The digits stand 4 * (weight + 1) places before the point.
    const int point = 4 * (weight + 1);
    std::string text = point <= 0 ? "0" : digits.substr(0, static_cast<std::size_t>(point));
    if (point > static_cast<int>(digits.size()))
      text.append(static_cast<std::size_t>(point) - digits.size(), '0');
    while (text.size() > 1 && text[0] == '0') text.erase(0, 1);
    if (scale > 0) {
      std::string fraction = point < 0 ? std::string(static_cast<std::size_t>(-point), '0') : "";
      if (point < static_cast<int>(digits.size()))
        fraction += digits.substr(point < 0 ? 0 : static_cast<std::size_t>(point));
      text += "." + fraction;
    }
    CAPTURE(to_hex(bytes), text);
    CHECK(from_binary(type, bytes) == from_text(type, text));
  }
}

}  // namespace millrace::pgoutput
