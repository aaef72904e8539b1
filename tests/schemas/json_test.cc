#include "schemas/json.h"

#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "millrace/v1/change.pb.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

using v1::Change;

/// orders(id int8 key, shop int4 key, total numeric, note text, tags text[]) as version 1 in
/// memory.
class Fixture {
 public:
  explicit Fixture(ReplicaIdentity identity = ReplicaIdentity::kDefault) {
    TableSchema schema{.category = "public.orders",
                       .schema_name = "public",
                       .table_name = "orders",
                       .replica_identity = identity};
    schema.columns = {{.name = "id", .kind = ValueKind::kInt64, .key = true},
                      {.name = "total", .kind = ValueKind::kNumeric},
                      {.name = "note", .kind = ValueKind::kText},
                      {.name = "tags", .kind = ValueKind::kText, .array = true}};
    REQUIRE(schemas->record(schema));
  }

  static Change change(Change::Op op) {
    Change change;
    change.set_op(op);
    change.set_schema(op == Change::MESSAGE ? 0 : 1);
    change.set_lsn(0x1C0ED598);
    return change;
  }

  EventRecord record(const Change& change) {
    payload = change.SerializeAsString();
    return {.offset = 17,
            .category = "public.orders",
            .key = "42",
            .type = {},
            .payload = payload,
            .captured = true,
            .commit_lsn = 0x1C0ED5F8,
            .xid = 771,
            .commit_time = UnixMicros{1'767'225'600'000'001}};
  }

  std::string json(const Change& change) { return json(record(change)); }
  std::string json(const EventRecord& event) {
    std::string out = "before ";
    const auto appended = append_event_json(event, *schemas, out);
    if (!appended) FAIL(appended.error().to_string());
    const std::string line = out.substr(7);
    CHECK(line.find('\n') == std::string::npos);
    CHECK(nlohmann::json::accept(line));
    return line;
  }
  std::string text(const EventRecord& event, bool with_offset = true) {
    std::string out;
    const auto appended = append_event_text(event, *schemas, out, with_offset);
    if (!appended) FAIL(appended.error().to_string());
    return out;
  }
  Error refusal(const EventRecord& event) {
    std::string out = "before";
    const auto appended = append_event_json(event, *schemas, out);
    REQUIRE_FALSE(appended);
    CHECK(out == "before");
    CHECK_FALSE(append_event_text(event, *schemas, out));
    CHECK(out == "before");
    return appended.error();
  }

  std::unique_ptr<SchemaRegistry> schemas = SchemaRegistry::in_memory();
  std::string payload;
};

/// Fields of a row by hand: 1 id, 2 total, 3 note, 4 tags.
std::string id(std::int64_t value) {
  std::string bytes = "\x08";
  append_varint(bytes, zigzag(value));
  return bytes;
}
std::string text_field(char tag, std::string_view text) {
  std::string bytes(1, tag);
  append_varint(bytes, text.size());
  return bytes + std::string(text);
}
std::string total(std::string_view text) { return text_field('\x12', text); }
std::string note(std::string_view text) { return text_field('\x1a', text); }

const std::string kSource =
    R"("source":{"lsn":"0/1C0ED598","commit_lsn":"0/1C0ED5F8","xid":771,"commit_time":"2026-01-01T00:00:00.000001Z"})";

}  // namespace

TEST_CASE("an insert is in the words of docs/events.md, to the letter", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::CREATE);
  change.set_after(id(42) + total("19.90"));
  CHECK(fixture.json(change) ==
        R"({"offset":17,"op":"c","category":"public.orders","key":{"id":42},"before":null,)"
        R"("after":{"id":42,"total":"19.90","note":null,"tags":null},"unchanged":[],)" +
            kSource + R"(,"schema":1})");
}

