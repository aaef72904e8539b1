#include "schemas/proto_file.h"

#include <set>

#include "schemas/rendering/field_names.h"
#include "tests/schemas/dynamic_row.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

TableSchema table(const std::string& name, const std::vector<std::string>& column_names) {
  TableSchema schema{.category = category_of("public", name),
                     .version = 1,
                     .schema_name = "public",
                     .table_name = name};
  std::uint32_t field = 0;
  for (const std::string& column : column_names)
    schema.columns.push_back(
        {.name = column, .field = ++field, .kind = ValueKind::kText, .type_name = "text"});
  return schema;
}

std::vector<std::string> names_of(const std::vector<std::string>& column_names) {
  const TableSchema schema = table("t", column_names);
  const DynamicRow compiled(schema);  // protoc takes them
  std::vector<std::string> names;
  for (const ColumnSchema& column : schema.columns) {
    names.push_back(field_name(schema, column));
    CHECK(compiled.descriptor().FindFieldByNumber(static_cast<int>(column.field))->name() ==
          names.back());
  }
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == names.size());
  return names;
}
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("message, package and file names come from any name", "[schemas][proto]") {
  CHECK(message_name("orders") == "Orders");
  CHECK(message_name("order_items") == "OrderItems");
  CHECK(message_name("OrderItems") == "OrderItems");
  CHECK(message_name("log_2026") == "Log_2026");
  CHECK(message_name("2fa") == "Table2fa");
  CHECK(message_name("order items").starts_with("OrderItems_"));
  CHECK(message_name("水").starts_with("Table_"));
  CHECK(message_name("水") != message_name("火"));
  CHECK(message_name("_orders") != message_name("orders"));
  CHECK(message_name("order__items") != message_name("order_items"));
  CHECK(package_name("My-Shop") == "my_shop");
  CHECK(package_name("shop") == "shop");
  CHECK(package_name("2shop") == "db_2shop");
  CHECK(package_name("") == "db_");
  CHECK(package_name("_x") == "db__x");
  CHECK(package_name("a.b\n;") == "a_b__");
  CHECK(proto_file_name(table("orders", {})) == "public.orders.proto");
}

