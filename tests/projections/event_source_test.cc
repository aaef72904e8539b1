#include "examples/cart/cart.h"
#include "projections/engine/build.h"
#include "projections/engine/retry.h"
#include "projections/engine/row_check.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "projections/testing.h"
#include "tests/projections/shop_store.h"
#include "tests/support/log_lines.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using projections::testing::appended;
using projections::testing::erased;
using projections::testing::first_difference;
using projections::testing::messaged;
using projections::testing::Transaction;
using projections::testing::ViewTester;
using shop::Customers;
using shop::Products;

namespace {

using Rows = std::vector<std::string>;

void follow(ShopStore& store, const View& view) {
  must(view.check());
  const Context context = store.context();
  must(Worker(view, context, {.until_caught_up = true}).run());
}

std::string failure_of(ShopStore& store, const View& view) {
  const Context context = store.context();
  const auto run = Worker(view, context, {.until_caught_up = true}).run();
  return run ? std::string() : run.error().to_string();
}

Rows shown(const ShopStore& store, const View& view) {
  return query(store.views() / (view.name() + ".db"),
               "SELECT * FROM " + view.name() + " ORDER BY 1");
}

void check_rebuilt_alike(ShopStore& store, const View& view) {
  const Rows followed = shown(store, view);
  CHECK(must(verify_view(view, store.context())).different == 0);
  must(build_generation(view, store.context()));
  CHECK(shown(store, view) == followed);
}

/// What is in carts, by a function of events.
CacheTable cart_totals() {
  return CacheTable("cart_totals", Version{1},
                    {.key = text("cart"), .columns = {counter("cents"), integer("last")}})
      .on_event<Cart>([](const Event<Cart::Event>& event, CacheTable::Writer& totals) {
        if (event.is_erased()) return totals.erase(event.key());
        event.match(
            [&](const Cart::ItemAdded& added) {
              totals.add(event.key(), {{"cents", added.count * added.unit_price_cents}});
            },
            [](const Cart::ItemRemoved&) {},
            [&](const Cart::CheckedOut& out) {
              totals.put(event.key(), {{"cents", out.total_cents}});
            });
        totals.put(event.key(), {{"last", static_cast<std::int64_t>(*event.version())}});
      });
}

/// How many of each article were put into carts.
RelationalView popular() {
  return projections::view("popular", Version{1})
      .from(events("cart"))
      .where([](const Event<>& event) { return event.type() == "ItemAdded"; })
      .group_by(member("sku"))
      .aggregate(count("times"), sum("pieces", member("count")))
      .into(cache_table{.key = text("sku")});
}

void append(ShopStore& store, const std::string& cart, const Cart::Event& event) {
  const EncodedEvent encoded = Cart::encode(event);
  store.append("cart", cart, encoded.type, encoded.payload);
}

}  // namespace

TEST_CASE("an aggregate's events make a view by a function of them", "[projections][events]") {
  ShopStore store;
  append(store, "a", Cart::ItemAdded{"pot", 2, 250});
  store.commit({inserted(product(1, "kettle"))});
  append(store, "b", Cart::ItemAdded{"pan", 1, 100});
  append(store, "a", Cart::ItemAdded{"pan", 1, 100});
  follow(store, cart_totals());
  CHECK(shown(store, cart_totals()) == Rows{"a|600|1", "b|100|0"});
  append(store, "b", Cart::CheckedOut{99});
  store.append("wishlist", "a", "ItemAdded", "no cart");
  follow(store, cart_totals());
  CHECK(shown(store, cart_totals()) == Rows{"a|600|1", "b|99|1"});
  check_rebuilt_alike(store, cart_totals());
}

TEST_CASE("events are a relation like a table's rows", "[projections][events]") {
  ShopStore store;
  append(store, "a", Cart::ItemAdded{"pot", 2, 250});
  append(store, "b", Cart::ItemAdded{"pan", 1, 100});
  follow(store, popular());
  append(store, "b", Cart::ItemAdded{"pot", 3, 250});
  append(store, "b", Cart::ItemRemoved{"pot", 1});
  follow(store, popular());
  CHECK(shown(store, popular()) == Rows{"pan|1|1", "pot|2|5"});
  check_rebuilt_alike(store, popular());
}

