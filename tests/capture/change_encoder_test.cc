#include "capture/pipeline/change_encoder.h"

#include <memory>

#include "capture/pgoutput/decoder.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace {
namespace {

namespace bytes = test::bytes;
using bytes::binary;
using bytes::null;
using bytes::text;
using bytes::unchanged;
using test::RecordedEvent;
using v1::Change;

using Row = std::map<std::string, std::string>;
constexpr std::uint32_t kThings = 16400;
constexpr Lsn kLsn{0x1C0ED598};

/// An encoder that is fed with messages' bytes, and what came out of it.
struct Bench {
  test::FakeCatalog catalog;
  std::unique_ptr<SchemaRegistry> registry = SchemaRegistry::in_memory();
  test::MemoryOut out;
  ChangeEncoder encoder{*registry, catalog, out};
  pgoutput::Decoder decoder;

  Result<void> feed(const std::string& message) {
    const auto decoded = decoder.decode(message);
    if (!decoded) FAIL(decoded.error().to_string());
    switch (message[0]) {
      case 'R': return encoder.relation(*std::get<const pgoutput::Relation*>(*decoded), kLsn);
      case 'I': return encoder.insert(*std::get<const pgoutput::Insert*>(*decoded), kLsn);
      case 'U': return encoder.update(*std::get<const pgoutput::Update*>(*decoded), kLsn);
      case 'D': return encoder.remove(*std::get<const pgoutput::Delete*>(*decoded), kLsn);
      case 'T': return encoder.truncate(*std::get<const pgoutput::Truncate*>(*decoded), kLsn);
      default: return encoder.message(*std::get<const pgoutput::LogicalMessage*>(*decoded), kLsn);
    }
  }

  std::vector<RecordedEvent> events(const std::string& message) {
    const auto fed = feed(message);
    if (!fed) FAIL(fed.error().to_string());
    for (const RecordedEvent& event :
         out.open_events())  // canonical: as Protobuf itself would write it
      CHECK(event.change().SerializeAsString() == event.payload);
    return out.take();
  }

  RecordedEvent event(const std::string& message) {
    const auto all = events(message);
    REQUIRE(all.size() == 1);
    return all[0];
  }

  Error error(const std::string& message) {
    const auto fed = feed(message);
    REQUIRE_FALSE(fed);
    return fed.error();
  }

  const TableSchema& schema(std::uint32_t oid = kThings) const {
    const TableSchema* found = encoder.schema_of(oid);
    REQUIRE(found != nullptr);
    return *found;
  }