TEST_CASE("the offset of a live change is left out", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::READ);
  change.set_after(id(1));
  std::string out;
  REQUIRE(append_event_json(fixture.record(change), *fixture.schemas, out, false));
  CHECK(out.starts_with(
      R"({"op":"r","category":"public.orders","key":{"id":1},"before":null,"after":{"id":1,)"));
}

TEST_CASE("an update lists what did not change and leaves it out of after", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::UPDATE);
  change.set_after(id(42) + total("1"));
  change.add_unchanged(3);
  change.add_unchanged(4);
  CHECK(fixture.json(change) ==
        R"({"offset":17,"op":"u","category":"public.orders","key":{"id":42},"before":null,)"
        R"("after":{"id":42,"total":"1"},"unchanged":["note","tags"],)" +
            kSource + R"(,"schema":1})");
}

TEST_CASE("a delete has the key columns only, or the whole row under REPLICA IDENTITY FULL",
          "[json]") {
  Change change = Fixture::change(Change::DELETE);
  change.set_before(id(42));
  change.set_before_is_key(true);
  Fixture fixture;
  CHECK(fixture.json(change) ==
        R"({"offset":17,"op":"d","category":"public.orders","key":{"id":42},"before":{"id":42},)"
        R"("after":null,"unchanged":[],)" +
            kSource + R"(,"schema":1})");
  Fixture full(ReplicaIdentity::kFull);
  change.set_before(id(42) + note("x"));
  change.set_before_is_key(false);
  CHECK(full.json(change).find(
            R"("before":{"id":42,"total":null,"note":"x","tags":null},"after":null)") !=
        std::string::npos);
}

TEST_CASE("a row of nothing but nulls is a row, though its bytes are empty", "[json]") {
  Fixture full(ReplicaIdentity::kFull);
  const std::string nulls = R"({"id":null,"total":null,"note":null,"tags":null})";
  CHECK(full.json(Fixture::change(Change::CREATE)).find(R"("before":null,"after":)" + nulls) !=
        std::string::npos);
  CHECK(full.json(Fixture::change(Change::UPDATE))
            .find(R"("before":)" + nulls + R"(,"after":)" + nulls) != std::string::npos);
  CHECK(full.json(Fixture::change(Change::DELETE))
            .find(R"("before":)" + nulls + R"(,"after":null)") != std::string::npos);
}

TEST_CASE("a key column that is unchanged in TOAST comes from the old row, or is left out",
          "[json]") {
  Fixture fixture;
  TableSchema schema{.category = "public.t", .schema_name = "public", .table_name = "t"};
  schema.columns = {{.name = "k", .kind = ValueKind::kText, .key = true},
                    {.name = "n", .kind = ValueKind::kInt32, .key = true}};
  REQUIRE(fixture.schemas->record(schema));
  Change change = Fixture::change(Change::UPDATE);
  change.set_after(std::string("\x10\x0a"));
  change.add_unchanged(1);
  EventRecord event = fixture.record(change);
  event.category = "public.t";
  CHECK(fixture.json(event).find(
            R"("key":{"n":5},"before":null,"after":{"n":5},"unchanged":["k"])") !=
        std::string::npos);
  change.set_before(text_field('\x0a', "long") + "\x10\x0a");
  change.set_before_is_key(true);
  event = fixture.record(change);
  event.category = "public.t";
  CHECK(fixture.json(event).find(R"("key":{"k":"long","n":5},"before":{"k":"long","n":5})") !=
        std::string::npos);
}

TEST_CASE("a truncate and a table without a key have no key", "[json]") {
  Fixture fixture;
  CHECK(
      fixture.json(Fixture::change(Change::TRUNCATE)) ==
      R"({"offset":17,"op":"t","category":"public.orders","key":null,"before":null,"after":null,"unchanged":[],)" +
          kSource + R"(,"schema":1})");
  TableSchema schema{.category = "public.log", .schema_name = "public", .table_name = "log"};
  schema.columns = {{.name = "line", .kind = ValueKind::kText}};
  REQUIRE(fixture.schemas->record(schema));
  Change change = Fixture::change(Change::CREATE);
  change.set_after(text_field('\x0a', "x"));
  EventRecord event = fixture.record(change);
  event.category = "public.log";
  CHECK(fixture.json(event).find(R"("key":null,"before":null,"after":{"line":"x"})") !=
        std::string::npos);
}

