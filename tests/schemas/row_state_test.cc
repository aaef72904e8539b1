// What the changes of a row add up to, and how it compares.
#include "schemas/row_state.h"

#include "millrace/v1/change.pb.h"
#include "tests/support/catch.h"
#include "tests/support/store_fixture.h"

namespace millrace {
namespace {

using test::must;

std::string text_field(std::uint32_t field, const std::string& text) {
  std::string bytes(1, static_cast<char>(field << 3 | 2));
  bytes += static_cast<char>(text.size());
  return bytes + text;
}

RowChange change(char op, std::string_view after, std::vector<std::uint32_t> unchanged = {}) {
  return {.op = op,
          .schema = 1,
          .before = {},
          .after = after,
          .before_is_key = false,
          .unchanged = std::move(unchanged),
          .moved_from = {}};
}

TableSchema schema_of(std::uint32_t version, const std::vector<std::uint32_t>& fields) {
  TableSchema schema{
      .category = "public.t", .version = version, .schema_name = "public", .table_name = "t"};
  for (const std::uint32_t field : fields)
    schema.columns.push_back(
        {.name = "c" + std::to_string(field), .field = field, .kind = ValueKind::kText});
  return schema;
}

TEST_CASE("F77: a change takes what it left alone from the changes before it", "[schemas][row]") {
  RowState row;
  const std::string first = text_field(1, "k") + text_field(2, "big") + text_field(3, "x");
  const std::string second = text_field(1, "k") + text_field(3, "y");
  must(row.apply(change('c', first)));
  must(row.apply(change('u', second, {2})));
  CHECK(row.is_complete());
  CHECK(row.row == text_field(1, "k") + text_field(2, "big") + text_field(3, "y"));
  CHECK(must(field_in_row(row.row, 2)) == text_field(2, "big"));
  CHECK(must(field_in_row(row.row, 4)).empty());

  RowState other;  // nobody told it: it is not null
  must(other.apply(change('u', second, {2})));
  CHECK(other.exists);
  CHECK(other.unknown == std::vector<std::uint32_t>{2});

  RowChange moved = change('c', second, {2});
  moved.moved_from = "old";
  must(other.apply(moved, &row));
  CHECK(other.is_complete());
  must(row.apply(change('d', {})));
  CHECK_FALSE(row.exists);
}

TEST_CASE("rows are compared by what they mean under two versions of a schema", "[schemas][row]") {
  const TableSchema before = schema_of(1, {1, 2, 3});
  const TableSchema now = schema_of(2, {1, 3, 4});  // 2 went, 4 came
  RowState told{.exists = true,
                .schema = 1,
                .row = text_field(1, "k") + text_field(2, "gone") + text_field(3, "x"),
                .unknown = {}};
  RowDifference difference;
  must(compare_rows(told, before, text_field(1, "k") + text_field(3, "x"), now, difference));
  CHECK(difference.is_equal());
  must(compare_rows(told, before,
                    text_field(1, "k") + text_field(3, "x") + text_field(4, "default"), now,
                    difference));
  CHECK(difference.different.empty());
  REQUIRE(difference.untold.size() == 1);
  CHECK(difference.untold[0]->name == "c4");
  must(compare_rows(told, before, text_field(1, "k"), now, difference));
  REQUIRE(difference.different.size() == 1);
  CHECK(difference.different[0]->name == "c3");
  told.unknown = {3};
  told.row = text_field(1, "k");
  must(compare_rows(told, before, text_field(1, "k") + text_field(3, "x"), now, difference));
  CHECK(difference.different.empty());
  CHECK(difference.untold.size() == 1);
}

TEST_CASE("a change is taken apart as Protobuf's own writer puts it together", "[schemas][row]") {
  v1::Change message;
  message.set_op(v1::Change::CREATE);
  message.set_schema(300);
  message.set_lsn(77);
  message.set_before("b");
  message.set_after("");
  message.set_before_is_key(true);
  message.add_unchanged(2);
  message.add_unchanged(200);
  message.set_moved_from("old");
  const std::string bytes = message.SerializeAsString();
  const RowChange taken = must(read_row_change(bytes));
  CHECK(taken.op == 'c');
  CHECK(taken.schema == 300);
  CHECK(taken.before == "b");
  CHECK(taken.after == "");
  CHECK(taken.before_is_key);
  CHECK(taken.unchanged == std::vector<std::uint32_t>{2, 200});
  CHECK(taken.moved_from == "old");
  for (std::size_t cut = 1; cut < bytes.size(); ++cut)
    static_cast<void>(read_row_change(std::string_view(bytes).substr(0, cut)));  // no crash
  CHECK_FALSE(read_row_change(""));
  CHECK_FALSE(read_row_change("nonsense"));
}

}  // namespace
}  // namespace millrace