  Row before(const RecordedEvent& event) const {
    return test::row_of(schema(), event.change().before());
  }
  Row after(const RecordedEvent& event) const {
    return test::row_of(schema(), event.change().after());
  }
  std::vector<std::string> unchanged_of(const RecordedEvent& event) const {
    std::vector<std::string> names;
    const Change change = event.change();
    for (const std::uint32_t field : change.unchanged())
      names.push_back(schema().column_of_field(field)->name);
    return names;
  }
};

/// things(id integer, name text, note text) with the identity's columns flagged as PostgreSQL does.
std::string things(char identity, bool id_is_key = true, bool name_is_key = false) {
  const bool full = identity == 'f';
  return bytes::relation(
      kThings, "public", "things", identity,
      {{"id", 23, full || id_is_key}, {"name", 25, full || name_is_key}, {"note", 25, full}});
}

TEST_CASE("an insert becomes a c event with the whole row, nulls absent", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const RecordedEvent event = bench.event(bytes::insert(kThings, {text("-7"), text(""), null()}));
  CHECK(event.category == "public.things");
  CHECK(event.key == "-7");
  CHECK(event.type.empty());
  CHECK(event.flags == EventFlags::kNone);
  const Change change = event.change();
  CHECK(change.op() == Change::CREATE);
  CHECK(change.schema() == 1);
  CHECK(change.lsn() == kLsn.value);
  CHECK(change.before().empty());
  CHECK(change.unchanged().empty());
  CHECK(bench.after(event) == Row{{"id", "-7"}, {"name", ""}});
}

TEST_CASE("a row that a snapshot read becomes an r event", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const pgoutput::Tuple row = {{pgoutput::FieldState::kText, "1"},
                               {pgoutput::FieldState::kNull, {}},
                               {pgoutput::FieldState::kText, "n"}};
  REQUIRE(bench.encoder.read(kThings, row, kLsn));
  const RecordedEvent event = bench.out.take().at(0);
  CHECK(event.change().op() == Change::READ);
  CHECK(event.key == "1");
  CHECK(bench.after(event) == Row{{"id", "1"}, {"note", "n"}});
}

TEST_CASE("with the default identity an update has no old row", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const RecordedEvent event = bench.event(bytes::update(kThings, {text("1"), text("b"), null()}));
  CHECK(event.change().op() == Change::UPDATE);
  CHECK(event.key == "1");
  CHECK(event.flags == EventFlags::kNone);
  CHECK(event.change().before().empty());
  CHECK(bench.after(event) == Row{{"id", "1"}, {"name", "b"}});
}

TEST_CASE("F77: an unchanged large value is listed as unchanged, never null or empty",
          "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const RecordedEvent event =
      bench.event(bytes::update(kThings, {text("1"), text("b"), unchanged()}));
  CHECK(event.flags == EventFlags::kPartial);
  CHECK(bench.unchanged_of(event) == std::vector<std::string>{"note"});
  CHECK(bench.after(event) == Row{{"id", "1"}, {"name", "b"}});
}

TEST_CASE("an unchanged large value is taken from the old row where that is whole",
          "[capture][encoder]") {
  Bench bench;
  bench.catalog.primary_keys[kThings] = {"id"};
  bench.events(things('f'));
  const RecordedEvent event = bench.event(bytes::update(
      kThings, 'O', {text("1"), text("a"), text("large")}, {text("1"), text("b"), unchanged()}));
  CHECK(event.flags == EventFlags::kNone);
  CHECK(event.change().unchanged().empty());
  CHECK(bench.after(event) == Row{{"id", "1"}, {"name", "b"}, {"note", "large"}});
}

TEST_CASE("an update of the key is d of the old key, then c of the new one", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const auto events = bench.events(
      bytes::update(kThings, 'K', {text("1"), null(), null()}, {text("2"), null(), unchanged()}));
  REQUIRE(events.size() == 2);
  CHECK(events[0].change().op() == Change::DELETE);
  CHECK(events[0].key == "1");
  CHECK(events[0].flags == EventFlags::kTombstone);
  CHECK(events[0].change().before_is_key());
  CHECK(events[0].change().after().empty());
  CHECK(bench.before(events[0]) == Row{{"id", "1"}});

  CHECK(events[1].change().op() == Change::CREATE);
  CHECK(events[1].key == "2");
  CHECK(events[1].change().moved_from() == "1");
  CHECK(events[1].flags == EventFlags::kPartial);
  CHECK(bench.unchanged_of(events[1]) == std::vector<std::string>{"note"});
  CHECK(events[1].change().before().empty());
  CHECK(bench.after(events[1]) == Row{{"id", "2"}});  // the old key's nulls are no values
}

TEST_CASE("an old key that is the new one too makes a plain update", "[capture][encoder]") {
  // PostgreSQL sends the old key also where the key is a large value that did not change.
  Bench bench;
  bench.events(things('d', false, true));
  const RecordedEvent event = bench.event(bytes::update(
      kThings, 'K', {null(), text("long key"), null()}, {text("5"), unchanged(), text("n")}));
  CHECK(event.change().op() == Change::UPDATE);
  CHECK(event.key == "long key");
  CHECK(event.flags == EventFlags::kNone);
  CHECK(event.change().before_is_key());
  CHECK(bench.before(event) == Row{{"name", "long key"}});
  CHECK(bench.after(event) == Row{{"id", "5"}, {"name", "long key"}, {"note", "n"}});
}

TEST_CASE("a key that the source did not send is refused, with the way out", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d', false, true));
  const Error error = bench.error(bytes::update(kThings, {text("5"), unchanged(), text("n")}));
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(error.hint().find("REPLICA IDENTITY FULL") != std::string::npos);
  CHECK(bench.out.open_events().empty());
}

TEST_CASE("with identity FULL and a primary key, that is the key and the old row is before",
          "[capture][encoder]") {
  Bench bench;
  bench.catalog.primary_keys[kThings] = {"id"};
  bench.events(things('f'));
  CHECK(bench.schema().columns[0].key);
  CHECK_FALSE(bench.schema().columns[1].key);

  const RecordedEvent updated = bench.event(
      bytes::update(kThings, 'O', {text("1"), text("a"), null()}, {text("1"), text("b"), null()}));
  CHECK(updated.change().op() == Change::UPDATE);
  CHECK(updated.key == "1");
  CHECK_FALSE(updated.change().before_is_key());
  CHECK(bench.before(updated) == Row{{"id", "1"}, {"name", "a"}});

  const auto moved = bench.events(bytes::update(kThings, 'O', {text("1"), text("a"), text("n")},
                                                {text("2"), text("a"), unchanged()}));
  REQUIRE(moved.size() == 2);
  CHECK(bench.before(moved[0]) == Row{{"id", "1"}, {"name", "a"}, {"note", "n"}});
  CHECK(moved[1].change().moved_from() == "1");
  CHECK(moved[1].flags == EventFlags::kNone);
  CHECK(bench.after(moved[1]) == Row{{"id", "2"}, {"name", "a"}, {"note", "n"}});

  const RecordedEvent removed =
      bench.event(bytes::remove(kThings, 'O', {text("2"), text("a"), null()}));
  CHECK(removed.key == "2");
  CHECK(removed.flags == EventFlags::kTombstone);
  CHECK(bench.before(removed) == Row{{"id", "2"}, {"name", "a"}});
}

TEST_CASE("with identity FULL and no primary key all columns are the key", "[capture][encoder]") {
  Bench bench;
  bench.events(things('f'));
  const auto events = bench.events(bytes::update(kThings, 'O', {text("1"), text("a,b\\"), null()},
                                                 {text("1"), text("c"), null()}));
  REQUIRE(events.size() == 2);
  CHECK(events[0].key == "1,a\\,b\\\\,\\N");
  CHECK(events[1].key == "1,c,\\N");
  CHECK(events[1].change().moved_from() == events[0].key);
}

TEST_CASE("a primary key that the table's columns do not show is not used", "[capture][encoder]") {
  Bench bench;  // renamed since, or not in the publication's column list
  bench.catalog.primary_keys[kThings] = {"id", "elsewhere"};
  bench.events(things('f'));
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a"), null()})).key == "1,a,\\N");
}

TEST_CASE("with identity FULL a table that is gone, or whose key was renamed, keeps its key",
          "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  SECTION("gone") { bench.catalog.gone = {kThings}; }
  SECTION("renamed") { bench.catalog.primary_keys[kThings] = {"number"}; }
  bench.events(things('f'));
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a"), null()})).key == "1");
}

TEST_CASE("with identity FULL a table that is gone and had no key has none now",
          "[capture][encoder]") {
  Bench bench;
  if (GENERATE(true, false)) bench.events(things('f'));
  bench.catalog.gone = {kThings};
  bench.events(things('f'));
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a"), null()})).key == "1,a,\\N");
}

TEST_CASE("with an index as identity its columns are the key", "[capture][encoder]") {
  Bench bench;
  bench.events(things('i', false, true));
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a,b"), null()})).key == "a,b");
  const auto moved = bench.events(
      bytes::update(kThings, 'K', {null(), text("a,b"), null()}, {text("1"), text("c"), null()}));
  REQUIRE(moved.size() == 2);
  CHECK(moved[0].key == "a,b");
  CHECK(bench.before(moved[0]) == Row{{"name", "a,b"}});
}

TEST_CASE("without an identity the key is empty", "[capture][encoder]") {
  for (const char identity : {'n', 'd'}) {
    Bench bench;
    bench.events(things(identity, false));
    CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a"), null()})).key.empty());
  }
}

TEST_CASE("a delete with the default identity holds the key only", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const RecordedEvent event = bench.event(bytes::remove(kThings, 'K', {text("1"), null(), null()}));
  CHECK(event.change().op() == Change::DELETE);
  CHECK(event.key == "1");
  CHECK(event.flags == EventFlags::kTombstone);
  CHECK(event.change().before_is_key());
  CHECK(bench.before(event) == Row{{"id", "1"}});
}

TEST_CASE("several key columns are joined so that no two keys are alike", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d', true, true));
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a,b"), null()})).key == "1,a\\,b");
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text("a\\"), null()})).key == "1,a\\\\");
  CHECK(bench.event(bytes::insert(kThings, {text("1"), text(""), null()})).key == "1,");
}

