#include "projections/engine/build.h"
#include "projections/engine/verify.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {

/// Builds `view` anew from all that is in the store.
BuildReport build(ShopStore& store, const View& view) {
  return must(build_generation(view, store.context()));
}

std::vector<std::string> search(const ShopStore& store, const std::string& words) {
  return query(
      store.views() / "product_search.db",
      "SELECT id FROM product_search WHERE product_search MATCH '" + words + "' ORDER BY id");
}

}  // namespace

TEST_CASE("a search index follows inserts, updates and deletes", "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "copper kettle")), inserted(product(2, "steel pan")),
                inserted(product(3, "oak board"))});
  store.commit({updated<Products>(product(2, "iron pan")), deleted(product(3, ""))});
  build(store, product_search());
  CHECK(rows_of(store, "product_search") ==
        std::vector<std::string>{"1|copper kettle|nice|things|19.90",
                                 "2|iron pan|nice|things|19.90"});
  CHECK(search(store, "kettle") == std::vector<std::string>{"1"});
  CHECK(search(store, "steel").empty());
  CHECK(search(store, "iron") == std::vector<std::string>{"2"});
  CHECK(search(store, "oak").empty());
}

TEST_CASE("an unchanged column keeps its value, also when the key changes", "[projections][view]") {
  ShopStore store;
  auto row = product(1, "kettle", "a very long text");
  store.commit({inserted(row)});
  row.set_name("pot");
  store.commit({updated<Products>(row, nullptr, {3})});
  row.set_id(2);
  store.commit({deleted(product(1, "")), moved(row, 1, {3})});
  build(store, product_search());
  build(store, product_cache());
  CHECK(rows_of(store, "product_search", "id, name, description") ==
        std::vector<std::string>{"2|pot|a very long text"});
  CHECK(rows_of(store, "product_cache") == std::vector<std::string>{"2|pot|a very long text"});
  CHECK(search(store, "long") == std::vector<std::string>{"2"});
}

TEST_CASE("a row whose key was an empty text takes its unchanged columns along",
          "[projections][view]") {
  ShopStore store;
  auto first = inserted(product(1, "kettle", "a very long text"));
  first.key = "";
  auto erased = deleted(product(1, ""));
  erased.key = "";
  auto moved_here = moved(product(2, "pot"), 1, {3});
  v1::Change change;
  change.ParseFromString(moved_here.payload);
  change.clear_moved_from();
  moved_here.payload = change.SerializeAsString() + std::string("\x42\x00", 2);
  store.commit({first});
  store.commit({erased, moved_here});
  build(store, product_cache());
  CHECK(rows_of(store, "product_cache") == std::vector<std::string>{"2|pot|a very long text"});
}

TEST_CASE("an old row of nulls only is an old row", "[projections][view]") {
  ShopStore store;
  auto change = updated<shop::Orders>(order(1, 7, 100));
  change.payload += std::string_view("\x22\x00", 2);
  store.commit({inserted(customer(7, "Ada")), change});
  build(store, customer_totals());  // which needs old rows
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"7|Ada|1|100"});
}

TEST_CASE("a row that is erased right before another moves is not mistaken for it",
          "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "one", "first")), inserted(product(2, "two", "second"))});
  // A whole row moves in, so nothing is to be taken from the row that was erased before it.
  store.commit({deleted(product(1, "")), moved(product(3, "three", "third"), 1),
                deleted(product(2, "")), inserted(product(4, "four", "fourth"))});
  build(store, product_cache());
  CHECK(rows_of(store, "product_cache") ==
        std::vector<std::string>{"3|three|third", "4|four|fourth"});
}

TEST_CASE("a null column is null in the view and an empty text is not", "[projections][view]") {
  ShopStore store;
  auto row = product(1, "");
  row.clear_description();
  store.commit({inserted(row)});
  build(store, product_cache());
  CHECK(rows_of(store, "product_cache") == std::vector<std::string>{"1||null"});
}

TEST_CASE("a truncate empties the view and what follows fills it", "[projections][view]") {
  ShopStore store;
  store.commit(
      {inserted(product(1, "kettle")), truncated("products"), inserted(product(2, "pan"))});
  build(store, product_search());
  CHECK(rows_of(store, "product_search", "id, name") == std::vector<std::string>{"2|pan"});
  CHECK(search(store, "kettle").empty());
}

TEST_CASE("sums are taken back by updates and deletes, and no row comes back by that",
          "[projections][view]") {
  ShopStore store;
  const auto first = order(1, 7, 100), second = order(2, 8, 50);
  store.commit({inserted(first), inserted(customer(7, "Ada")), inserted(customer(8, "Bo")),
                inserted(second)});
  auto changed = first;
  changed.set_customer_id(8);
  changed.set_total_cents(150);
  store.commit({updated(changed, &first)});
  build(store, customer_totals());
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"7|Ada|0|0", "8|Bo|2|200"});
  store.commit({deleted(customer(8, "")), deleted(changed, true), deleted(second, true)});
  build(store, customer_totals());
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"7|Ada|0|0"});
}

