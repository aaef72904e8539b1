#include "projections/engine/build.h"
#include "projections/engine/worker.h"
#include "projections/relational/relation.h"
#include "tests/projections/shop_store.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Customers;
using shop::Orders;
using shop::Products;

namespace {

const auto products = projections::table<Products>("public.products");
const auto customers = projections::table<Customers>("public.customers");
const auto orders = projections::table<Orders>("public.orders");

void build(ShopStore& store, const View& view) {
  must(view.check());
  must(build_generation(view, store.context()));
}

/// Folds what has come since, as `run --until-caught-up` does.
void follow(ShopStore& store, const View& view) {
  const Context context = store.context();
  must(Worker(view, context, {.until_caught_up = true}).run());
}

/// The same rows, made by following each transaction and by one rebuild of all of them.
class Both {
 public:
  explicit Both(RelationalView view) : view_(std::move(view)) {}

  void commit(const std::vector<EncodedChange>& changes) {
    store_.commit(changes);
    follow(store_, view_);
  }
  std::vector<std::string> rows(const std::string& order = "1") {
    const std::string sql = "SELECT * FROM " + view_.name() + " ORDER BY " + order;
    const auto followed = query(store_.views() / (view_.name() + ".db"), sql);
    build(store_, view_);
    CHECK(query(store_.views() / (view_.name() + ".db"), sql) == followed);
    return followed;
  }
  ShopStore& store() { return store_; }

 private:
  ShopStore store_;
  RelationalView view_;
};

using Rows = std::vector<std::string>;

template <typename R>
std::string problem_of(const R& relation) {
  const auto view = projections::view("v", Version{1})
                        .from(relation)
                        .into(cache_table{.key = text("id"), .columns = {integer("n")}});
  const auto checked = view.check();
  return checked ? std::string() : checked.error().to_string();
}

}  // namespace

TEST_CASE("a table's columns become a search index by their names", "[projections][relational]") {
  Both view(projections::view("product_search", Version{2})
                .from(products)
                .into(search_index{
                    .key = integer("id"), .text = {"name", "description"}, .stored = {"price"}}));
  view.commit({inserted(product(1, "copper kettle")), inserted(product(2, "steel pan"))});
  view.commit({updated<Products>(product(2, "iron pan")), deleted(product(1, ""))});
  CHECK(view.rows() == Rows{"2|iron pan|nice|19.90"});
}

TEST_CASE("a view's row is made by a function of the message", "[projections][relational]") {
  Both view(projections::view("named", Version{1})
                .from(products)
                .where([](const Products& p) { return p.name() != "hidden"; })
                .into(cache_table{.key = integer("id"), .columns = {text("title"), real("price")}},
                      [](const Products& p) {
                        return Record{{"title", p.name() + "!"},
                                      {"price", Decimal::parse(p.price())->real()}};
                      }));
  view.commit({inserted(product(1, "kettle")), inserted(product(2, "hidden"))});
  CHECK(view.rows("id") == Rows{"1|kettle!|"});
  view.commit({updated<Products>(product(1, "hidden")), updated<Products>(product(2, "pan"))});
  CHECK(view.rows("id") == Rows{"2|pan!|"});
}

TEST_CASE("what was not sent is known from before, also under another key",
          "[projections][relational]") {
  Both view(projections::view("texts", Version{1})
                .from(products)
                .into(cache_table{.key = integer("id"), .columns = {text("name"), text("text")}},
                      [](const Products& p) {
                        return Record{{"name", p.name()}, {"text", p.description()}};
                      }));
  auto row = product(1, "kettle", "a very long text");
  view.commit({inserted(row)});
  row.set_name("pot");
  view.commit({updated<Products>(row, nullptr, {3})});
  CHECK(view.rows() == Rows{"1|pot|a very long text"});
  row.set_id(2);
  view.commit({deleted(product(1, "")), moved(row, 1, {3})});
  CHECK(view.rows() == Rows{"2|pot|a very long text"});
  row.set_id(3);
  view.commit({inserted(product(1, "back", "short")), deleted(product(2, "")), moved(row, 2, {3})});
  CHECK(view.rows() == Rows{"1|back|short", "3|pot|a very long text"});
}

