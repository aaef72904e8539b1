#include <random>

#include "projections/engine/build.h"
#include "projections/engine/retry.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_workload.h"

// A cache table writes its rows a few at a time (projections/sqlite/row_buffer.h): nobody may tell.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {

std::string text_of_size(std::uint64_t size) {
  std::string text;
  for (std::uint64_t i = 0; i < size; ++i) text += static_cast<char>('a' + (i * 7 + size) % 26);
  return text;
}

/// Does with each change what its offset says, by every call that a writer has.
void any_call(const Change<Products>& change, CacheTable::Writer& table) {
  if (change.is_truncate()) return table.clear();
  const std::uint64_t n = (change.offset().value + 17) * 2654435761 % 4294967296 >> 8;
  const std::int64_t key = static_cast<std::int64_t>(n % 13),
                     other = static_cast<std::int64_t>(n % 7);
  const std::string text = text_of_size(n % 64 == 0 ? 20'000 : n % 8 == 0 ? 3'000 : n % 90);
  switch (n / 16 % 16) {
    case 0: return table.erase(key);
    case 1: return table.move(key, other);
    case 2: return table.subtract(key, {{"n", 3}});
    case 3: return table.update_all({{"top", static_cast<int>(n % 100)}});
    case 4: {
      const auto row = table.find(key);
      return table.put(other, {{"name", row ? "found" : "missing"}});
    }
    case 5: return table.add(key, {{"n", 2}});
    case 6: return table.raise(key, {{"top", static_cast<int>(n % 1000)}});
    case 7: return table.put(key, {{"long", Value::blob(text)}, {"name", nullptr}});
    case 8: return table.put(key, {});
    case 9:
      for (int i = 0; i < 40; ++i) table.put(i, {{"name", text}});
      return;
    default: table.put(key, {{"name", change[&Products::name]}, {"long", text}});
  }
}

CacheTable any_calls(const std::string& name) {
  return CacheTable(name, Version{1},
                    {.key = integer("id"),
                     .columns = {text("name"), counter("n"), integer("top"), text("long")}})
      .on<Products>("public.products", any_call);
}

/// One function throws, the other gives the file a row that it refuses.
enum class Fails { kByThrowing, kByItsRow };

CacheTable failing(Fails fails, std::uint64_t seed) {
  return CacheTable(fails == Fails::kByThrowing ? "throws" : "refused", Version{1},
                    {.key = integer("id"), .columns = {text("name"), counter("n")}})
      .on<Products>(
          "public.products", [=](const Change<Products>& change, CacheTable::Writer& table) {
            if (change.is_truncate()) return table.clear();
            if (change.is_delete()) return table.erase(change.key());
            const bool bad = (change.offset().value + seed) * 2654435761 % 4294967296 >> 16 < 4'000;
            if (bad && fails == Fails::kByThrowing) throw std::runtime_error("no");
            table.put(change.key(),
                      {{"name", change[&Products::name]}, {"n", bad ? Value() : Value(1)}});
          });
}

std::vector<std::string> set_aside(ShopStore& store, const View& view) {
  std::vector<std::string> events;
  for (const SetAsideEvent& event : must(list_set_aside(view, store.context())))
    events.push_back(std::to_string(event.offset.value) + (event.reason ? " failed" : " waits"));
  return events;
}

}  // namespace