TEST_CASE("a logical message shows its content as text, or as base64 under another name",
          "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::MESSAGE);
  change.set_prefix("audit");
  change.set_content("{\"a\":1}");
  CHECK(
      fixture.json(change) ==
      R"({"offset":17,"op":"m","category":"public.orders","prefix":"audit","content":"{\"a\":1}",)" +
          kSource + "}");
  change.set_content("\xff\x01");
  CHECK(fixture.json(change).find(R"("prefix":"audit","content_base64":"/wE=")") !=
        std::string::npos);
  CHECK(fixture.text(fixture.record(change)) == R"(17  m  audit  \\xff\u0001)");
}

TEST_CASE("a domain event shows its data as JSON, or as base64 under another name", "[json]") {
  Fixture fixture;
  EventRecord event{.offset = 3,
                    .category = "cart",
                    .key = "9f\"3a",
                    .type = "ItemAdded",
                    .payload = "{\"sku\": 1,\n\"n\": 2}"};
  CHECK(
      fixture.json(event) ==
      R"({"offset":3,"op":"a","category":"cart","stream":"cart/9f\"3a","type":"ItemAdded","data":{"sku": 1, "n": 2},"source":null,"time":"1970-01-01T00:00:00.000000Z"})");
  CHECK(fixture.text(event) == R"(3  a  cart/9f\"3a  ItemAdded  {"sku": 1, "n": 2})");
  event.version = 0;
  CHECK(fixture.json(event).find(R"("type":"ItemAdded","version":0,"data":{)") !=
        std::string::npos);
  event.payload = "\x08\x01";
  event.captured = true;
  event.commit_lsn = 16;
  CHECK(fixture.json(event).find(
            R"("data_base64":"CAE=","source":{"lsn":"0/10","commit_lsn":"0/10",)") !=
        std::string::npos);
}

TEST_CASE("a domain event shows the metadata that it has, and no other", "[json]") {
  Fixture fixture;
  EventRecord event{.category = "cart", .key = "1", .type = "T", .payload = "1"};
  event.metadata.correlation_id = "request \"7\"";
  CHECK(fixture.json(event).ends_with(
      R"("time":"1970-01-01T00:00:00.000000Z","metadata":{"correlation_id":"request \"7\""}})"));
  event.metadata = {.event_id = "\xff",
                    .correlation_id = "c",
                    .causation_id = "b",
                    .time = UnixMicros{1'000'001},
                    .extra = "x"};
  CHECK(fixture.json(event).ends_with(
      R"("metadata":{"id_base64":"/w==","correlation_id":"c","causation_id":"b","time":"1970-01-01T00:00:01.000001Z","extra":"x"}})"));
}

TEST_CASE("the text of an event is one line for a person", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::CREATE);
  change.set_after(id(42) + note("two\nlines \x1b[31m"));
  CHECK(
      fixture.text(fixture.record(change)) ==
      R"(17  c  public.orders  id=42  {"id":42,"total":null,"note":"two\nlines \u001b[31m","tags":null})");
  CHECK(fixture.text(fixture.record(change), false).starts_with("c  public.orders  id=42  {"));
  CHECK(fixture.text(fixture.record(Fixture::change(Change::TRUNCATE))) == "17  t  public.orders");
  Change gone = Fixture::change(Change::DELETE);
  gone.set_before(id(42));
  gone.set_before_is_key(true);
  CHECK(fixture.text(fixture.record(gone)) == R"(17  d  public.orders  id=42  {"id":42})");
}

