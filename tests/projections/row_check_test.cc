#include "projections/engine/row_check.h"

#include <utility>

#include "projections/engine/build.h"
#include "projections/engine/worker.h"
#include "projections/relational/row_layout.h"
#include "retyped.pb.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {

TableSchema numbered(TableSchema schema) {
  schema.version = 1;
  std::uint32_t field = 0;
  for (auto& column : schema.columns) column.field = ++field;
  return schema;
}

std::string mismatch_of(const TableSchema& schema) {
  const auto checked = check_row(*Products::descriptor(), schema);
  return checked ? "" : checked.error().to_string();
}

}  // namespace

TEST_CASE("the example's messages fit the schema that they were exported from",
          "[projections][rows]") {
  CHECK(mismatch_of(numbered(products_table())).empty());
  CHECK(check_row(*shop::Customers::descriptor(), numbered(customers_table())));
  CHECK(check_row(*shop::Orders::descriptor(), numbered(orders_table())));
}

TEST_CASE("a program built for another table shape is told the column", "[projections][rows]") {
  auto retyped = numbered(products_table());
  retyped.columns[5].kind = ValueKind::kText;
  CHECK_THAT(mismatch_of(retyped), Catch::Contains("field 6 'stock' (sint32)") &&
                                       Catch::Contains("column 'stock' is field 6 (string)") &&
                                       Catch::Contains("millrace schema export"));
  auto renumbered = numbered(products_table());
  renumbered.columns[5].field = 17;
  renumbered.columns[5].kind = ValueKind::kText;
  CHECK_THAT(mismatch_of(renumbered), Catch::Contains("column 'stock' is field 17 (string)"));
  auto narrower = numbered(products_table());
  narrower.columns.pop_back();
  CHECK_THAT(mismatch_of(narrower),
             Catch::Contains("field 8 'updated_at'") && Catch::Contains("no such column"));
}

TEST_CASE("a column that the program does not know, or that is gone, is no mismatch",
          "[projections][rows]") {
  auto wider = numbered(products_table());
  wider.columns.push_back(column("weight", ValueKind::kDouble));
  wider.columns.back().field = 9;
  CHECK(mismatch_of(wider).empty());
  auto dropped = numbered(products_table());
  dropped.retired.emplace_back(8, "updated_at");
  dropped.columns.pop_back();
  CHECK(mismatch_of(dropped).empty());
}

TEST_CASE("a table that the store does not have is named beside those that it has",
          "[projections][rows]") {
  ShopStore store;
  const auto view =
      CacheTable("things", Version{1}, {.key = integer("id")})
          .on<Products>("public.things", [](const Change<Products>&, CacheTable::Writer&) {});
  const auto missing = check_source(view, view.sources()[0], *store.context().schemas);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code() == ErrorCode::kNotFound);
  CHECK_THAT(
      missing.error().message(),
      Catch::Contains(
          "no table public.things; it has: public.customers, public.orders, public.products"));
}

TEST_CASE("a view that needs old rows asks for REPLICA IDENTITY FULL", "[projections][rows]") {
  ShopStore store(false);
  store.record(customers_table());
  store.record(orders_table(ReplicaIdentity::kDefault));
  const auto view = customer_totals();
  CHECK(check_source(view, view.sources()[0], *store.context().schemas));
  const auto refused = check_source(view, view.sources()[1], *store.context().schemas);
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().hint(),
             Catch::Contains("ALTER TABLE public.orders REPLICA IDENTITY FULL"));
}

TEST_CASE("a change without its old row stops a view that needs it", "[projections][rows]") {
  ShopStore store;
  const auto row = order(1, 7, 100);
  store.commit({inserted(customer(7, "Ada")), inserted(row), updated<shop::Orders>(row)});
  const auto refused = build_generation(customer_totals(), store.context());
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().message(), Catch::Contains("offset 2 of public.orders") &&
                                            Catch::Contains("without the old row"));
}