TEST_CASE("groups follow inserts, updates, deletes and a truncate, without old rows",
          "[projections][relational]") {
  Both view(projections::view("customer_totals", Version{1})
                .from(orders)
                .where([](const Orders& o) { return o.status() != "void"; })
                .group_by(&Orders::customer_id)
                .aggregate(count("orders"), sum("spent", &Orders::total_cents),
                           projections::min("least", &Orders::total_cents),
                           projections::max("most", &Orders::total_cents),
                           avg("mean", &Orders::total_cents),
                           distinct_count("amounts", &Orders::total_cents),
                           top("best", 2, &Orders::total_cents))
                .into(cache_table{}));
  view.commit({inserted(order(1, 7, 100)), inserted(order(2, 7, 50)), inserted(order(3, 8, 10))});
  CHECK(view.rows() == Rows{"7|2|150|50|100|75.0000000000000000|2|[100,50]",
                            "8|1|10|10|10|10.0000000000000000|1|[10]"});
  view.commit({inserted(order(4, 7, 50)), updated<Orders>(order(3, 7, 70))});
  CHECK(view.rows() == Rows{"7|4|270|50|100|67.5000000000000000|3|[100,70]"});
  view.commit({deleted(order(1, 0, 0)), deleted(order(2, 0, 0))});
  CHECK(view.rows() == Rows{"7|2|120|50|70|60.0000000000000000|2|[70,50]"});
  auto voided = order(4, 7, 50);
  voided.set_status("void");
  view.commit({updated<Orders>(voided)});
  CHECK(view.rows() == Rows{"7|1|70|70|70|70.0000000000000000|1|[70]"});
  view.commit({truncated("orders"), inserted(order(9, 1, 5))});
  CHECK(view.rows() == Rows{"1|1|5|5|5|5.0000000000000000|1|[5]"});
}

TEST_CASE("sums of a numeric column are exact", "[projections][relational]") {
  Both view(projections::view("by_category", Version{1})
                .from(products)
                .group_by(&Products::category)
                .aggregate(sum("worth", &Products::price),
                           projections::min("cheapest", decimal(&Products::price)),
                           avg("mean", &Products::price))
                .into(cache_table{}));
  auto first = product(1, "a"), second = product(2, "b"), third = product(3, "c");
  first.set_price("0.10");
  second.set_price("0.2");
  third.set_price("12345678901234567890.123");
  view.commit({inserted(first), inserted(second), inserted(third)});
  CHECK(view.rows() == Rows{"things|12345678901234567890.423|0.10|4115226300411522630.141"});
  view.commit({deleted(product(3, ""))});
  CHECK(view.rows("1").front().starts_with("things|0.30|0.10|"));
  second.set_price("NaN");
  view.commit({updated<Products>(second)});
  CHECK(view.rows() == Rows{"things|NaN|0.10|NaN"});
  second.clear_price();
  view.commit({updated<Products>(second)});
  CHECK(view.rows().front().starts_with("things|0.10|0.10|0.10000"));
}

TEST_CASE("a join by foreign key follows both sides", "[projections][relational]") {
  struct Line {
    std::int64_t cents;
    std::string name;
  };
  const auto named = orders.left_join(customers, &Orders::customer_id,
                                      [](const TableRow<Orders>& o, const TableRow<Customers>* c) {
                                        return Line{o->total_cents(), c ? (*c)->name() : "?"};
                                      });
  Both view(
      projections::view("order_lines", Version{1})
          .from(named)
          .into(cache_table{.key = integer("id"), .columns = {text("name"), integer("cents")}},
                [](const Line& line) {
                  return Record{{"name", line.name}, {"cents", line.cents}};
                }));
  view.commit({inserted(order(1, 7, 100)), inserted(order(2, 8, 50))});
  CHECK(view.rows() == Rows{"1|?|100", "2|?|50"});
  view.commit({inserted(customer(7, "Ada")), inserted(customer(8, "Bob"))});
  CHECK(view.rows() == Rows{"1|Ada|100", "2|Bob|50"});
  view.commit({updated<Customers>(customer(7, "Ann")), updated<Orders>(order(2, 7, 51))});
  CHECK(view.rows() == Rows{"1|Ann|100", "2|Ann|51"});
  view.commit({deleted(customer(7, "")), deleted(order(1, 0, 0))});
  CHECK(view.rows() == Rows{"2|?|51"});
}