TEST_CASE("a search index with text keys is equal to one with numbers", "[projections][view]") {
  const auto by_text = [] {
    return SearchIndex("text_search", Version{1},
                       {.key = text("id"), .text = {"name", "description"}})
        .on<Products>("public.products",
                      [](const Change<Products>& change, SearchIndex::Writer& index) {
                        if (change.is_truncate()) return index.clear();
                        if (change.is_delete()) return index.erase(change.key());
                        index.put(change.key(), {{"name", change[&Products::name]},
                                                 {"description", change[&Products::description]}});
                      });
  };
  for (std::uint32_t seed = 1; seed <= 5; ++seed) {
    INFO("seed " << seed);
    ShopStore store;
    ShopWorkload workload(seed);
    for (int i = 0; i < 150; ++i) store.commit(workload.transaction());
    build(store, product_search());
    build(store, by_text());
    const auto numbers =
        query(store.views() / "product_search.db",
              "SELECT CAST(id AS TEXT), name, description FROM product_search ORDER BY 1");
    CHECK(rows_of(store, "text_search") == numbers);
    const auto count = [&](const std::string& view) {
      return query(store.views() / (view + ".db"),
                   "SELECT count(*) FROM " + view + " WHERE " + view + " MATCH 'w1 OR w2'");
    };
    CHECK(count("text_search") == count("product_search"));
  }
}

TEST_CASE("find, move and raise work on what was written so far", "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "b")), inserted(product(1, "c")), inserted(product(1, "a"))});
  const auto view =
      CacheTable("largest", Version{1},
                 {.key = text("id"), .columns = {text("name"), counter("seen"), text("note")}})
          .on<Products>("public.products",
                        [](const Change<Products>& change, CacheTable::Writer& table) {
                          const auto before = table.find("x");
                          table.raise("x", {{"name", change[&Products::name]}});
                          table.add("x", {{"seen", 1}});
                          if (before && (*before)["seen"].integer() == 2) {
                            table.put("x", {{"note", (*before)["name"]}});
                            table.move("x", "y");
                            CHECK_FALSE(table.find("x"));
                            table.erase("nothing");
                            table.move("nothing", "y");
                          }
                        });
  build(store, view);
  CHECK(rows_of(store, "largest") == std::vector<std::string>{"y|c|3|c"});
}

TEST_CASE("a search index finds and moves documents, and moves nothing that is not there",
          "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "first")), inserted(product(2, "second")),
                inserted(product(3, "third")), inserted(product(9, "go"))});
  const auto checked = [](Column key) {
    return SearchIndex("moving", Version{1}, {.key = std::move(key), .text = {"name"}})
        .on<Products>("public.products",
                      [](const Change<Products>& change, SearchIndex::Writer& index) {
                        if (change.key() != "9")
                          return index.put(change.key(), {{"name", change[&Products::name]}});
                        CHECK((*index.find("2"))["name"].text() == "second");
                        CHECK_FALSE(index.find("7"));
                        index.move("7", "2");  // there is no 7
                        CHECK(index.find("2"));
                        index.move("1", "1");
                        CHECK((*index.find("1"))["name"].text() == "first");
                        index.move("1", "2");  // replaces it
                        CHECK_FALSE(index.find("1"));
                        CHECK((*index.find("2"))["name"].text() == "first");
                        index.erase("3");
                        index.move("3", "5");  // is gone already
                        CHECK_FALSE(index.find("5"));
                        index.move("2", "4");
                      });
  };
  for (const auto& key : {integer("id"), text("id")}) {
    const auto view = checked(key);
    build(store, view);
    CHECK(rows_of(store, "moving") == std::vector<std::string>{"4|first"});
    CHECK(query(store.views() / "moving.db",
                "SELECT id FROM moving WHERE moving MATCH 'first OR second'") ==
          std::vector<std::string>{"4"});
    CHECK(must(verify_view(view, store.context())).different == 0);
  }
}