namespace {

/// products_table() with a column of another type, which takes another field.
TableSchema with_text_stock() {
  auto changed = products_table();
  changed.columns[5].kind = ValueKind::kText;
  return changed;
}

TableSchema with_weight() {
  auto wider = products_table();
  wider.columns.push_back(column("weight", ValueKind::kDouble));
  return wider;
}

EncodedChange of_schema(EncodedChange event, std::uint32_t version) {
  v1::Change change;
  change.ParseFromString(event.payload);
  change.set_schema(version);
  event.payload = change.SerializeAsString();
  return event;
}

}  // namespace

TEST_CASE("a shape that can't be read on stops the view before it, whenever it appears",
          "[projections][rows]") {
  ShopStore store;
  const auto view = product_cache();
  const Context context = store.context();
  const auto stops = [](const Result<void>& result) {
    REQUIRE_FALSE(result);
    CHECK(result.error().code() == ErrorCode::kFailedPrecondition);
    CHECK_THAT(result.error().to_string(), Catch::Contains("another shape of public.products") &&
                                               Catch::Contains("version 2") &&
                                               Catch::Contains("millrace schema export"));
  };
  const auto change_shape = [&] {
    store.record(with_text_stock());
    store.commit({of_schema(inserted(product(2, "pan")), 2)});
  };
  store.commit({inserted(product(1, "kettle"))});

  bool armed = false;
  const auto changing =
      CacheTable("changing", Version{1}, {.key = integer("id"), .columns = {text("name")}})
          .on<Products>("public.products",
                        [&](const Change<Products>& change, CacheTable::Writer& table) {
                          table.put(change.key(), {{"name", change[&Products::name]}});
                          if (std::exchange(armed, false)) change_shape();
                        });

  SECTION("while a view is folded in bulk") {
    armed = true;
    const auto built = build_generation(changing, context);
    REQUIRE_FALSE(built);
    stops(built.error());
    CHECK_THAT(built.error().message(), Catch::Contains("offset 1 of public.products"));
  }
  SECTION("while a worker follows the store") {
    must(Worker(changing, context, {.until_caught_up = true}).run());
    armed = true;
    store.commit({inserted(product(3, "pot"))});
    stops(Worker(changing, context, {.until_caught_up = true}).run());
    CHECK(rows_of(store, "changing") == std::vector<std::string>{"1|kettle"});
  }
  SECTION("before a worker opens the live generation") {
    must(Worker(view, context, {.until_caught_up = true}).run());
    change_shape();
    stops(Worker(view, context, {.until_caught_up = true}).run());
    CHECK(rows_of(store, "product_cache", "id") == std::vector<std::string>{"1"});
  }
  for (const std::string_view when : {"prepared", "created", "indexed", "folded"})
    SECTION("during a rebuild, when it has " + std::string(when)) {
      const auto built = build_generation(view, context, {.at_step = [&](std::string_view step) {
                                            if (step == when) change_shape();
                                          }});
      REQUIRE_FALSE(built);
      stops(built.error());
      CHECK_FALSE(must(context.generations(view).live()));
    }
}

TEST_CASE("a worker reads on where a column came that its program does not know",
          "[projections][rows]") {
  ShopStore store;
  bool changed = false;
  const auto view =
      CacheTable("widened", Version{1}, {.key = integer("id"), .columns = {text("name")}})
          .on<Products>("public.products", [&](const Change<Products>& change,
                                               CacheTable::Writer& table) {
            table.put(change.key(), {{"name", change[&Products::name]}});
            if (std::exchange(changed, true)) return;
            store.record(with_weight());
            store.commit({of_schema(inserted(product(2, "pan")), 2), inserted(product(3, "pot"))});
          });
  store.commit({inserted(product(1, "kettle"))});
  must(build_generation(view, store.context()));
  CHECK(rows_of(store, "widened") == std::vector<std::string>{"1|kettle", "2|pan", "3|pot"});
}

