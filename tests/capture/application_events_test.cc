#include "capture/pipeline/application_events.h"

#include <memory>

#include "base/bytes.h"
#include "capture/pgoutput/decoder.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/outbox.h"
#include "capture/pipeline/stream_applier.h"
#include "capture/table_patterns.h"
#include "eventstore/event_metadata.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"
#include "tests/support/frozen_clock.h"
#include "tests/support/log_lines.h"
#include "tests/support/pgoutput_bytes.h"

namespace millrace {
namespace {

namespace bytes = test::bytes;
using bytes::null;
using bytes::text;
using v1::Change;

constexpr std::uint32_t kOutbox = 16500;

/// Keeps all of a domain event, unlike MemoryOut.
struct DomainEvents final : EventOut {
  struct Event {
    std::string stream, type, payload, id;
    bool versioned = false;
    bool operator==(const Event&) const = default;
  };
  Result<void> begin(const TransactionInfo&) override { return {}; }
  Result<void> add(const NewEvent& event) override {
    const auto metadata = decode_metadata(event.metadata);
    events.push_back({.stream = std::string(event.category) + "/" + std::string(event.key),
                      .type = std::string(event.type),
                      .payload = std::string(event.payload),
                      .id = std::string(metadata->event_id),
                      .versioned = event.versioned});
    return {};
  }
  Result<void> commit(std::uint64_t) override { return {}; }
  Result<void> rollback() override { return {}; }

  std::vector<Event> events;
};

struct Bench {
  test::FakeCatalog catalog;
  std::unique_ptr<SchemaRegistry> registry = SchemaRegistry::in_memory();
  DomainEvents out;
  ChangeEncoder encoder{*registry, catalog, out};
  pgoutput::Decoder decoder;

