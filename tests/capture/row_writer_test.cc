// The short way must write what the long one does, or nothing.

#include "capture/pgoutput/row_writer.h"

#include <random>

#include "base/bytes.h"
#include "capture/pgoutput/text_value.h"
#include "schemas/row_text.h"
#include "tests/support/catch.h"

namespace millrace::pgoutput {
namespace {

using enum ValueKind;

struct Column {
  ColumnSchema schema;
  ColumnPlan plan;
  explicit Column(ValueKind kind, std::uint32_t base_oid = 0, std::uint32_t field = 7)
      : schema{.name = "v", .field = field, .kind = kind, .type_name = "t"},
        plan(schema, binary_type(base_oid, kind, false)) {}
};

using Write = char* (*)(const ColumnPlan&, std::string_view, char*);

/// What was written, or nothing; never beyond the room that it asks for.
std::optional<std::string> written(Write write, const ColumnPlan& plan, std::string_view value) {
  const std::size_t room = value.size() + kFieldExtraBytes;
  std::string bytes(room + 8, '#');
  const char* end = write(plan, value, bytes.data());
  CHECK(bytes.substr(room) == "########");
  if (end == nullptr) return std::nullopt;
  return bytes.substr(0, static_cast<std::size_t>(end - bytes.data()));
}

/// True if the short way took it.
bool check_text(const Column& column, std::string_view text) {
  CAPTURE(name_of(column.schema.kind), text);
  const auto quick = written(write_text_value, column.plan, text);
  if (!quick) return false;
  std::string row;
  CHECK(append_text_value(column.schema, text, row).has_value());
  CHECK(*quick == row);
  return true;
}

bool check_binary(const Column& column, std::string_view bytes) {
  CAPTURE(name_of(column.schema.kind), to_hex(bytes));
  const auto quick = written(write_binary_value, column.plan, bytes);
  std::string row;
  if (quick) {
    CHECK(append_binary_value(column.schema, column.plan.binary, bytes, row).has_value());
    CHECK(*quick == row);
  }
  char number[kIntegerTextBytes];
  const auto text = text_of_binary(column.plan, bytes, number);
  if (text) {
    std::string field, slow;
    REQUIRE(append_binary_value(column.schema, column.plan.binary, bytes, field));
    REQUIRE(append_value_text(column.schema, field, slow));
    CHECK(*text == slow);
  }
  return quick.has_value();
}

}  // namespace

TEST_CASE("values of the common sort take the short way", "[pgoutput][binary]") {
  CHECK(check_text(Column(kBool), "t"));
  CHECK(check_text(Column(kInt32), "-2147483648"));
  CHECK(check_text(Column(kInt64), "999999999999999999"));
  CHECK(check_text(Column(kText), ""));
  CHECK(check_text(Column(kText, 0, 536'870'911), std::string(300, 'x')));
  CHECK(check_text(Column(kNumeric), "-19.90"));
  CHECK(check_text(Column(kDate), "2024-02-29"));
  CHECK(check_text(Column(kTimestamp), "1999-12-31 23:59:59.999999"));
  CHECK(check_text(Column(kTimestampTz), "2026-01-01 00:00:00.5+00"));
  using namespace std::string_literals;
  CHECK(check_binary(Column(kBool, 16), "\1"));
  CHECK(check_binary(Column(kInt32, 21), "\377\376"));
  CHECK(check_binary(Column(kInt32, 23), "\200\0\0\0"s));
  CHECK(check_binary(Column(kInt64, 20), "\200\0\0\0\0\0\0\0"s));
  CHECK(check_binary(Column(kText, 25), "abc"));
  CHECK(check_binary(Column(kBytes, 17), "\0\377"s));
  CHECK(check_binary(Column(kNumeric, 1700), "\0\2\0\0\0\0\0\2\0\23\43\50"s));
  CHECK(check_binary(Column(kTimestampTz, 1184), "\0\2\376\0\0\0\0\1"s));
}

TEST_CASE("B12, B13: whatever is not of the common sort is left to the long way",
          "[pgoutput][binary]") {
  for (const auto& [kind, texts] : std::vector<std::pair<ValueKind, std::vector<std::string>>>{
           {kBool, {"", "true", "1"}},
           {kInt32, {"", "-", "2147483648", "+1", "1 ", "1234567890123456789"}},
           {kInt64, {"", "-", "9223372036854775808", "0x1", "1.0"}},
           {kNumeric, {"", "-", ".5", "5.", "1.2.3", "NaN", "Infinity", "1e5"}},
           {kDate,
            {"", "infinity", "0044-03-15 BC", "10000-01-01", "2025-02-29", "2024-00-01",
             "2024-13-01", "2024-01-00", "2024-01-32", "0000-01-01", "2024/01/01", "1900-02-29"}},
           {kTimestamp,
            {"", "infinity", "2024-01-01", "2024-01-01 00:00:00.", "2024-01-01 24:00:00",
             "2024-01-01 00:60:00", "2024-01-01 00:00:60", "2024-01-01 00:00:00.1234567",
             "2024-01-01 00:00:00+00", "2024-01-01T00:00:00", "0044-03-15 12:00:00 BC",
             "2024-01-01 00:00:00.12x"}},
           {kTimestampTz,
            {"", "infinity", "2024-01-01 00:00:00", "2024-01-01 00:00:00+01",
             "0044-03-15 12:00:00+00 BC", "+00"}}})
    for (const std::string& text : texts) {
      CAPTURE(name_of(kind), text);
      CHECK_FALSE(check_text(Column(kind), text));
    }
  ColumnSchema array = Column(kInt32).schema;
  array.array = true;
  CHECK_FALSE(written(write_text_value, ColumnPlan(array, binary_type(1007, kInt32, true)), "{1}"));
  CHECK_FALSE(written(write_binary_value, ColumnPlan(array, binary_type(1007, kInt32, true)), ""));
}

TEST_CASE("every day of 400 years is the same either way", "[pgoutput][binary]") {
  const Column date(kDate), stamp(kTimestamp);
  for (std::int32_t day = -36'525; day < 109'572; day += 1) {
    std::string text;
    REQUIRE(append_value_text(
        date.schema,
        [&] {
          std::string field = "\x38";
          append_varint(field, zigzag(day));
          return field;
        }(),
        text));
    REQUIRE(check_text(date, text));
    if (day % 97 == 0) REQUIRE(check_text(stamp, text + " 12:34:56.07"));
  }
}

TEST_CASE("random values are the same either way, or left alone", "[pgoutput][binary]") {
  std::mt19937 random(20'260'101);
  constexpr std::string_view kCharacters = "0123456789-.:+ eBCNan";
  for (const ValueKind kind : {kBool, kInt32, kInt64, kNumeric, kDate, kTimestamp, kTimestampTz}) {
    const Column column(kind);
    for (int i = 0; i < 3000; ++i) {
      std::string text = kind == kTimestampTz ? "2024-02-28 12:34:56.789+00"
                         : kind == kTimestamp ? "2024-02-28 12:34:56.789"
                         : kind == kDate      ? "2024-02-28"
                                              : std::to_string(random());
      for (unsigned changes = random() % 3; changes > 0 && !text.empty(); --changes)
        text[random() % text.size()] = kCharacters[random() % kCharacters.size()];
      if (random() % 4 == 0) text.resize(random() % (text.size() + 1));
      check_text(column, text);
    }
  }
  for (const auto& [oid, kind] :
       std::vector<std::pair<std::uint32_t, ValueKind>>{{16, kBool},
                                                        {21, kInt32},
                                                        {23, kInt32},
                                                        {20, kInt64},
                                                        {1114, kTimestamp},
                                                        {1700, kNumeric},
                                                        {25, kText},
                                                        {701, kDouble},
                                                        {2950, kUuid},
                                                        {1082, kDate}}) {
    const Column column(kind, oid);
    for (int i = 0; i < 3000; ++i) {
      std::string bytes(random() % 20, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random() % 3 == 0 ? random() : 0);
      const auto plan = column.plan;
      char number[kIntegerTextBytes];
      if (written(write_binary_value, plan, bytes) || text_of_binary(plan, bytes, number))
        check_binary(column, bytes);
    }
  }
}

TEST_CASE("a row buffer keeps what was written while it grows, and gives large room back",
          "[pgoutput]") {
  RowBuffer row;
  std::string expected;
  for (int i = 0; i < 200; ++i) {
    const std::string part(static_cast<std::size_t>(i * i), static_cast<char>('a' + i % 26));
    row.append(part);
    expected += part;
  }
  CHECK(row.view() == expected);
  row.give_back(1 << 20);
  CHECK(row.view().empty());
  row.append("again");
  CHECK(row.view() == "again");
}

}  // namespace millrace::pgoutput
