#include "schemas/lsn.h"

#include "schemas/table_schema.h"
#include "tests/support/catch.h"

namespace millrace {

TEST_CASE("F73: a WAL position is written as PostgreSQL writes it, also above 2^63", "[schemas]") {
  CHECK(to_string(Lsn{}) == "0/0");
  CHECK(to_string(Lsn{0x1C0ED5F8}) == "0/1C0ED5F8");
  CHECK(to_string(Lsn{0xFFFFFF00F0000140}) == "FFFFFF00/F0000140");
  CHECK(to_string(Lsn{0x0000000A0000000B}) == "A/B");
}

TEST_CASE("a WAL position is read back", "[schemas]") {
  for (const std::uint64_t value : {0ull, 1ull, 0x1C0ED5F8ull, 1ull << 63, ~0ull}) {
    const auto parsed = parse_lsn(to_string(Lsn{value}));
    REQUIRE(parsed);
    CHECK(parsed->value == value);
  }
  CHECK(parse_lsn("00000001/0000000a")->value == 0x10000000Aull);
}

TEST_CASE("what is no WAL position is refused", "[schemas]") {
  for (const std::string_view text : {"", "/", "0", "0/", "/0", "0/0/0", "0/G", "000000000/0",
                                      "0/123456789", "-1/0", "0x1/0", " 0/0", "0/0 ", "+1/0"}) {
    CAPTURE(text);
    const auto parsed = parse_lsn(text);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code() == ErrorCode::kInvalidArgument);
    CHECK_FALSE(parsed.error().hint().empty());
  }
}

TEST_CASE("B35: two tables never share a category", "[schemas]") {
  CHECK(category_of("public", "orders") == "public.orders");
  CHECK(category_of("a.b", "c") == "\"a.b\".c");
  CHECK(category_of("a", "b.c") == "a.\"b.c\"");
  CHECK(category_of("a", "b\"c") == "a.\"b\"\"c\"");
  CHECK(category_of("a\".\"b", "c") != category_of("a", "b\".\"c"));
}

TEST_CASE("a column is found by name and by field", "[schemas]") {
  TableSchema schema;
  schema.columns = {{.name = "id", .field = 1}, {.name = "note", .field = 7}};
  CHECK(schema.column("note") == &schema.columns[1]);
  CHECK(schema.column("nothing") == nullptr);
  CHECK(schema.column_of_field(7) == &schema.columns[1]);
  CHECK(schema.column_of_field(2) == nullptr);
}

TEST_CASE("every kind has a name", "[schemas]") {
  for (int kind = 1; kind <= static_cast<int>(ValueKind::kExactText); ++kind)
    CHECK(name_of(static_cast<ValueKind>(kind)) != "unknown");
  CHECK(name_of(static_cast<ValueKind>(0)) == "unknown");
}

}  // namespace millrace