  Bench() {
    encoder.use_outbox({"app.outbox"});
    feed(bytes::relation(1, "public", "orders", 'd', {{"id", 23, true}}));
  }
  void feed(const std::string& message) {
    const auto decoded = decoder.decode(message);
    if (!decoded) FAIL(decoded.error().to_string());
    const auto fed = [&]() -> Result<void> {
      switch (message[0]) {
        case 'R': return encoder.relation(*std::get<const pgoutput::Relation*>(*decoded), Lsn{8});
        case 'I': return encoder.insert(*std::get<const pgoutput::Insert*>(*decoded), Lsn{8});
        default:
          return encoder.message(*std::get<const pgoutput::LogicalMessage*>(*decoded), Lsn{8});
      }
    }();
    if (!fed) FAIL(fed.error().to_string());
  }
  DomainEvents::Event event(const std::string& message) {
    out.events.clear();
    feed(message);
    REQUIRE(out.events.size() == 1);
    return out.events[0];
  }
  DomainEvents::Event message(const std::string& prefix, const std::string& content = "x") {
    return event(bytes::logical(true, Lsn{8}, prefix, content));
  }
  void usual_outbox(std::uint32_t payload_type = 25) {
    feed(bytes::relation(kOutbox, "app", "outbox", 'd',
                         {{"id", 20, true},
                          {"aggregatetype", 25, false},
                          {"aggregateid", 25, false},
                          {"made_by", 25, false},
                          {"type", 1043, false},
                          {"payload", payload_type, false}}));
  }
};

Change change_of(const DomainEvents::Event& event) {
  Change change;
  REQUIRE(change.ParseFromString(event.payload));
  return change;
}

TEST_CASE("a message's prefix names type, category and key", "[capture][application]") {
  const auto parsed = [](std::string_view prefix) -> std::string {
    const auto address = parse_event_prefix(prefix);
    if (!address) return address.error().message();
    return std::string(address->type) + "|" + std::string(address->category) + "|" +
           std::string(address->key);
  };
  CHECK(parsed("millrace:cart/9f3a") == "message|cart|9f3a");
  CHECK(parsed("millrace:ItemAdded@cart/9f3a") == "ItemAdded|cart|9f3a");
  CHECK(parsed("millrace:A@b@c/d@e/f#g") == "A|b@c|d@e/f#g");  // a key is any bytes
  CHECK(parsed("millrace:cart/") == "message|cart|");
  CHECK(parsed("millrace:@cart/1") == "|cart|1");
  CHECK(parsed("millrace:cart") == "a stream is category/key: there is no '/'");
  CHECK(parsed("millrace:") == "a stream is category/key: there is no '/'");
}

TEST_CASE("a message to a stream is a domain event of it, byte for byte",
          "[capture][application]") {
  Bench bench;
  const std::string bytes("\0\xff not text", 11);
  CHECK(bench.message("millrace:Scanned@cart/a/b", bytes) ==
        DomainEvents::Event{"cart/a/b", "Scanned", bytes, "", true});
  CHECK(bench.message("millrace:cart/9", "") ==
        DomainEvents::Event{"cart/9", "message", "", "", true});
  const std::string longest(kCategoryBytesMax, 'c');
  CHECK(bench.message("millrace:T@" + longest + "/k").stream == longest + "/k");
}

TEST_CASE("a message that can be no domain event is kept as it is", "[capture][application]") {
  Bench bench;
  for (const std::string& prefix :
       {std::string("millrace:"), std::string("millrace:cart"), std::string("millrace:/9"),
        std::string("millrace:@cart/9"), std::string("millrace:$capture/9"),
        std::string("millrace:Changed@public.orders/9"),
        "millrace:" + std::string(kCategoryBytesMax + 1, 'c') + "/9",
        "millrace:" + std::string(kCategoryBytesMax + 1, 't') + "@cart/9"}) {
    CAPTURE(prefix.substr(0, 50));
    const auto event = bench.message(prefix, "content");
    CHECK(event.stream == "$messages/" + prefix);
    CHECK(event.type.empty());
    CHECK_FALSE(event.versioned);
    CHECK(change_of(event).op() == Change::MESSAGE);
    CHECK(change_of(event).prefix() == prefix);
    CHECK(change_of(event).content() == "content");
  }
  // A key beyond the limit, too, though its own is then a hash.
  const std::string huge = "millrace:cart/" + std::string(kKeyBytesMax + 1, 'k');
  CHECK(change_of(bench.message(huge)).prefix() == huge);
  // Only what has the colon is addressed to a stream.
  CHECK(bench.message("millrace.cart/9").stream == "$messages/millrace.cart/9");
}

TEST_CASE("what is no domain event is warned of once a minute for as long as it comes",
          "[capture][application]") {
  const auto registry = SchemaRegistry::in_memory();
  test::FrozenClock clock;
  ApplicationEvents events(*registry, clock);
  const test::LogLines lines;
  const Error bad(ErrorCode::kInvalidArgument, "bad");
  const auto refuse = [&] { events.refuse("a message", bad); };
  for (int i = 0; i < 5; ++i) refuse();
  CHECK(lines.count("a message is no domain event: bad") == 1);
  clock.advance(std::chrono::milliseconds(59'999));
  refuse();
  CHECK(lines.count("is no domain event") == 1);
  clock.advance(std::chrono::milliseconds(1));
  refuse();
  CHECK(lines.count("7 so far, 5 of them untold since the last warning") == 1);
  refuse();
  clock.advance(std::chrono::hours(1));
  refuse();
  CHECK(lines.count("9 so far, 1 of them untold since the last warning") == 1);
  CHECK(lines.count("is no domain event") == 3);
}

TEST_CASE("a row of an outbox is a domain event, and no change of a table",
          "[capture][application]") {
  Bench bench;
  bench.usual_outbox();
  CHECK(bench.event(bytes::insert(kOutbox, {text("7"), text("cart"), text("9f/3a"), text("me"),
                                            text("ItemAdded"), text("{\"n\": 1}")})) ==
        DomainEvents::Event{"cart/9f/3a", "ItemAdded", "{\"n\": 1}", "7", true});
  CHECK(bench.event(bytes::insert(
            kOutbox, {null(), text("cart"), text(""), null(), text("Closed"), null()})) ==
        DomainEvents::Event{"cart/", "Closed", "", "", true});
  CHECK_FALSE(bench.registry->latest("app.outbox"));
  const std::uint32_t outbox[] = {kOutbox}, orders[] = {1}, both[] = {kOutbox, 1};
  CHECK(bench.encoder.passes_over(outbox));
  CHECK_FALSE(bench.encoder.passes_over(orders));
  CHECK_FALSE(bench.encoder.passes_over(both));

  bench.usual_outbox(17);
  CHECK(bench
            .event(bytes::insert(kOutbox, {text("8"), text("cart"), text("1"), null(),
                                           text("Scanned"), text("\\x00ff41")}))
            .payload == std::string("\0\xff"
                                    "A",
                                    3));
}

TEST_CASE("F91: emptying an outbox is no change that the log lacks when it is sent again",
          "[capture][application][history]") {
  Bench bench;
  // The log has read to 0x300 and found its last event at 0x100.
  const HistoryCheck history(SourceCommit{.lsn = Lsn{0x100}, .xid = 7, .time = {}});
  StreamApplier applier(bench.encoder, bench.out, 1, Lsn{0x300}, nullptr, history);
  bench.encoder.reset();  // a new process
  const auto apply = [&](const std::string& message) { return applier.apply(message, Lsn{0x10}); };
  REQUIRE(apply(bytes::begin(Lsn{0x200}, 8)));
  REQUIRE(apply(bytes::relation(kOutbox, "app", "outbox", 'd', {{"id", 20, true}})));
  CHECK(apply(bytes::remove(kOutbox, 'K', {text("1")})));
  CHECK(apply(bytes::truncate({kOutbox})));
  REQUIRE(apply(bytes::commit(Lsn{0x200}, Lsn{0x208})));
  REQUIRE(apply(bytes::begin(Lsn{0x210}, 9)));
  REQUIRE(apply(bytes::relation(1, "public", "orders", 'd', {{"id", 23, true}})));
  const auto other = apply(bytes::remove(1, 'K', {text("1")}));
  REQUIRE_FALSE(other);
  CHECK(other.error().message().starts_with("SOURCE_REWOUND"));
}

TEST_CASE("a row of an outbox that can be no event is kept, whole", "[capture][application]") {
  Bench bench;
  bench.usual_outbox(17);
  const auto refused = [&](const std::string& message) {
    const auto event = bench.event(message);
    CHECK(event.stream == "$messages/outbox:app.outbox");
    CHECK(event.type.empty());
    return change_of(event).content();
  };
  CHECK(
      refused(bytes::insert(
          kOutbox, {text("7"), null(), text("9"), text("me"), text("T"), text("\\xff")})) ==
      R"({"id":"7","aggregatetype":null,"aggregateid":"9","made_by":"me","type":"T","payload_hex":"ff"})");
  CHECK(
      refused(bytes::insert(kOutbox, {text("7"), text("public.orders"), text("9"), null(),
                                      text("T"), text("\\x41")})) ==
      R"({"id":"7","aggregatetype":"public.orders","aggregateid":"9","made_by":null,"type":"T","payload":"A"})");
  CHECK(
      refused(
          bytes::insert(kOutbox, {text("7"), text("a/b"), text("9"), null(), text("T"), null()})) ==
      R"({"id":"7","aggregatetype":"a/b","aggregateid":"9","made_by":null,"type":"T","payload":null})");
  // A column that was dropped while capture ran.
  bench.feed(
      bytes::relation(kOutbox, "app", "outbox", 'd',
                      {{"id", 20, true}, {"aggregatetype", 25, false}, {"type", 25, false}}));
  CHECK(refused(bytes::insert(kOutbox, {text("7"), text("cart"), text("T")})) ==
        R"({"id":"7","aggregatetype":"cart","type":"T"})");
  // The payload has another name now: without it the event would be an empty one.
  bench.feed(bytes::relation(kOutbox, "app", "outbox", 'd',
                             {{"id", 20, true},
                              {"aggregatetype", 25, false},
                              {"aggregateid", 25, false},
                              {"type", 25, false},
                              {"body", 25, false}}));
  CHECK(refused(bytes::insert(
            kOutbox, {text("7"), text("cart"), text("9"), text("T"), text("important")})) ==
        R"({"id":"7","aggregatetype":"cart","aggregateid":"9","type":"T","body":"important"})");
}

TEST_CASE("an outbox without its columns, or of impossible types, is found out",
          "[capture][application]") {
  const auto column = [](const char* name, ValueKind kind, const char* type, bool array = false) {
    return ColumnSchema{.name = name, .kind = kind, .array = array, .type_name = type};
  };
  std::vector<ColumnSchema> columns{column("id", ValueKind::kUuid, "uuid"),
                                    column("aggregatetype", ValueKind::kEnum, "kind"),
                                    column("aggregateid", ValueKind::kInt64, "bigint"),
                                    column("type", ValueKind::kText, "text"),
                                    column("payload", ValueKind::kJson, "jsonb"),
                                    column("at", ValueKind::kTimestampTz, "timestamptz")};
  CHECK(outbox_faults(columns).empty());
  columns[3] = column("type", ValueKind::kInt32, "integer");
  columns[4] = column("payload", ValueKind::kBytes, "bytea[]", true);
  columns.erase(columns.begin());
  CHECK(outbox_faults(columns) ==
        std::vector<std::string>{
            "column id is missing.",
            "column type is of type integer, not text, varchar or an enum.",
            "column payload is of type bytea[], not json, jsonb, text or bytea."});
}

TEST_CASE("names of tables are taken one by one, without patterns", "[capture][application]") {
  const auto names = parse_table_names({"b.outbox, a.outbox", "b.outbox"});
  REQUIRE(names);
  CHECK(*names == std::vector<std::string>{"a.outbox", "b.outbox"});
  CHECK(parse_table_names({})->empty());
  for (const char* text : {"outbox", "public.*", "!public.outbox", "public.outbox,", ""})
    CHECK_FALSE(parse_table_names({text}));
}

}  // namespace
}  // namespace millrace