TEST_CASE("an inner join by equal values gives every pair", "[projections][relational]") {
  Both view(projections::view("pairs", Version{1})
                .from(orders)
                .join(orders, on(&Orders::customer_id, &Orders::customer_id),
                      [](const TableRow<Orders>& a, const TableRow<Orders>* b) {
                        return Record{{"sum", a->total_cents() + (*b)->total_cents()}};
                      })
                .into(cache_table{.key = text("pair"), .columns = {integer("sum")}}));
  view.commit({inserted(order(1, 7, 1)), inserted(order(2, 7, 10))});
  CHECK(view.rows() == Rows{"1,1|2", "1,2|11", "2,1|11", "2,2|20"});
  view.commit({updated<Orders>(order(2, 8, 10)), inserted(order(3, 8, 100))});
  CHECK(view.rows() == Rows{"1,1|2", "2,2|20", "2,3|110", "3,2|110", "3,3|200"});
  view.commit({deleted(order(3, 0, 0))});
  CHECK(view.rows() == Rows{"1,1|2", "2,2|20"});
}

TEST_CASE("views are made of what other views are made of", "[projections][relational]") {
  const auto totals = orders.group_by(&Orders::customer_id)
                          .aggregate(count("orders"), sum("spent", &Orders::total_cents));
  const auto column = [](const char* name) {
    return [name](const Record& row) { return row[name]; };
  };
  Both view(projections::view("by_spending", Version{1})
                .from(totals)
                .group_by(by("spent", column("spent")))
                .aggregate(count("customers"), projections::max("orders", column("orders")))
                .into(cache_table{.key = integer("spent")}));
  view.commit({inserted(order(1, 7, 10)), inserted(order(2, 8, 10)), inserted(order(3, 9, 4))});
  CHECK(view.rows() == Rows{"4|1|1", "10|2|1"});
  view.commit({inserted(order(4, 9, 6))});
  CHECK(view.rows() == Rows{"10|3|2"});
  view.commit({deleted(order(1, 0, 0)), deleted(order(2, 0, 0))});
  CHECK(view.rows() == Rows{"10|1|2"});
}

TEST_CASE("a row becomes several, and two relations one", "[projections][relational]") {
  const auto names = products.map([](const Products& p) { return p.name(); });
  const auto buyers = customers.map([](const Customers& c) { return c.name(); });
  Both view(projections::view("letters", Version{1})
                .from(names)
                .union_with(buyers)
                .flat_map([](const std::string& name) {
                  std::vector<std::string> letters;
                  for (const char c : name) letters.emplace_back(1, c);
                  return letters;
                })
                .group_by(by("letter", [](const std::string& letter) { return letter; }))
                .aggregate(count("times"))
                .into(cache_table{}));
  view.commit({inserted(product(1, "aab")), inserted(customer(1, "bc"))});
  CHECK(view.rows() == Rows{"a|2", "b|2", "c|1"});
  view.commit({updated<Products>(product(1, "b")), deleted(customer(1, ""))});
  CHECK(view.rows() == Rows{"b|1"});
}

TEST_CASE("a declaration that can't be a view is refused with what is missing",
          "[projections][relational]") {
  const auto problem = [](const View& view) {
    const auto checked = view.check();
    return checked ? std::string() : checked.error().to_string();
  };
  const auto keyless = projections::view("v", Version{1})
                           .from(products)
                           .into(cache_table{.columns = {text("name")}});
  CHECK_THAT(problem(keyless), Catch::Contains("what the key is called"));
  const auto wrong = projections::view("v", Version{1})
                         .from(products)
                         .into(search_index{.key = integer("id"), .text = {"nmae"}});
  CHECK_THAT(problem(wrong), Catch::Contains("'nmae'") && Catch::Contains("shop.Products"));
}

TEST_CASE("a function that throws stops a view that sets nothing aside, and says at which row",
          "[projections][relational]") {
  ShopStore store;
  const auto view = projections::view("bad", Version{1})
                        .from(products)
                        .group_by(&Products::category)
                        .aggregate(sum("total", &Products::name))
                        .into(cache_table{})
                        .set_aside_at_most(0);
  store.commit({inserted(product(41, "no number"))});
  const auto built = build_generation(view, store.context());
  REQUIRE_FALSE(built);
  CHECK_THAT(built.error().to_string(), Catch::Contains("row '41' of public.products") &&
                                            Catch::Contains("'no number' is no number"));
}