TEST_CASE("a stream that is erased takes back what its events had put in",
          "[projections][events][erase]") {
  ShopStore store;
  const auto lines = projections::view("lines", Version{1})
                         .from(events<Cart>())
                         .into(cache_table{.columns = {text("key"), integer("version")}});
  append(store, "a", Cart::ItemAdded{"pot", 2, 250});
  append(store, "b", Cart::ItemAdded{"pan", 1, 100});
  append(store, "a", Cart::ItemAdded{"pot", 1, 250});
  follow(store, lines);
  follow(store, popular());
  follow(store, cart_totals());
  CHECK(shown(store, lines) == Rows{"0|a|0", "1|b|0", "2|a|1"});
  store.erase("cart", "a");
  append(store, "c", Cart::ItemAdded{"pot", 1, 250});
  follow(store, lines);
  follow(store, popular());
  follow(store, cart_totals());
  CHECK(shown(store, popular()) == Rows{"pan|1|1", "pot|1|1"});
  CHECK(shown(store, cart_totals()) == Rows{"b|100|0", "c|250|0"});
  CHECK(shown(store, lines) == Rows{"1|b|0", "4|c|0"});
  check_rebuilt_alike(store, lines);
  check_rebuilt_alike(store, popular());
  check_rebuilt_alike(store, cart_totals());
}

TEST_CASE("what comes after an erasure stays, whether it was folded with it or not",
          "[projections][events][erase]") {
  const std::vector<Transaction> all{
      {appended("cart", "a", "ItemAdded", R"({"sku":"pot","count":1})"),
       appended("cart", "b", "ItemAdded", R"({"sku":"pot","count":10})")},
      {appended("cart", "a", "ItemAdded", R"({"sku":"pot","count":100})"), erased("cart", "a"),
       appended("cart", "a", "ItemAdded", R"({"sku":"pot","count":1000})")},
      {appended("cart", "b", "ItemAdded", R"({"sku":"pan","count":1})")}};
  const RelationalView view = popular();
  ViewTester tester(view);
  for (const Transaction& transaction : all) tester.given(transaction);
  CHECK(tester.rows() == Rows{"pan|1|1", "pot|2|1010"});
  for (std::uint64_t seed = 1; seed < 10; ++seed)
    CHECK(first_difference(view, all, seed) == std::nullopt);
}

TEST_CASE("members of JSON are text, numbers as they stand there, or null",
          "[projections][events][json]") {
  const auto view =
      projections::view("members", Version{1})
          .from(events("reading"))
          .into(cache_table{.columns = {blob("v"), text("kind")}}, [](const Event<>& event) {
            const Value value = event[event.type()];
            const bool is_text = value.kind() == Value::Kind::kText;
            return Record{{"v", value}, {"kind", is_text ? "text" : "other"}};
          });
  const std::string json =
      R"({"n":42,"price":19.90,"tiny":1e-3,"big":18446744073709551615,"t":"a\"b","no":null,"yes":true,)"
      R"("in":{"a/b":[7,{"c":"deep"}]},"n":43,"":"empty"})";
  ViewTester tester(view);
  for (const char* name :
       {"n", "price", "tiny", "big", "t", "no", "yes", "absent", "/in/a~1b/1/c", "/in/a~1b/0", ""})
    tester.given({appended("reading", "x", name, json)});
  CHECK(tester.rows() == Rows{"0|43|other", "1|19.90|text", "2|1e-3|text",
                              "3|18446744073709551615|text", "4|a\"b|text", "5|null|other",
                              "6|1|other", "7|null|other", "8|deep|text", "9|7|other",
                              "10|empty|text"});
  CHECK_THROWS_WITH(tester.given({appended("reading", "x", "in", json)}),
                    Catch::Contains("'in' is an object or a list"));
}