TEST_CASE("a key beyond what the store takes becomes its hash", "[capture][encoder]") {
  Bench bench;
  bench.events(things('f'));
  const auto key_of = [&](const std::string& note) {
    return bench.event(bytes::insert(kThings, {text("1"), text("a"), text(note)})).key;
  };
  const std::string longest(kKeyBytesMax - 4, 'x');
  CHECK(key_of(longest).size() == kKeyBytesMax);
  const std::string folded = key_of(longest + "y");
  CHECK(folded.size() == 34);
  CHECK(folded.starts_with("\\#"));
  CHECK(key_of(longest + "y") == folded);
  CHECK(key_of(longest + "z") != folded);
}

TEST_CASE("a truncate is one category tombstone for each table", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  bench.events(bytes::relation(5, "shop", "orders", 'd', {{"id", 23, true}}));
  const auto events = bench.events(bytes::truncate({kThings, 5}));
  REQUIRE(events.size() == 2);
  CHECK(events[0].category == "public.things");
  CHECK(events[1].category == "shop.orders");
  for (const RecordedEvent& event : events) {
    CHECK(event.change().op() == Change::TRUNCATE);
    CHECK(event.change().schema() == 1);
    CHECK(event.key.empty());
    CHECK(event.flags == EventFlags::kCategoryTombstone);
  }
}