TEST_CASE("a group that is null can't be a row of a view, and may go again",
          "[projections][relational]") {
  const auto view = projections::view("cities", Version{1})
                        .from(customers)
                        .group_by(&Customers::city)
                        .aggregate(count("n"))
                        .into(cache_table{})
                        .set_aside_at_most(0);
  {
    ShopStore store;
    store.commit({inserted(customer(1, "Ada"))});
    const auto built = build_generation(view, store.context());
    REQUIRE_FALSE(built);
    CHECK_THAT(built.error().to_string(), Catch::Contains("key is null"));
  }
  ShopStore store;
  store.commit({inserted(customer(1, "Ada")), deleted(customer(1, ""))});
  build(store, view);
  auto settled = customer(2, "Bob");
  settled.set_city("Bern");
  store.commit({inserted(settled)});
  follow(store, view);
  CHECK(query(store.views() / "cities.db", "SELECT * FROM cities") == Rows{"Bern|1"});
}

TEST_CASE("equal decimals are one group, and one distinct value, whatever their digits",
          "[projections][relational]") {
  Both view(projections::view("prices", Version{1})
                .from(products)
                .group_by(decimal(&Products::price))
                .aggregate(count("n"), distinct_count("prices", decimal(&Products::price)))
                .into(cache_table{}));
  auto first = product(1, "a"), second = product(2, "b");
  first.set_price("1.5");
  second.set_price("1.50");
  view.commit({inserted(first), inserted(second)});
  CHECK(view.rows() == Rows{"1.5|2|1"});
  first.set_price("1.500");
  view.commit({updated<Products>(first)});
  CHECK(view.rows() == Rows{"1.5|2|1"});
  first.set_price("3.00");
  view.commit({updated<Products>(first)});
  CHECK(view.rows() == Rows{"1.5|1|1", "3|1|1"});
}

TEST_CASE("keys of several parts never meet", "[projections][relational]") {
  Both view(projections::view("places", Version{1})
                .from(products)
                .group_by(&Products::name, &Products::description)
                .aggregate(count("n"))
                .into(cache_table{}));
  auto none = product(4, "", "b");
  none.clear_name();
  view.commit({inserted(product(1, "a,b", "c")), inserted(product(2, "a", "b,c")),
               inserted(product(3, "", "b")), inserted(none)});
  CHECK(view.rows("key") ==
        Rows{",b||b|1", "\\N,b|null|b|1", "a,b\\,c|a|b,c|1", "a\\,b,c|a,b|c|1"});
  view.commit({deleted(product(2, "")), deleted(product(3, ""))});
  CHECK(view.rows("key") == Rows{"\\N,b|null|b|1", "a\\,b,c|a,b|c|1"});
}

TEST_CASE("a column that a function leaves out is null, whatever it was before",
          "[projections][relational]") {
  Both view(projections::view("named", Version{1})
                .from(products)
                .into(cache_table{.key = integer("id"), .columns = {text("name"), text("long")}},
                      [](const Products& p) {
                        Record row{{"name", p.name()}};
                        if (p.name().size() > 3) row.add("long", "yes");
                        return row;
                      }));
  view.commit({inserted(product(1, "kettle"))});
  CHECK(view.rows() == Rows{"1|kettle|yes"});
  view.commit({updated<Products>(product(1, "pot"))});
  CHECK(view.rows() == Rows{"1|pot|null"});
}

TEST_CASE("what can't be referred to, or has no plain key, is refused when it is declared",
          "[projections][relational]") {
  const auto problem = [](const View& view) {
    const auto checked = view.check();
    return checked ? std::string() : checked.error().to_string();
  };
  const auto by_two = orders.group_by(&Orders::customer_id, &Orders::status).aggregate(count("n"));
  const auto combine = [](const auto&, const auto*) { return Record{{"n", 1}}; };
  CHECK_THAT(problem(projections::view("v", Version{1})
                         .from(customers)
                         .join(by_two, &Customers::id, combine)
                         .into(cache_table{.key = integer("id"), .columns = {integer("n")}})),
             Catch::Contains("no key of one value"));
  const auto several =
      orders.group_by(&Orders::customer_id).aggregate(count("n")).flat_map([](const Record& row) {
        return std::vector{row, row};
      });
  CHECK_THAT(problem(projections::view("v", Version{1}).from(several).into(cache_table{})),
             Catch::Contains("what the key is called"));
  const auto twice = orders.group_by(by("key", &Orders::customer_id), by("day", &Orders::status))
                         .aggregate(count("n"));
  CHECK_FALSE(problem(projections::view("v", Version{1}).from(twice).into(cache_table{})).empty());
}

