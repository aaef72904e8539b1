#include "schemas/merge_change.h"

#include "base/bytes.h"
#include "millrace/v1/change.pb.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

using v1::Change;

/// A row message with text fields.
std::string row(std::initializer_list<std::pair<std::uint32_t, std::string>> fields) {
  std::string bytes;
  for (const auto& [number, text] : fields) {
    append_varint(bytes, number << 3 | 2);
    append_varint(bytes, text.size());
    bytes += text;
  }
  return bytes;
}

Change change(Change::Op op, const std::string& after,
              std::initializer_list<std::uint32_t> unchanged = {}) {
  Change change;
  change.set_op(op);
  change.set_schema(3);
  change.set_lsn(77);
  change.set_after(after);
  for (const std::uint32_t field : unchanged) change.add_unchanged(field);
  return change;
}

std::optional<Change> merge(const Change& older, const Change& newer) {
  const auto merged = merge_change(older.SerializeAsString(), newer.SerializeAsString());
  REQUIRE(merged);
  if (!*merged) return std::nullopt;
  Change parsed;
  REQUIRE(parsed.ParseFromString(**merged));
  return parsed;
}

}  // namespace

TEST_CASE("a change gets its unchanged columns from an older one, and is whole then",
          "[schemas][merge]") {
  const std::string large(100'000, 'x');
  const Change older = change(Change::CREATE, row({{1, "1"}, {2, "old"}, {5, large}, {6, ""}}));
  Change newer = change(Change::UPDATE, row({{1, "1"}, {2, "new"}, {7, "z"}}), {5, 6});
  newer.set_before(row({{1, "1"}}));
  newer.set_before_is_key(true);
  const auto merged = merge(older, newer);
  REQUIRE(merged);
  Change expected = newer;
  expected.clear_unchanged();
  expected.set_after(row({{1, "1"}, {2, "new"}, {5, large}, {6, ""}, {7, "z"}}));
  CHECK(merged->SerializeAsString() == expected.SerializeAsString());
}

TEST_CASE("what the older change does not know is not guessed", "[schemas][merge]") {
  const Change newer = change(Change::UPDATE, row({{1, "1"}}), {5});
  CHECK_FALSE(merge(change(Change::CREATE, row({{1, "1"}})), newer));
  CHECK_FALSE(merge(change(Change::UPDATE, row({{1, "1"}}), {5}), newer));
  Change gone;
  gone.set_op(Change::DELETE);
  gone.set_before(row({{1, "1"}, {5, "x"}}));
  CHECK_FALSE(merge(gone, newer));
  CHECK(merge(change(Change::READ, row({{1, "1"}, {5, "x"}})), newer));
}

TEST_CASE("a change that moved its row to another key is known as such", "[schemas][merge]") {
  Change moved = change(Change::CREATE, row({{1, "2"}}), {5});
  CHECK_FALSE(is_moved_change(moved.SerializeAsString()));
  moved.set_moved_from("1");
  CHECK(is_moved_change(moved.SerializeAsString()));
  moved.set_moved_from("");
  CHECK(is_moved_change(moved.SerializeAsString()));
  CHECK(is_moved_change("no message"));
}

TEST_CASE("what is left of an erased row is a DELETE with its key", "[schemas][merge]") {
  TableSchema schema;
  schema.category = "public.people";
  schema.version = 3;
  schema.columns = {{.name = "id", .field = 1, .key = true},
                    {.name = "name", .field = 2},
                    {.name = "region", .field = 4, .key = true}};
  const auto forget = [&](const Change& of) {
    const std::string payload = of.SerializeAsString();
    CHECK(schema_of_change(payload).value() == 3);
    const auto made = forgetting_change(payload, schema);
    REQUIRE(made);
    REQUIRE(*made);
    Change parsed;
    REQUIRE(parsed.ParseFromString(**made));
    return parsed;
  };
  const Change made = forget(change(Change::UPDATE, row({{1, "7"}, {2, "secret"}, {4, "eu"}})));
  CHECK(made.op() == Change::DELETE);
  CHECK(made.schema() == 3);
  CHECK(made.before() == row({{1, "7"}, {4, "eu"}}));
  CHECK(made.before_is_key());
  CHECK_FALSE(made.has_after());
  CHECK(forget(made).SerializeAsString() == made.SerializeAsString());
  schema.columns[0].key = schema.columns[2].key = false;
  CHECK_FALSE(forgetting_change(made.SerializeAsString(), schema).value());
}

TEST_CASE("payloads that are no changes, or are cut anywhere, are an error and never a crash",
          "[schemas][merge]") {
  const std::string older = change(Change::CREATE, row({{1, "1"}, {5, "x"}})).SerializeAsString();
  const std::string newer = change(Change::UPDATE, row({{1, "1"}}), {5}).SerializeAsString();
  CHECK(merge_change("\xff\xff", newer).error().code() == ErrorCode::kCorruption);
  CHECK(merge_change(older, "\xff\xff").error().code() == ErrorCode::kCorruption);
  for (std::size_t cut = 0; cut < newer.size(); ++cut)
    static_cast<void>(merge_change(older, newer.substr(0, cut)));
  for (std::size_t cut = 0; cut < older.size(); ++cut) {
    const auto merged = merge_change(older.substr(0, cut), newer);
    CHECK((!merged || !*merged));
  }
}

}  // namespace millrace::test