TEST_CASE("a payload that is nested as deep as can be harms nobody",
          "[projections][events][json]") {
  const auto view = projections::view("members", Version{1})
                        .from(events("reading"))
                        .into(cache_table{.columns = {integer("n")}}, [](const Event<>& event) {
                          return Record{{"n", event["n"]}};
                        });
  const std::string deep =
      R"({"d":)" + std::string(200'000, '[') + "1" + std::string(200'000, ']') + R"(,"n":7})";
  ViewTester tester(view);
  tester.given({appended("reading", "x", "Read", deep)});
  CHECK(tester.rows() == Rows{"0|7"});
}

TEST_CASE("an event that can't be decoded stops its view, or is set aside, and is named",
          "[projections][events]") {
  ShopStore store;
  append(store, "a", Cart::ItemAdded{"pot", 2, 250});
  store.append("cart", "bad", "Melted", "{}");
  const std::string by_function = failure_of(store, cart_totals().set_aside_at_most(0));
  CHECK_THAT(by_function, Catch::Contains("event at offset 1 of cart, key 'bad'") &&
                              Catch::Contains("'Melted'") &&
                              Catch::Contains("a cart has no event Melted"));
  const auto patient = cart_totals();
  follow(store, patient);
  const auto waiting = must(list_set_aside(patient, store.context()));
  REQUIRE(waiting.size() == 1);
  CHECK(waiting[0].offset == Offset{1});
  CHECK_THAT(waiting[0].reason.value_or(""), Catch::Contains("a cart has no event Melted"));
  const auto declared = projections::view("items", Version{1})
                            .from(events<Cart>())
                            .group_by(by("kind",
                                         [](const Event<Cart::Event>& event) {
                                           return static_cast<std::int64_t>(event->index());
                                         }))
                            .aggregate(count("n"))
                            .into(cache_table{})
                            .set_aside_at_most(0);
  CHECK_THAT(failure_of(store, declared), Catch::Contains("event at offset 1 of cart, key 'bad'") &&
                                              Catch::Contains("a cart has no event Melted"));
  ShopStore other;
  other.append("cart", "x", "ItemAdded", "{\"sku\":");
  CHECK_THAT(
      failure_of(other, popular().set_aside_at_most(0)),
      Catch::Contains("event at offset 0 of cart, key 'x'") && Catch::Contains("is no JSON"));
}

TEST_CASE("payloads that are Protobuf messages come by their types", "[projections][events]") {
  const auto decode = protobuf<Products, Customers, OtherEvent>();
  const auto view =
      projections::view("names", Version{1})
          .from(events("shop", decode))
          .into(cache_table{.columns = {text("name")}}, [](const auto& event) {
            return Record{
                {"name", event.match([](const OtherEvent&) -> std::string { return "other"; },
                                     [](const auto& m) -> std::string { return m.name(); })}};
          });
  ViewTester tester(view);
  tester.given({appended("shop", "1", "Products", product(1, "pot").SerializeAsString()),
                appended("shop", "1", "shop.Customers", customer(1, "Ada").SerializeAsString()),
                appended("shop", "1", "Melted", "")});
  CHECK(tester.rows() == Rows{"0|pot", "1|Ada", "2|other"});

  const auto strict =
      projections::view("names", Version{1})
          .from(events("shop", protobuf<Products>()))
          .into(cache_table{.columns = {text("name")}}, [](const Event<Products>& event) {
            return Record{{"name", event->name()}};
          });
  ViewTester one(strict);
  CHECK_THROWS_WITH(one.given({appended("shop", "1", "Melted", "")}),
                    Catch::Contains("'Melted'") && Catch::Contains("none that the view names"));
  ViewTester damaged(strict);
  CHECK_THROWS_WITH(damaged.given({appended("shop", "1", "Products", "\xff")}),
                    Catch::Contains("it is no message shop.Products"));
}

TEST_CASE("a function of events may be given them decoded, by whatever decodes them",
          "[projections][events]") {
  CacheTable names("names", Version{1}, {.key = text("key"), .columns = {text("name")}});
  names.on_event("shop", protobuf<Products>(),
                 [](const Event<Products>& event, CacheTable::Writer& writer) -> Result<void> {
                   if (event->name().empty())
                     return Error(ErrorCode::kFailedPrecondition, "it has no name");
                   writer.put(event.key(), {{"name", event->name()}});
                   return {};
                 });
  names.on_event(
      "lengths", [](std::string_view, std::string_view payload) { return payload.size(); },
      [](const Event<std::size_t>& event, CacheTable::Writer& writer) {
        writer.put(event.key(), {{"name", std::to_string(*event)}});
      });
  ViewTester tester(names);
  tester.given({appended("shop", "1", "Products", product(1, "pot").SerializeAsString()),
                appended("lengths", "2", "Any", "four")});
  CHECK(tester.rows() == Rows{"1|pot", "2|4"});
  CHECK_THROWS_WITH(
      tester.given({appended("shop", "1", "Products", product(1, "").SerializeAsString())}),
      Catch::Contains("it has no name"));
  CHECK_FALSE(CacheTable("twice", Version{1}, {.key = text("key"), .columns = {text("n")}})
                  .on_event("cart", [](const Event<>&, CacheTable::Writer&) {})
                  .on_event("cart", [](const Event<>&, CacheTable::Writer&) {})
                  .check());
}

TEST_CASE("a view of events alone begins with an empty store", "[projections][events]") {
  ShopStore store(false);
  follow(store, popular());
  CHECK(shown(store, popular()).empty());
  append(store, "a", Cart::ItemAdded{"pot", 2, 250});
  follow(store, popular());
  CHECK(shown(store, popular()) == Rows{"pot|1|2"});
}

TEST_CASE("logical messages are a source, by both levels", "[projections][events][messages]") {
  ShopStore store;
  const auto table =
      CacheTable("audit", Version{1}, {.key = integer("offset"), .columns = {text("said")}})
          .on_message("audit", [](const Event<>& message, CacheTable::Writer& audit) {
            audit.put(static_cast<std::int64_t>(message.offset().value),
                      {{"said", message.data()}});
          });
  const auto declared = projections::view("by_prefix", Version{1})
                            .from(messages())
                            .group_by(by("prefix", &Event<>::key))
                            .aggregate(count("n"))
                            .into(cache_table{});
  const auto of_one = projections::view("of_one", Version{1})
                          .from(messages("audit"))
                          .into(cache_table{.columns = {text("type"), text("data")}});
  store.commit({message("audit", "first"), message("other", "x")});
  store.commit({inserted(product(1, "kettle")), message("audit", "second")});
  for (const View* view : {static_cast<const View*>(&table), static_cast<const View*>(&declared),
                           static_cast<const View*>(&of_one)})
    follow(store, *view);
  CHECK(shown(store, table) == Rows{"0|first", "3|second"});
  CHECK(shown(store, declared) == Rows{"audit|2", "other|1"});
  CHECK(shown(store, of_one) == Rows{"0|audit|first", "3|audit|second"});
  check_rebuilt_alike(store, declared);
}

TEST_CASE("an event brings what was said beside it", "[projections][events]") {
  ShopStore store;
  const std::string metadata =
      encode_metadata({.event_id = "5d1c", .correlation_id = "request 7", .time = UnixMicros{42}});
  const Offset at = store.append("cart", "a", "ItemAdded", "{}", metadata);
  const auto view =
      projections::view("metadata", Version{1})
          .from(events("cart"))
          .into(
              cache_table{.columns = {text("id"), text("request"), integer("time"), integer("at")}},
              [](const Event<>& event) {
                const EventMetadata said = event.metadata();
                return Record{{"id", said.event_id},
                              {"request", said.correlation_id},
                              {"time", said.time->value},
                              {"at", event.time().value > 0}};
              });
  follow(store, view);
  CHECK(shown(store, view) == Rows{std::to_string(at.value) + "|5d1c|request 7|42|1"});
}

TEST_CASE("events are enriched by a table's present rows, whichever comes first",
          "[projections][events][join]") {
  const auto customers = projections::table<Customers>("public.customers");
  const auto enriched = events("visit").left_join(
      customers, member("customer"), [](const Event<>& visit, const TableRow<Customers>* c) {
        return Record{{"page", visit["page"]},
                      {"name", c ? Datum((*c)[&Customers::name]) : Datum()}};
      });
  const auto lines = projections::view("visits", Version{1})
                         .from(enriched)
                         .into(cache_table{.columns = {text("page"), text("name")}});
  const auto by_name =
      projections::view("by_name", Version{1})
          .from(events("visit").join(customers, member("customer"),
                                     [](const Event<>&, const TableRow<Customers>* c) {
                                       return Record{{"name", (*c)[&Customers::name]}};
                                     }))
          .group_by(by("name", [](const Record& r) { return r["name"]; }))
          .aggregate(count("n"))
          .into(cache_table{.key = text("name")});
  using projections::testing::deleted;
  using projections::testing::updated;
  const std::vector<Transaction> all{
      {appended("visit", "s1", "Seen", R"({"customer":7,"page":"/a"})")},
      {projections::testing::inserted("public.customers", "7", customer(7, "Ada")),
       appended("visit", "s1", "Seen", R"({"customer":7,"page":"/b"})"),
       appended("visit", "s2", "Seen", R"({"customer":8,"page":"/a"})"),
       appended("visit", "s3", "Seen", R"({"page":"/c"})")},
      {updated("public.customers", "7", customer(7, "Ann")),
       projections::testing::inserted("public.customers", "8", customer(8, "Bob"))},
      {deleted("public.customers", "8"), erased("visit", "s3")}};
  ViewTester tester(lines), grouped(by_name);
  for (const Transaction& transaction : all) tester.given(transaction), grouped.given(transaction);
  CHECK(tester.rows() == Rows{"0|/a|Ann", "2|/b|Ann", "3|/a|null"});
  CHECK(grouped.rows() == Rows{"Ann|2"});
  for (std::uint64_t seed = 1; seed < 10; ++seed) {
    CHECK(first_difference(lines, all, seed) == std::nullopt);
    CHECK(first_difference(by_name, all, seed) == std::nullopt);
  }
}

TEST_CASE("what a source of events can't be is said when it is declared or started",
          "[projections][events]") {
  const auto problem = [](const View& view) {
    const auto checked = view.check();
    return checked ? std::string() : checked.error().to_string();
  };
  CHECK_THAT(problem(projections::view("v", Version{1})
                         .from(events("cart"))
                         .into(cache_table{.columns = {text("sku")}})),
             Catch::Contains("'sku' is none of an event"));
  CHECK_THAT(problem(projections::view("v", Version{1})
                         .from(projections::table<Products>("public.products")
                                   .join(events("cart"), &Products::id,
                                         [](const auto&, const auto*) {
                                           return Record{{"n", 1}};
                                         }))
                         .into(cache_table{.key = integer("id"), .columns = {integer("n")}})),
             Catch::Contains("no key of one value"));
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto of_table = projections::view("v", Version{1})
                            .from(events("public.products"))
                            .into(cache_table{.columns = {text("data")}});
  CHECK_THAT(failure_of(store, of_table), Catch::Contains("public.products is a captured table"));
  const auto of_erased =
      CacheTable("v", Version{1}, {.key = text("id"), .columns = {text("x")}})
          .on_event("cart", [](const Event<>& event, CacheTable::Writer& writer) {
            writer.put(event.key(), {{"x", event["x"]}});
          });
  ViewTester tester(of_erased);
  CHECK_THROWS_WITH(tester.given({erased("cart", "a")}), Catch::Contains("is_erased"));
}

TEST_CASE("a category that the store has never seen is warned of, and waited for",
          "[projections][events]") {
  ShopStore store;
  const auto view = projections::view("crates", Version{1})
                        .from(events("crat"))
                        .into(cache_table{.columns = {text("type")}});
  store.append("cart", "a", "ItemAdded", R"({"sku":"pot","count":1})");
  const auto warnings = [&](const View& of) {
    const millrace::test::LogLines lines;
    follow(store, of);
    return lines.count("view " + of.name() + ": the store has no event of category");
  };
  CHECK(warnings(view) == 1);
  CHECK(shown(store, view).empty());
  CHECK(warnings(popular()) == 0);
  store.append("crat", "a", "Made", "{}");
  CHECK(warnings(view) == 0);
  CHECK(shown(store, view) == Rows{"1|Made"});
}