TEST_CASE("a table without a key can't be declared a view of", "[projections][relational]") {
  ShopStore store(false);
  auto keyless = customers_table();
  for (auto& column : keyless.columns) column.key = false;
  store.record(keyless);
  store.commit({inserted(customer(1, "Ada"))});
  const auto view = projections::view("names", Version{1})
                        .from(customers)
                        .into(cache_table{.key = integer("id"), .columns = {text("name")}});
  const Context context = store.context();
  const auto run = Worker(view, context, {.until_caught_up = true}).run();
  REQUIRE_FALSE(run);
  CHECK_THAT(run.error().to_string(), Catch::Contains("has no key"));
}

TEST_CASE("a rollback that is killed half way loses nothing, and numbers are not given twice",
          "[projections][relational][rollback]") {
  ShopStore store;
  const auto view = projections::view("totals", Version{1})
                        .from(orders)
                        .group_by(&Orders::customer_id)
                        .aggregate(count("n"))
                        .into(cache_table{});
  store.commit({inserted(order(1, 7, 1))});
  build(store, view);
  build(store, view);
  for (int i = 2; i < 40; ++i) store.commit({inserted(order(i, 7, 1))});
  std::stop_source stop;
  BuildHooks hooks;
  hooks.events_per_commit = 1;
  hooks.progress = [&](Offset done, Offset) {
    if (done.value > 20) stop.request_stop();
  };
  const auto killed = roll_back(view, store.context(stop.get_token()), hooks);
  REQUIRE_FALSE(killed);
  CHECK(killed.error().code() == ErrorCode::kCancelled);
  CHECK(must(roll_back(view, store.context())).generation == 1);
  CHECK(query(store.views() / "totals.db", "SELECT * FROM totals") == Rows{"7|39"});
  CHECK(must(build_generation(view, store.context())).generation == 3);
}

TEST_CASE("whatever a function throws stops a view that sets nothing aside, and only that",
          "[projections][relational]") {
  ShopStore store;
  store.commit({inserted(product(41, "kettle"))});
  const auto in_row = projections::view("bad", Version{1})
                          .from(products)
                          .into(cache_table{.key = integer("id"), .columns = {text("name")}},
                                [](const Products& p) -> Record {
                                  if (p.id() == 41) throw 42;
                                  return {};
                                })
                          .set_aside_at_most(0);
  const auto made = build_generation(in_row, store.context());
  REQUIRE_FALSE(made);
  CHECK_THAT(made.error().to_string(),
             Catch::Contains("row '41'") && Catch::Contains("no std::exception"));
  const auto in_group = projections::view("bad", Version{1})
                            .from(products)
                            .group_by(by("name",
                                         [](const Products& p) -> std::string {
                                           if (p.id() == 41) throw "what";
                                           return p.name();
                                         }))
                            .aggregate(count("n"))
                            .into(cache_table{})
                            .set_aside_at_most(0);
  const auto grouped = build_generation(in_group, store.context());
  REQUIRE_FALSE(grouped);
  CHECK_THAT(grouped.error().to_string(), Catch::Contains("row '41' of public.products"));
}

TEST_CASE("a version of 0 is refused", "[projections][relational]") {
  const auto view = projections::view("names", Version{0})
                        .from(customers)
                        .into(cache_table{.key = integer("id"), .columns = {text("name")}});
  const auto checked = view.check();
  REQUIRE_FALSE(checked);
  CHECK_THAT(checked.error().to_string(), Catch::Contains("Version{1}"));
}