TEST_CASE("columns are written where they belong, in whichever order they are named",
          "[projections][rows]") {
  ShopStore store;
  const std::string large = text_of_size(20'000);
  const auto view =
      CacheTable("ordered", Version{1},
                 {.key = integer("id"), .columns = {text("name"), counter("n"), text("city")}})
          .on<Products>(
              "public.products", [&](const Change<Products>& change, CacheTable::Writer& table) {
                const Value key = change.key();
                switch (change.after()->id()) {
                  case 1: return table.put(key, {{"city", "Rome"}, {"n", 5}, {"name", "Ann"}});
                  case 2: return table.put(key, {{"city", "Oslo"}, {"name", "Bob"}});
                  case 3: return table.put(key, {{"n", 1}, {"name", "Cid"}, {"n", 2}});
                  case 4: return table.put(key, {{"city", "Bonn"}, {"name", large}});
                  case 5: return table.raise(key, {{"city", "Kiev"}, {"n", 7}, {"name", "Eve"}});
                  default:
                    return table.put(key, {{"n", 6}, {"city", "Lima"}, {"name", "Fay"}, {"n", 8}});
                }
              });
  must(catch_up(store, view));
  std::vector<EncodedChange> changes;
  for (int id = 1; id <= 24; ++id) changes.push_back(inserted(product(id, "any")));
  store.commit(changes);
  must(catch_up(store, view));
  std::vector<std::string> expected{"1|Ann|5|Rome", "2|Bob|0|Oslo", "3|Cid|2|null",
                                    "4|" + large + "|0|Bonn", "5|Eve|7|Kiev"};
  for (int id = 6; id <= 24; ++id) expected.push_back(std::to_string(id) + "|Fay|8|Lima");
  CHECK(query(store.views() / "ordered.db", "SELECT * FROM ordered ORDER BY id") == expected);
}

TEST_CASE("what a function asks for in vain is told, not what it makes of nothing",
          "[projections][rows][quarantine]") {
  ShopStore store;
  const auto table =
      CacheTable("asks", Version{1}, {.key = integer("id"), .columns = {text("name")}})
          .on<Products>("public.products",
                        [](const Change<Products>& change, CacheTable::Writer& rows) {
                          const auto row = rows.find(change[&Products::name]);
                          rows.put(change.key(), {{"name", row.value()["name"]}});
                        });
  const auto index = SearchIndex("asks_too", Version{1}, {.key = integer("id"), .text = {"name"}})
                         .on<Products>("public.products", [](const Change<Products>& change,
                                                             SearchIndex::Writer& rows) {
                           const auto row = rows.find(change[&Products::name]);
                           rows.put(change.key(), {{"name", row.value()["name"]}});
                         });
  store.commit({inserted(product(1, "no number"))});
  for (const View* view : std::initializer_list<const View*>{&table, &index}) {
    must(catch_up(store, *view));
    const auto waiting = must(list_set_aside(*view, store.context()));
    REQUIRE(waiting.size() == 1);
    CHECK_THAT(waiting[0].reason.value_or(""),
               Catch::Contains("the key 'no number' is no integer"));
  }
}

TEST_CASE("texts are not added, nor compared as numbers", "[projections][rows][quarantine]") {
  ShopStore store;
  const auto view = CacheTable("sums", Version{1},
                               {.key = integer("id"), .columns = {numeric("total"), text("last")}})
                        .on<Products>("public.products", [](const Change<Products>& change,
                                                            CacheTable::Writer& rows) {
                          const Value price = change[&Products::price];
                          switch (change.after()->id()) {
                            case 1: return rows.add(change.key(), {{"total", price}});
                            case 2: return rows.subtract(change.key(), {{"total", price}});
                            case 3: return rows.raise(change.key(), {{"total", price}});
                            default:
                              return rows.raise(change.key(), {{"last", price}, {"total", 7}});
                          }
                        });
  for (int id = 1; id <= 4; ++id) store.commit({inserted(product(id, "any"))});
  must(catch_up(store, view));
  const auto waiting = must(list_set_aside(view, store.context()));
  REQUIRE(waiting.size() == 3);
  for (const SetAsideEvent& event : waiting)
    CHECK_THAT(event.reason.value_or(""),
               Catch::Contains("'19.90'") && Catch::Contains("column 'total' as a number"));
  CHECK(rows_of(store, "sums", "*") == std::vector<std::string>{"4|7|19.90"});
}

TEST_CASE("a cache table is the same whether rows are written one by one or several at once",
          "[projections][rows]") {
  ShopStore store;
  const CacheTable one_by_one = any_calls("single"), together = any_calls("together");
  must(catch_up(store, one_by_one));
  must(catch_up(store, together));
  std::mt19937 random(GENERATE(range(1u, 9u)));
  for (int transaction = 0; transaction < 100; ++transaction) {
    std::vector<EncodedChange> changes;
    for (auto left = random() % 5 + 1; left > 0; --left)
      changes.push_back(random() % 200 == 0 ? truncated("products")
                                            : inserted(product(1, "w" + std::to_string(random()))));
    store.commit(changes);
    // A commit for each: only the calls of one event can come together.
    if (transaction % 3 != 0) must(catch_up(store, one_by_one, {.events_per_commit = 1}));
  }
  must(catch_up(store, one_by_one));
  must(catch_up(store, together));
  const auto expected = rows_of(store, "single", "*");
  CHECK(expected.size() > 5);
  CHECK(rows_of(store, "together", "*") == expected);
  must(build_generation(together, store.context(), {}));
  CHECK(rows_of(store, "together", "*") == expected);
}

TEST_CASE("F113: a row that the file refuses is the fault of its own event, among whichever others",
          "[projections][rows][quarantine]") {
  ShopStore store;
  const std::uint32_t seed = GENERATE(range(1u, 21u));
  CAPTURE(seed);
  const CacheTable throws = failing(Fails::kByThrowing, seed),
                   refused = failing(Fails::kByItsRow, seed);
  ShopWorkload workload(seed);
  const bool in_tail = seed % 2 == 0;
  if (in_tail) {
    must(catch_up(store, throws));
    must(catch_up(store, refused));
  }
  for (int transaction = 0; transaction < 150; ++transaction) {
    store.commit(workload.transaction());
    if (!in_tail || transaction % 50 != 49) continue;
    must(catch_up(store, throws));
    must(catch_up(store, refused));
  }
  must(catch_up(store, throws));
  must(catch_up(store, refused));
  CHECK(rows_of(store, "refused", "*") == rows_of(store, "throws", "*"));
  CHECK(set_aside(store, refused) == set_aside(store, throws));
  must(build_generation(refused, store.context(), {.events_per_commit = 20}));
  CHECK(rows_of(store, "refused", "*") == rows_of(store, "throws", "*"));
}

TEST_CASE("a view that sets nothing aside stops before the row that the file refuses",
          "[projections][rows]") {
  ShopStore store;
  const auto strict =
      CacheTable("strict", Version{1}, {.key = integer("id"), .columns = {counter("n")}})
          .set_aside_at_most(0)
          .on<Products>("public.products",
                        [](const Change<Products>& change, CacheTable::Writer& table) {
                          const bool bad = change[&Products::name].text() == "bad";
                          table.put(change.key(), {{"n", bad ? Value() : Value(1)}});
                        });
  const bool in_tail = GENERATE(false, true);
  if (in_tail) must(catch_up(store, strict));
  const auto events_per_commit = GENERATE(4u, 20'000u);
  for (int id = 1; id <= 40; ++id) store.commit({inserted(product(id, id == 21 ? "bad" : "good"))});
  const auto stopped = catch_up(store, strict, {.events_per_commit = events_per_commit});
  REQUIRE_FALSE(stopped);
  CHECK_THAT(stopped.error().message(),
             Catch::Contains("event at offset 20 of public.products, key '21'") &&
                 Catch::Contains("NOT NULL"));
  if (in_tail && events_per_commit == 4) CHECK(rows_of(store, "strict").size() == 20);
  if (!in_tail) CHECK_FALSE(must(store.context().generations(strict).live()));
}