TEST_CASE("a column whose type was changed is null in events from before that",
          "[projections][rows]") {
  // A program that was built after `stock` of version 1, a text in field 3, had become a number.
  ShopStore store(false);
  const auto products = [](ValueKind stock) {
    return table("products", {column("id", ValueKind::kInt64, true),
                              column("name", ValueKind::kText), column("stock", stock)});
  };
  store.record(products(ValueKind::kText));
  store.record(products(ValueKind::kInt32));
  shop::Products text_stock = product(1, "kettle", "7");  // field 3 is a text here
  text_stock.clear_category();
  text_stock.clear_price();
  retyped::Products number_stock;
  number_stock.set_id(2);
  number_stock.set_name("pan");
  number_stock.set_stock(8);
  store.commit({inserted(text_stock), of_schema(inserted(number_stock), 2), inserted(text_stock)});
  const auto view = CacheTable("stocks", Version{1},
                               {.key = integer("id"), .columns = {text("name"), integer("stock")}})
                        .on<retyped::Products>(
                            "public.products",
                            [](const Change<retyped::Products>& row, CacheTable::Writer& table) {
                              table.put(row.key(), {{"name", row[&retyped::Products::name]},
                                                    {"stock", row[&retyped::Products::stock]}});
                            });
  must(build_generation(view, store.context()));
  CHECK(rows_of(store, "stocks") == std::vector<std::string>{"1|kettle|null", "2|pan|8"});
}

TEST_CASE("a layout tells which column is encoded otherwise", "[projections][rows]") {
  const std::string products = internal::layout_of(*shop::Products::descriptor()),
                    retyped = internal::layout_of(*retyped::Products::descriptor());
  CHECK(internal::column_that_differs(products, retyped) == "stock");
  CHECK(internal::column_that_differs(retyped, products) == "stock");
  CHECK(internal::column_that_differs(products, products).empty());
  const std::string fewer = products.substr(0, products.find("description"));
  CHECK(internal::column_that_differs(fewer, products).empty());
  CHECK(internal::column_that_differs(products, fewer).empty());
}

TEST_CASE("a declared view that keeps rows in another type of a column is refused until rebuilt",
          "[projections][rows]") {
  ShopStore store;
  const auto view = projections::view("stocks", Version{1})
                        .from(projections::table<shop::Products>("public.products"))
                        .group_by(&shop::Products::stock)
                        .aggregate(count("products"))
                        .into(cache_table{});
  shop::Products kettle = product(1, "kettle");
  kettle.set_stock(5);
  store.commit({inserted(kettle)});
  must(catch_up(store, view));
  // As a program before left it, for which the column was a text, in the field before.
  must(must(sqlite::Database::open(store.views() / "stocks.db", sqlite::Mode::kLive))
           ->execute("UPDATE stocks_state_keys SET value = CAST(replace(CAST(value AS TEXT), "
                     "'stock 6 sint32', 'stock 5 string') AS BLOB)"));
  kettle.set_stock(6);
  store.commit({updated(kettle)});
  const auto refused = catch_up(store, view);
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().to_string(),
             Catch::Contains("column stock of public.products has another type in the program") &&
                 Catch::Contains("capture resnapshot") && Catch::Contains("rebuild"));
  CHECK(query(store.views() / "stocks.db", "SELECT * FROM stocks") ==
        std::vector<std::string>{"5|1"});
  must(build_generation(view, store.context()));
  must(catch_up(store, view));
  CHECK(query(store.views() / "stocks.db", "SELECT * FROM stocks") ==
        std::vector<std::string>{"6|1"});
}

TEST_CASE("a view's column that is an array in its table is refused", "[projections][rows]") {
  const auto view = projections::view("tagged", Version{1})
                        .from(projections::table<shop::Products>("public.products"))
                        .into(cache_table{.key = integer("id"), .columns = {text("tags")}});
  const auto checked = view.check();
  REQUIRE_FALSE(checked);
  CHECK_THAT(checked.error().to_string(),
             Catch::Contains("'tags' is an array") && Catch::Contains("function"));
}