TEST_CASE("a numeric column is not compared as text", "[projections][relational]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto failure = [&](const View& view) {
    std::filesystem::remove_all(store.views());
    const Context context = store.context();
    const auto run = Worker(view, context, {.until_caught_up = true}).run();
    return run ? std::string() : run.error().to_string();
  };
  const auto made = [&](auto aggregate) {
    return projections::view("prices", Version{1})
        .from(products.group_by(&Products::category).aggregate(aggregate))
        .into(cache_table{});
  };
  const auto is_told = [](const std::string& error) {
    CHECK_THAT(error, Catch::Contains("'price' of public.products") &&
                          Catch::Contains("decimal(&Row::price)"));
  };
  is_told(failure(made(projections::min("least", &Products::price))));
  is_told(failure(made(projections::max("most", &Products::price))));
  is_told(failure(made(top("best", 2, &Products::price))));
  is_told(failure(made(distinct_count("prices", &Products::price))));
  is_told(failure(made(fold(
      "names", std::string(), [](const std::string&, const Products& p) { return p.name(); },
      in_order_of(&Products::price)))));
  CHECK(failure(made(projections::max("most", decimal(&Products::price)))).empty());
  CHECK(failure(made(distinct_count("prices", decimal(&Products::price)))).empty());
  const auto grouped_by = [](auto... what) {
    return projections::view("prices", Version{1})
        .from(products.group_by(what...).aggregate(count("n")))
        .into(cache_table{});
  };
  is_told(failure(grouped_by(&Products::price)));
  is_told(failure(grouped_by(&Products::category, by("of", &Products::price))));
  CHECK(failure(grouped_by(by("of", decimal(&Products::price)))).empty());
  const auto matched = projections::view("pairs", Version{1})
                           .from(products.join(products, on(&Products::price, &Products::name),
                                               [](const auto&, const auto*) {
                                                 return Record{{"n", 1}};
                                               }))
                           .into(cache_table{.key = text("pair"), .columns = {integer("n")}});
  is_told(failure(matched));
}

TEST_CASE("a reference that can't name a row of the other table is refused",
          "[projections][relational]") {
  ShopStore store(false);
  auto by_two = customers_table();
  by_two.columns[1].key = true;
  store.record(products_table());
  store.record(orders_table());
  store.record(by_two);
  store.commit({inserted(product(1, "kettle"))});
  const auto failure = [&](const auto& left, const auto& right, const auto& reference) {
    const auto view = projections::view("joined", Version{1})
                          .from(left.join(right, reference,
                                          [](const auto&, const auto*) {
                                            return Record{{"n", 1}};
                                          }))
                          .into(cache_table{.key = integer("id"), .columns = {integer("n")}});
    const Context context = store.context();
    const auto run = Worker(view, context, {.until_caught_up = true}).run();
    return run ? std::string() : run.error().to_string();
  };
  CHECK_THAT(failure(orders, products, &Orders::status),
             Catch::Contains("rows of public.products by column 'status', text") &&
                 Catch::Contains("their key 'id'"));
  CHECK_THAT(failure(orders, products, [](const Orders& o) { return o.status(); }),
             Catch::Contains("by a function, text"));
  CHECK(failure(orders, products, &Orders::total_cents).empty());
  CHECK_THAT(failure(orders, customers, &Orders::customer_id),
             Catch::Contains("their key is of 2 columns"));
  CHECK_THAT(problem_of(orders.join(products, on(&Orders::customer_id, &Products::name),
                                    [](const auto&, const auto*) {
                                      return Record{{"n", 1}};
                                    })),
             Catch::Contains("'customer_id'") && Catch::Contains("a number with what is none"));
}

TEST_CASE("a table whose key becomes another one stops a view that has rows under the old one",
          "[projections][relational]") {
  ShopStore store;
  const bool after_a_deletion = GENERATE(false, true);
  const auto view = projections::view("names", Version{1})
                        .from(customers)
                        .into(cache_table{.key = text("customer"), .columns = {text("name")}});
  store.commit({inserted(customer(1, "Ada"))});
  follow(store, view);
  auto other = customers_table();
  other.columns[0].key = false;
  other.columns[2].key = true;
  store.record(other);
  const auto under_the_new_key = [](EncodedChange change, const std::string& key) {
    v1::Change encoded;
    encoded.ParseFromString(change.payload);
    encoded.set_schema(2);
    change.payload = encoded.SerializeAsString();
    change.key = key;
    return change;
  };
  // A deletion tells nothing: its row may have come under the new key.
  if (after_a_deletion)
    store.commit({under_the_new_key(deleted(customer(9, "Zoe")), "Zoe@example.com")});
  store.commit({under_the_new_key(inserted(customer(1, "Ann")), "Ada@example.com")});
  for (int attempt = 0; attempt < 2; ++attempt) {  // it is not forgotten by the next start
    const Context context = store.context();
    const auto run = Worker(view, context, {.until_caught_up = true}).run();
    REQUIRE_FALSE(run);
    CHECK_THAT(run.error().to_string(),
               Catch::Contains("was (id) and is (email)") && Catch::Contains("rebuild"));
  }
  build(store, view);
  follow(store, view);
  CHECK(query(store.views() / "names.db", "SELECT * FROM names ORDER BY 1") ==
        Rows{"1|Ada", "Ada@example.com|Ann"});
  store.commit({truncated("customers")});
  follow(store, view);
  store.commit({inserted(customer(2, "Bob"))});  // of a table that begins anew
  follow(store, view);
  CHECK(query(store.views() / "names.db", "SELECT * FROM names") == Rows{"2|Bob"});
}