TEST_CASE("a logical message is an event of its own category", "[capture][encoder]") {
  Bench bench;
  const RecordedEvent event =
      bench.event(bytes::logical(true, kLsn, "note", std::string("\0bytes", 6)));
  CHECK(event.category == kMessagesCategory);
  CHECK(event.key == "note");
  CHECK(event.flags == EventFlags::kNone);
  CHECK(event.change().op() == Change::MESSAGE);
  CHECK(event.change().prefix() == "note");
  CHECK(event.change().content() == std::string("\0bytes", 6));
}

TEST_CASE("B18: a shape that is told again and again is the same version", "[capture][encoder]") {
  Bench bench;
  for (int i = 0; i < 1000; ++i) bench.events(things('d'));
  CHECK(bench.schema().version == 1);
  CHECK(bench.registry->all()->size() == 1);
}

TEST_CASE("a column that is added or dropped makes a new version, and events say which",
          "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  bench.events(bytes::insert(kThings, {text("1"), text("a"), null()}));
  bench.events(
      bytes::relation(kThings, "public", "things", 'd', {{"id", 23, true}, {"extra", 25}}));
  const RecordedEvent event = bench.event(bytes::insert(kThings, {text("2"), text("more")}));
  CHECK(event.change().schema() == 2);
  CHECK(bench.after(event) == Row{{"id", "2"}, {"extra", "more"}});
  const auto old = bench.registry->find("public.things", 1);
  REQUIRE(old);
  CHECK(bench.schema().column("extra")->field > (*old)->column("note")->field);  // never reused
  CHECK(bench.schema().column("id")->field == (*old)->column("id")->field);
}

TEST_CASE("B15: a table without columns is fine, one with two of a name is not",
          "[capture][encoder]") {
  Bench bench;
  bench.events(bytes::relation(kThings, "public", "empty", 'd', {}));
  CHECK(bench.event(bytes::insert(kThings, {})).change().after().empty());
  const Error error = bench.error(bytes::relation(9, "public", "twins", 'd', {{"a"}, {"a"}}));
  CHECK(error.code() == ErrorCode::kCorruption);
  CHECK(error.message() == "learn the columns of table public.twins: two columns named a");
}

TEST_CASE("B4: a row whose width is not its table's is refused", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  for (const std::string& message :
       {bytes::insert(kThings, {text("1"), null()}),
        bytes::insert(kThings, {text("1"), null(), null(), null()}), bytes::insert(kThings, {}),
        bytes::update(kThings, {text("1")}),
        bytes::update(kThings, 'K', {text("1")}, {text("1"), null(), null()}),
        bytes::remove(kThings, 'K', {text("1")})})
    CHECK(bench.error(message).code() == ErrorCode::kCorruption);
  CHECK(bench.out.open_events().empty());
}

