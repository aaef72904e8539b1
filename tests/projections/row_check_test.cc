#include "projections/engine/row_check.h"

#include "projections/engine/build.h"
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

TEST_CASE("a shape that changes under a program stops it where it can't read on",
          "[projections][rows]") {
  ShopStore store;
  auto changed = products_table();
  changed.columns[5].kind = ValueKind::kText;
  store.commit({inserted(product(1, "kettle"))});
  store.record(changed);
  auto event = inserted(product(2, "pan"));
  v1::Change change;
  change.ParseFromString(event.payload);
  change.set_schema(2);
  event.payload = change.SerializeAsString();
  store.commit({event});
  const auto refused = build_generation(product_cache(), store.context());
  REQUIRE(refused);  // the program starts with version 2 as the latest; App checks that before it
                     // builds
  const auto view = product_cache();
  CHECK_THAT(check_source(view, view.sources()[0], *store.context().schemas).error().message(),
             Catch::Contains("another shape of public.products") && Catch::Contains("version 2"));
}