TEST_CASE("a key that is called as a column that it is not is refused",
          "[projections][relational]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada")), inserted(order(1, 7, 100))});
  const auto failure = [&](const RelationalView& view) {
    const Context context = store.context();
    const auto run = Worker(view, context, {.until_caught_up = true}).run();
    return run ? std::string() : run.error().to_string();
  };
  const projections::ViewName named("v", Version{1});
  const auto as_row = [](const Customers& c) { return Record{{"name", c.name()}}; };
  const auto with_customer =
      orders.left_join(customers, &Orders::customer_id, [](const auto& o, const auto*) {
        return Record{{"name", o->status()}};
      });
  for (const auto& view :
       {named.from(customers).into(cache_table{.key = text("email"), .columns = {text("name")}}),
        named.from(customers).into(search_index{.key = text("email"), .text = {"name"}}),
        named.from(customers.map(as_row).where([](const Record&) { return true; }))
            .into(cache_table{.key = text("email"), .columns = {text("name")}})})
    CHECK_THAT(failure(view), Catch::Contains("'email', which is a column of public.customers") &&
                                  Catch::Contains("that is (id)"));
  CHECK_THAT(
      failure(named.from(with_customer)
                  .into(cache_table{.key = integer("customer_id"), .columns = {text("name")}})),
      Catch::Contains("a column of public.orders"));
  // Of two tables with one message it is the left one's.
  auto archived = customers_table();
  archived.category = "archive.customers";
  archived.columns[2].key = true;
  store.record(archived);
  const auto beside = customers.left_join(
      projections::table<Customers>("archive.customers"),
      [](const Customers& c) { return std::to_string(c.id()) + "," + c.email(); },
      [](const auto& c, const auto*) {
        return Record{{"name", c->name()}};
      });
  CHECK(failure(projections::view("beside", Version{1})
                    .from(beside)
                    .into(cache_table{.key = integer("id"), .columns = {text("name")}}))
            .empty());
  for (const char* key : {"id", "customer"})
    CHECK(failure(projections::view(key, Version{1})
                      .from(customers)
                      .into(cache_table{.key = integer(key), .columns = {text("name")}}))
              .empty());
}

TEST_CASE("a key made of several values can't be declared as a number",
          "[projections][relational]") {
  const projections::ViewName named("v", Version{1});
  const cache_table numbered{.key = integer("id"), .columns = {integer("n")}};
  const auto number = [](const Orders& o) { return Record{{"n", o.total_cents()}}; };
  const auto pair = [](const auto& o, const auto*) { return Record{{"n", o->total_cents()}}; };
  const auto several = [](const Orders& o) {
    return std::vector<Record>{Record{{"n", o.total_cents()}}};
  };
  const auto is_told = [](const Result<void>& checked) {
    REQUIRE_FALSE(checked);
    CHECK_THAT(checked.error().to_string(),
               Catch::Contains("'id' is declared as a number") && Catch::Contains("text(\"id\")"));
  };
  is_told(named.from(orders.join(orders, on(&Orders::customer_id, &Orders::customer_id), pair))
              .into(numbered)
              .check());
  is_told(named.from(orders.flat_map(several)).into(numbered).check());
  is_told(named.from(orders.map(number).union_with(orders.map(number))).into(numbered).check());
  is_told(named.from(orders.group_by(&Orders::customer_id, &Orders::status).aggregate(count("n")))
              .into(numbered)
              .check());
  CHECK(named.from(orders.map(number)).into(numbered).check());
}

TEST_CASE("a column that an aggregation does not have is refused", "[projections][relational]") {
  const auto totals = orders.group_by(&Orders::customer_id).aggregate(count("orders"));
  const auto view = projections::view("v", Version{1});
  CHECK_THAT(
      view.from(totals).into(cache_table{.columns = {integer("spent")}}).check().error().message(),
      Catch::Contains("'spent' is none of the aggregation, which has customer_id, orders"));
  CHECK_FALSE(view.from(totals).into(search_index{.text = {"spent"}}).check());
  CHECK(view.from(totals).into(cache_table{.columns = {integer("orders")}}).check());
}