TEST_CASE("B6: a change of a table that was never told of is refused", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  for (const std::string& message : {bytes::insert(1, {text("1")}), bytes::update(1, {text("1")}),
                                     bytes::remove(1, 'K', {text("1")}), bytes::truncate({1})})
    CHECK(bench.error(message).code() == ErrorCode::kCorruption);
  bench.encoder.reset();  // a new connection tells of every table again
  CHECK(bench.encoder.schema_of(kThings) == nullptr);
  CHECK(bench.error(bytes::insert(kThings, {text("1"), null(), null()})).code() ==
        ErrorCode::kCorruption);
}

const std::string kSeven("\0\0\0\7", 4), kEight("\0\0\0\10", 4);

TEST_CASE("B11: a change in binary makes the same events as one in text, keys too",
          "[capture][encoder][binary]") {
  const auto both = [](const std::string& shape, const std::string& in_text,
                       const std::string& in_binary) {
    Bench of_text, of_binary;
    of_text.events(shape);
    of_binary.events(shape);
    const auto expected = of_text.events(in_text), found = of_binary.events(in_binary);
    REQUIRE(expected.size() == found.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CHECK(expected[i].key == found[i].key);
      CHECK(expected[i].payload == found[i].payload);
      CHECK(expected[i].flags == found[i].flags);
    }
  };
  both(things('d'), bytes::insert(kThings, {text("7"), text("a"), null()}),
       bytes::insert(kThings, {binary(kSeven), binary("a"), null()}));
  both(things('d'), bytes::remove(kThings, 'K', {text("7"), null(), null()}),
       bytes::remove(kThings, 'K', {binary(kSeven), null(), null()}));
  both(
      things('d'),
      bytes::update(kThings, 'K', {text("7"), null(), null()}, {text("8"), text("a"), unchanged()}),
      bytes::update(kThings, 'K', {binary(kSeven), null(), null()},
                    {binary(kEight), binary("a"), unchanged()}));
  both(things('f'),
       bytes::update(kThings, 'O', {text("7"), text("a,\\"), text("n")},
                     {text("7"), text("a,\\"), unchanged()}),
       bytes::update(kThings, 'O', {binary(kSeven), binary("a,\\"), binary("n")},
                     {binary(kSeven), binary("a,\\"), unchanged()}));
}

TEST_CASE(
    "B11: a value in binary whose type has no exact decoder is refused, naming table and column",
    "[capture][encoder][binary]") {
  Bench bench;
  bench.events(bytes::relation(kThings, "public", "things", 'd', {{"id", 23, true}, {"ip", 869}}));
  CHECK(bench.event(bytes::insert(kThings, {binary(kSeven), text("::1")})).key == "7");
  const Error error = bench.error(bytes::insert(kThings, {binary(kSeven), binary("\2\x20")}));
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(error.message() ==
        "column ip of table public.things came in binary, and its type oid 869 is kept as "
        "PostgreSQL's text");
  CHECK(bench.error(bytes::insert(kThings, {binary("abc"), null()})).code() ==
        ErrorCode::kCorruption);
  CHECK(bench.error(bytes::remove(kThings, 'K', {binary("abc"), null()})).code() ==
        ErrorCode::kCorruption);
}

TEST_CASE("a value that is none of its column's type is refused", "[capture][encoder]") {
  Bench bench;
  bench.events(things('d'));
  const Error error = bench.error(bytes::insert(kThings, {text("1x"), null(), null()}));
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(error.message().find("public.things") != std::string::npos);
  CHECK(error.message().find("id") != std::string::npos);
}

TEST_CASE("errors of catalog and store come through", "[capture][encoder]") {
  Bench bench;
  bench.catalog.failure = Error(ErrorCode::kUnavailable, "connection lost");
  CHECK(bench.error(things('d')).code() == ErrorCode::kUnavailable);
  CHECK(bench.encoder.schema_of(kThings) == nullptr);
  bench.catalog.failure.reset();
  bench.events(things('d'));
  bench.out.failure = Error(ErrorCode::kNoSpace, "the disk is full");
  CHECK(bench.error(bytes::insert(kThings, {text("1"), null(), null()})).code() ==
        ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace millrace