TEST_CASE("a key is the same row whether it is given as a number or as text",
          "[projections][view]") {
  ShopStore store;
  std::vector<EncodedChange> rows;
  for (int id = 1; id <= 12; ++id) rows.push_back(inserted(product(id, "n" + std::to_string(id))));
  rows.push_back(updated<Products>(product(2, "two")));
  rows.push_back(deleted(product(10, "")));
  store.commit(rows);
  const auto write = [](const Change<Products>& change, auto& to) {
    // Now as a number, now as text.
    const std::int64_t id = change.row().id();
    if (change.is_delete()) return to.erase(id);
    if (change.op() == Op::kUpdate)
      return to.put(change.key(), {{"name", change[&Products::name]}});
    to.put(id, {{"name", change[&Products::name]}});
    CHECK(to.find(change.key()));
    CHECK(to.find(id));
    if (id == 12) to.move(std::int64_t{1}, "20");
  };
  for (const auto& key : {integer("id"), text("id")}) {
    const auto table =
        CacheTable("keyed_table", Version{1}, {.key = key, .columns = {text("name")}})
            .on<Products>("public.products", write);
    const auto search = SearchIndex("keyed_search", Version{1}, {.key = key, .text = {"name"}})
                            .on<Products>("public.products", write);
    build(store, table);
    build(store, search);
    for (const auto* name : {"keyed_table", "keyed_search"}) {
      const auto ids = query(store.views() / (std::string(name) + ".db"),
                             "SELECT id, typeof(id) FROM " + std::string(name) + " ORDER BY +id");
      const std::string type = key.type == ColumnType::kText ? "|text" : "|integer";
      CHECK(ids.size() == 11);
      CHECK(
          std::all_of(ids.begin(), ids.end(), [&](const auto& id) { return id.ends_with(type); }));
      CHECK(std::count(ids.begin(), ids.end(), "20" + type) == 1);
    }
    for (const View* view : {static_cast<const View*>(&table), static_cast<const View*>(&search)}) {
      CHECK(must(verify_view(*view, store.context())).different == 0);
      // And a difference is one row, not a walk out of step.
      must(must(sqlite::Database::open(store.views() / (view->name() + ".db"), sqlite::Mode::kLive))
               ->execute("UPDATE " + view->name() + " SET name = 'other' WHERE name = 'n9'"));
      const auto report = must(verify_view(*view, store.context()));
      CHECK(std::count_if(report.differences.begin(), report.differences.end(),
                          [](const auto& d) { return d.what != "word"; }) == 1);
    }
  }
}

TEST_CASE("a name that is hostile to SQL is only a name", "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const std::string evil = "a\"; DROP TABLE millrace_checkpoint; --";
  const auto view = CacheTable("names", Version{1},
                               {.key = integer("id"), .columns = {text(evil)}, .indexes = {{evil}}})
                        .on<Products>("public.products", [&](const Change<Products>& change,
                                                             CacheTable::Writer& table) {
                          table.put(change.key(), {{evil, change[&Products::name]}});
                        });
  build(store, view);
  CHECK(rows_of(store, "names") == std::vector<std::string>{"1|kettle"});
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("what can't be a view is turned away with its reason", "[projections][view]") {
  const auto ignore = [](const Change<Products>&, auto&) {};
  const auto reason = [](const View& view) { return view.check().error().message(); };
  CHECK_THAT(
      reason(CacheTable("Bad Name", Version{1}, {.key = integer("id")}).on<Products>("t", ignore)),
      Catch::Contains("can't be its name"));
  CHECK_THAT(reason(CacheTable("empty", Version{1}, {.key = integer("id")})),
             Catch::Contains("no source"));
  CHECK_THAT(reason(CacheTable("twice", Version{1}, {.key = integer("id")})
                        .on<Products>("t", ignore)
                        .on<Products>("t", ignore)),
             Catch::Contains("two functions for t"));
  CHECK_THAT(
      reason(CacheTable("columns", Version{1}, {.key = integer("id"), .columns = {text("ID")}})
                 .on<Products>("t", ignore)),
      Catch::Contains("named 'id'"));
  CHECK_THAT(reason(CacheTable("indexes", Version{1}, {.key = integer("id"), .indexes = {{"x"}}})
                        .on<Products>("t", ignore)),
             Catch::Contains("no column"));
  CHECK_THAT(
      reason(SearchIndex("blank", Version{1}, {.key = integer("id")}).on<Products>("t", ignore)),
      Catch::Contains("no text"));
  CHECK_THAT(
      reason(SearchIndex(
                 "odd", Version{1},
                 {.key = integer("id"), .text = {"name"}, .stored = {}, .tokenizer = "klingon"})
                 .on<Products>("t", ignore)),
      Catch::Contains("tokenizer 'klingon'"));
  CHECK_THAT(reason(SearchIndex("ranked", Version{1}, {.key = integer("id"), .text = {"rank"}})
                        .on<Products>("t", ignore)),
             Catch::Contains("named 'rank'"));
  CHECK(product_search().check());
}

TEST_CASE("a function that writes to no column or without a key stops before its event",
          "[projections][view]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  const auto failure = [&](auto apply) {
    const auto view =
        CacheTable("broken", Version{1}, {.key = integer("id"), .columns = {text("name")}})
            .set_aside_at_most(0)
            .on<Products>("public.products", apply);
    return build_generation(view, store.context()).error().message();
  };
  using Writer = CacheTable::Writer;
  CHECK_THAT(failure([](const Change<Products>&, Writer& table) {
               table.put(1, {{"nam", "x"}});
             }),
             Catch::Contains("no column 'nam'") &&
                 Catch::Contains("offset 0 of public.products, key '1'"));
  CHECK_THAT(failure([](const Change<Products>&, Writer& table) { table.put(nullptr, {}); }),
             Catch::Contains("null as its key"));
  CHECK_THAT(failure([](const Change<Products>&, Writer& table) { table.put("x", {}); }),
             Catch::Contains("the key 'x' is no integer"));
  CHECK_THAT(failure([](const Change<Products>&, Writer&) { throw std::runtime_error("no way"); }),
             Catch::Contains("no way"));
  CHECK_THAT(failure([](const Change<Products>&, Writer&) -> Result<void> {
               return Error(ErrorCode::kInternal, "not today");
             }),
             Catch::Contains("not today"));
}