TEST_CASE("an event whose schema is not there says so", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::CREATE);
  change.set_schema(2);
  CHECK(fixture.refusal(fixture.record(change)).code() == ErrorCode::kNotFound);
  change.set_schema(0);
  const Error error = fixture.refusal(fixture.record(change));
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(error.message().starts_with("event 17 of public.orders: "));
}

TEST_CASE("B28: a row that is not one of its schema is refused", "[json]") {
  Fixture fixture;
  const auto refuse = [&](const std::string& row) {
    Change change = Fixture::change(Change::CREATE);
    change.set_after(row);
    CHECK(fixture.refusal(fixture.record(change)).code() == ErrorCode::kCorruption);
  };
  refuse(id(1) + id(2));               // twice
  refuse(std::string("\x28\x02"));     // a field that the table does not have
  refuse(std::string("\x0a\x01x"));    // id as bytes
  refuse(std::string("\x10\x02"));     // total as a number
  refuse(std::string("\x08"));         // cut
  refuse(std::string("\x1a\x05xyz"));  // length past the end
  refuse(std::string("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));  // eleven bytes
  refuse(std::string("\x0b\x0c"));                                          // a group
  refuse(std::string("\0\0", 2));                                           // field 0
  refuse(
      text_field('\x22', std::string("\x0a\x01x\x12\x01\x05")));  // null behind the end of an array
  refuse(text_field('\x22', std::string("\x08\x01")));            // numbers in a list of strings
  Change odd = Fixture::change(Change::CREATE);
  odd.add_unchanged(9);
  CHECK(fixture.refusal(fixture.record(odd)).code() == ErrorCode::kCorruption);
}

TEST_CASE("B28: a payload of any cut or any flipped bit gives JSON or an error", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::UPDATE);
  change.set_before(id(42));
  change.set_before_is_key(true);
  change.set_after(id(43) + total("1.5") + note("x") +
                   text_field('\x22', std::string("\x0a\x01x\x0a\x00\x12\x01\x01", 8)));
  change.add_unchanged(4);
  change.set_moved_from("42");
  const std::string whole = change.SerializeAsString();
  std::size_t shown = 0;
  const auto render = [&](const std::string& payload) {
    EventRecord event = fixture.record(change);
    event.payload = payload;
    std::string json, text;
    if (!append_event_json(event, *fixture.schemas, json)) {
      CHECK(json.empty());
      return;
    }
    REQUIRE(append_event_text(event, *fixture.schemas, text));
    CHECK(nlohmann::json::accept(json));
    CHECK(text.find('\n') == std::string::npos);
    ++shown;
  };
  for (std::size_t size = 0; size <= whole.size(); ++size) render(whole.substr(0, size));
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    render(damaged);
  }
  CHECK(shown > 10);
}

TEST_CASE("a field of Change that is not known yet is passed over", "[json]") {
  Fixture fixture;
  Change change = Fixture::change(Change::TRUNCATE);
  EventRecord event = fixture.record(change);
  const std::string newer = fixture.payload + "\xa2\x06\x03new";
  event.payload = newer;
  CHECK(fixture.json(event) == fixture.json(change));
}

TEST_CASE("B35: hostile names stay inside their strings", "[json]") {
  Fixture fixture;
  const std::string name = "a\":{}\n\xff\u2028";
  TableSchema schema{
      .category = category_of("public", name), .schema_name = "public", .table_name = name};
  schema.columns = {{.name = name, .kind = ValueKind::kInt32, .key = true}};
  REQUIRE(fixture.schemas->record(schema));
  Change change = Fixture::change(Change::CREATE);
  change.set_after(id(1));
  EventRecord event = fixture.record(change);
  event.category = schema.category;
  const auto parsed = nlohmann::json::parse(fixture.json(event));
  CHECK(parsed["key"].size() == 1);
  CHECK(parsed["after"].begin().value() == 1);
  CHECK(fixture.text(event).find('\n') == std::string::npos);
}

}  // namespace millrace::test