TEST_CASE("B39: a file name is no path, and no two tables share one", "[schemas][proto]") {
  std::set<std::string> names;
  const Names tables = {"a/b",
                        "..",
                        "../../x",
                        "a.b",
                        "a%2eb",
                        "",
                        " ",
                        "-rf",
                        "\n",
                        "水",
                        std::string(63, '\xe6'),
                        std::string(63, '.')};
  for (const std::string& schema_name : {std::string("public"), std::string(63, '\xff')})
    for (const std::string& name : tables) {
      TableSchema schema = table(name, {});
      schema.schema_name = schema_name;
      schema.category = category_of(schema_name, name);
      const std::string file = proto_file_name(schema);
      CAPTURE(file);
      CHECK(file.find_first_not_of(
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.%") ==
            std::string::npos);
      CHECK(file.size() < 250);
      CHECK(file[0] != '.');
      names.insert(file);
    }
  CHECK(names.size() == 2 * tables.size());
}

TEST_CASE("the exported file says what each field holds", "[schemas][proto]") {
  TableSchema schema{
      .category = "public.orders", .version = 3, .schema_name = "public", .table_name = "orders"};
  schema.columns = {
      {.name = "id", .field = 1, .kind = ValueKind::kInt64, .key = true, .type_name = "bigint"},
      {.name = "total", .field = 2, .kind = ValueKind::kNumeric, .type_name = "numeric(12,2)"},
      {.name = "placed at",
       .field = 5,
       .kind = ValueKind::kTimestampTz,
       .type_name = "timestamp with time zone"},
      {.name = "days", .field = 6, .kind = ValueKind::kDate, .array = true, .type_name = "date[]"},
  };
  schema.retired = {{3, "note"}, {4, "total"}};
  CHECK(
      to_proto_file(schema, "shop") ==
      R"(// Table public.orders, version 3 of its schema. Written by millrace: change the table, not this file.
// A field that is absent is null.
syntax = "proto3";

package shop;

import "millrace/v1/values.proto";

message Orders {
  reserved 3, 4;
  reserved "note";
  // bigint, part of the key
  optional sint64 id = 1;
  // numeric(12,2): exact decimal text, also NaN, Infinity and -Infinity
  optional string total = 2;
  // timestamp with time zone, column "placed at": microseconds since 2000-01-01 00:00:00 UTC; the extremes are -infinity and infinity
  optional sint64 placed_at = 5;
  // date[]: each days since 2000-01-01; the extremes are -infinity and infinity
  .millrace.v1.Int32Array days = 6;
}
)");
  CHECK(DynamicRow(schema).descriptor().full_name() == "shop.Orders");
  CHECK(to_proto_file(table("plain", {"a"}), "shop").find("import") == std::string::npos);
}

TEST_CASE("every kind compiles to the type that proto_type tells, with presence",
          "[schemas][proto]") {
  TableSchema schema = table("kinds", {});
  std::uint32_t field = 0;
  for (int kind = 1; kind <= static_cast<int>(ValueKind::kExactText); ++kind)
    for (const bool array : {false, true})
      schema.columns.push_back({.name = "c" + std::to_string(++field),
                                .field = field,
                                .kind = static_cast<ValueKind>(kind),
                                .array = array,
                                .type_name = "x"});
  const DynamicRow compiled(schema);
  for (const ColumnSchema& column : schema.columns) {
    const auto* descriptor =
        compiled.descriptor().FindFieldByNumber(static_cast<int>(column.field));
    REQUIRE(descriptor != nullptr);
    CHECK(descriptor->has_presence());
    CHECK((descriptor->message_type() != nullptr ? descriptor->message_type()->full_name()
                                                 : descriptor->type_name()) == proto_type(column));
  }
}

TEST_CASE("B35: columns of any name compile, and the plain ones keep theirs", "[schemas][proto]") {
  CHECK(names_of({"id", "order_id", "Name", "class", "package", "int", "_key", "a1", "message"}) ==
        Names{"id", "order_id", "Name", "class", "package", "int", "_key", "a1", "message"});
  CHECK(names_of({"a_b", "aB", "A_B", "ab"}) == Names{"a_b", "aB_2", "A_B_3", "ab_4"});
  CHECK(names_of({"total amount", "total_amount"}) == Names{"total_amount_1", "total_amount"});
  CHECK(names_of({"2fa", "", "_", "水", "a\n;option x=1;//", "\xff"}) ==
        Names{"c_2fa", "column", "column_3", "column_4", "a__option_x_1___", "column_6"});
  CHECK(names_of({"a-1", "a_1", "a 1", "a1"}) == Names{"a_1_1", "a_1", "a_1_3", "a1_4"});
  CHECK(names_of({std::string(63, '-'), std::string(63, 'x')})[1] == std::string(63, 'x'));
}

TEST_CASE("a column that would hide an accessor of another gets another name", "[schemas][proto]") {
  CHECK(names_of({"image", "has_image", "set_image", "clear_image", "has_more"}) ==
        Names{"image", "has_image_2", "set_image_3", "clear_image_4", "has_more"});
  CHECK(names_of({"has_image", "image"}) == Names{"has_image_1", "image"});
  CHECK(names_of({"descriptor", "default_instance"}) ==
        Names{"descriptor_1", "default_instance_2"});
}

TEST_CASE("C++ takes what protoc makes of awkward columns", "[schemas][proto]") {
  const TemporaryDirectory directory;
  TableSchema schema = table("awkward", {"image",
                                         "has_image",
                                         "set_image",
                                         "clear_image",
                                         "mutable_image",
                                         "release_image",
                                         "_internal_image",
                                         "descriptor",
                                         "default_instance",
                                         "New",
                                         "Clear",
                                         "Swap",
                                         "DebugString",
                                         "class",
                                         "operator",
                                         "int",
                                         "swap",
                                         "_id",
                                         "__x",
                                         "aB",
                                         "a_b",
                                         "New York",
                                         "unknown_fields",
                                         "arena",
                                         "GetArena",
                                         "cached_size"});
  schema.columns[0].kind = ValueKind::kBytes;
  schema.columns[1].array = true;
  const auto write = [&](const std::string& name, const std::string& text) {
    const std::filesystem::path path = directory / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  };
  write(std::string(kValuesProtoPath), values_proto_file());
  write("public.awkward.proto", to_proto_file(schema, "shop"));
  write("main.cc",
        "#include \"public.awkward.pb.h\"\nint main() { shop::Awkward row; return row.has_image() "
        "? 1 : 0; }\n");
  const std::string root = directory.path().string();
  const CommandResult compiled =
      run_command({"protoc", "--proto_path=" + root, "--cpp_out=" + root, "public.awkward.proto",
                   std::string(kValuesProtoPath)});
  INFO(compiled.err);
  REQUIRE(compiled.exit_code == 0);
  const CommandResult built = run_command({"c++", "-std=c++20", "-fsyntax-only", "-I" + root,
                                           root + "/main.cc", root + "/public.awkward.pb.cc"});
  INFO(built.err.substr(0, 4000));
  CHECK(built.exit_code == 0);
}

TEST_CASE("field names stay what they are when other columns come", "[schemas][proto]") {
  TableSchema schema = table("t", {"a b", "note", "has_note", "A_B"});
  const std::vector<std::string> before = rendering::field_names(schema);
  schema.columns.push_back(
      {.name = "zebra", .field = 9, .kind = ValueKind::kText, .type_name = "text"});
  std::swap(schema.columns[0], schema.columns[4]);
  const std::vector<std::string> after = rendering::field_names(schema);
  CHECK(after[4] == before[0]);
  CHECK(std::vector<std::string>(after.begin() + 1, after.begin() + 4) ==
        std::vector<std::string>(before.begin() + 1, before.end()));
}

}  // namespace millrace::test
