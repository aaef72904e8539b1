#include <spdlog/spdlog.h>

#include <new>

#include "projections/engine/as_of.h"
#include "projections/engine/status.h"
#include "tests/projections/disliked_names.h"

// Declared views set aside what their functions can't take, as functions of events do.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Customers;
using shop::Orders;
using shop::Products;

TEST_CASE("F113: a declared view goes on with a row as it was before the change that waits",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = categories();
  store.commit({inserted(product(1, "kettle")), inserted(product(3, "pan"))});
  must(catch_up(store, view));
  store.commit({updated<Products>(product(3, "poison")), inserted(product(4, "pot"))});
  must(catch_up(store, view));
  store.commit({updated<Products>(product(3, "zinc")), updated<Products>(product(1, "lamp"))});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"things|3|pot"});
  CHECK(waiting_in(store) == Rows{"2|3|1", "4|3|0"});
  store.commit({deleted(product(3, "")), deleted(product(4, ""))});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"things|2|pan"});
  CHECK(differences(store, view) == 0);
  dislike({});
  CHECK(retried(store, view).folded == 3);
  CHECK(shown(store) == Rows{"things|1|lamp"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE("a change that a later one replaces in the same portion is not asked about",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = categories();
  store.commit({inserted(product(3, "poison"))});
  store.commit({updated<Products>(product(3, "pan"))});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"things|1|pan"});
  CHECK(must(status_of(view, store.context())).quarantine.events == 0);
  // A view that follows has to take it, and a rebuild finds that it need not.
  ShopStore followed;
  followed.commit({inserted(product(3, "poison"))});
  must(catch_up(followed, view));
  followed.commit({updated<Products>(product(3, "pan"))});
  must(catch_up(followed, view));
  CHECK(waiting_in(followed) == Rows{"0|3|1", "1|3|0"});
  CHECK(shown(followed).empty());
  CHECK(differences(followed, view) == 0);
  must(build_generation(view, followed.context()));
  CHECK(shown(followed) == Rows{"things|1|pan"});
  CHECK(must(status_of(view, followed.context())).quarantine.events == 0);
}

TEST_CASE("a change of key that a declared view can't take is taken back as a whole",
          "[projections][quarantine][relational]") {
  ShopStore store(true, GENERATE(1 << 10, 1 << 20));
  const Dislike poison;
  const RelationalView view = names();
  store.commit({inserted(product(1, "kettle", "of copper"))});
  must(catch_up(store, view));
  store.commit({inserted(product(7, "pan")), deleted(product(1, "")),
                moved(product(2, "poison"), 1, {3}),
                updated<Products>(product(2, "pot"), nullptr, {3})});
  store.commit(
      {inserted(product(1, "another")), updated<Products>(product(2, "poison"), nullptr, {3})});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"1|kettle|of copper", "7|pan|nice"});
  CHECK(differences(store, view) == 0);
  CHECK(must(skip_set_aside(view, store.context(), {}, kByTest)).skipped == 1);
  dislike({});
  retried(store, view);
  CHECK(must(status_of(view, store.context())).quarantine.events == 0);
  CHECK(differences(store, view) == 0);

  ShopStore other;
  other.commit({inserted(product(1, "kettle", "of copper"))});
  must(catch_up(other, view));
  dislike({"poison"});
  other.commit({deleted(product(1, "")), moved(product(2, "poison"), 1, {3})});
  must(catch_up(other, view));
  CHECK(shown(other) == Rows{"1|kettle|of copper"});
  CHECK(waiting_in(other) == Rows{"1|1|0", "2|2|1"});
  dislike({});
  CHECK(retried(other, view).folded == 2);
  CHECK(shown(other) == Rows{"2|poison|of copper"});
}

TEST_CASE("a row that is given a key that waits stays in a declared view under its own",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = names();
  const int before = GENERATE(0, 50);  // events that are folded with it
  store.commit({inserted(product(1, "kettle", "of copper")), inserted(product(2, "poison"))});
  must(catch_up(store, view));
  std::vector<EncodedChange> changes;
  for (int i = 0; i < before; ++i) changes.push_back(inserted(product(100 + i, "cup")));
  store.commit(changes);
  store.commit({inserted(product(7, "pan")), deleted(product(2, ""))});
  store.commit({deleted(product(1, "")), moved(product(2, "teapot"), 1, {3}),
                updated<Products>(product(7, "wok"))});
  must(catch_up(store, view));
  const std::string ours = "id < 100";
  CHECK(query(store.views() / "picky.db", "SELECT * FROM picky WHERE " + ours) ==
        Rows{"1|kettle|of copper", "7|wok|nice"});
  CHECK(waiting_in(store).size() == 4);
  CHECK(differences(store, view) == 0);
  dislike({});
  retried(store, view);
  CHECK(query(store.views() / "picky.db", "SELECT * FROM picky WHERE " + ours) ==
        Rows{"2|teapot|of copper", "7|wok|nice"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE(
    "a row that was given another key keeps what was not sent, also if the old one was left to it",
    "[projections][quarantine][relational]") {
  ShopStore store;
  const RelationalView view =
      named()
          .from(products)
          .group_by(by("id", [](const Products& p) { return liked(p.category()); }))
          .aggregate(count("n"), top("all", 9, &Products::description))
          .where([](const Record& r) { return r["n"].integer() != 1 || !liked("lonely").empty(); })
          .into(cache_table{.key = text("id"), .columns = {integer("n"), text("all")}});
  store.commit({inserted(product(1, "kettle", "rust")), inserted(product(2, "pan", "tin")),
                inserted(product(5, "pot", "zinc"))});
  store.commit({deleted(product(5, ""))});
  // Not what that row was when it was deleted for good.
  store.commit({deleted(product(1, "")), inserted(product(1, "kettle", "copper"))});
  must(catch_up(store, view));
  const Dislike lonely({"lonely", "poison"});
  auto bad = product(7, "lamp");
  bad.set_category("poison");  // so that each event is looked at alone
  store.commit({deleted(product(1, "")), moved(product(9, "kettle"), 1, {3}), inserted(bad)});
  must(catch_up(store, view));
  CHECK(waiting_in(store) == Rows{"6|1|1", "7|9|0", "8|7|1"});
  CHECK(must(skip_set_aside(view, store.context(), {"public.products", "1"}, kByTest)).folded == 1);
  const Rows rows{R"(things|3|["tin","copper","copper"])"};
  CHECK(shown(store) == rows);
  CHECK(differences(store, view) == 0);
  dislike({});
  must(build_generation(view, store.context()));
  CHECK(shown(store) == Rows{R"(poison|1|["nice"])", rows[0]});
}

TEST_CASE("nothing waits behind a truncate in a declared view either",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = categories();
  store.commit({inserted(product(1, "kettle")), inserted(product(3, "poison"))});
  must(catch_up(store, view));
  store.commit(
      {truncated("products"), inserted(product(4, "pan")), inserted(product(5, "poison"))});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"things|1|pan"});
  CHECK(waiting_in(store) == Rows{"4|5|1"});
  CHECK(audit_of(store) == Rows{"truncated|1|3"});
  CHECK(differences(store, view) == 0);
  dislike({});
  store.commit({inserted(product(3, "cured"))});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"things|2|pan"});
  retried(store, view);
  CHECK(shown(store) == Rows{"things|3|poison"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE("a truncate that a declared view can't take stops it",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const RelationalView view =
      named()
          .from(orders.left_join(customers, &Orders::customer_id,
                                 [](const Orders&, const TableRow<Customers>* c) {
                                   return Record{{"name", liked(c ? (*c)->name() : "nobody")}};
                                 }))
          .into(cache_table{.key = integer("id"), .columns = {text("name")}});
  store.commit({inserted(customer(1, "Ada")), inserted(order(1, 1, 5)), inserted(order(2, 1, 5))});
  must(catch_up(store, view));
  const Dislike nobody({"nobody"});
  store.commit({inserted(order(3, 1, 5)), truncated("customers")});
  const std::string failure = failure_of(store, view);
  CHECK_THAT(failure, Catch::Contains("offset 4 of public.customers") &&
                          Catch::Contains("I don't like nobody"));
  CHECK(shown(store) == Rows{"1|Ada", "2|Ada"});
  dislike({});
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"1|nobody", "2|nobody", "3|nobody"});
}

TEST_CASE("what the key of a table is called is known also where rows of it are set aside",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = named().from(customers).into(
      cache_table{.key = text("customer"), .columns = {text("name")}}, [](const Customers& c) {
        return Record{{"name", liked(c.name())}};
      });
  store.commit({inserted(customer(1, "Ada")), inserted(customer(3, "poison"))});
  must(catch_up(store, view));
  CHECK(query(store.views() / "picky.db", "SELECT * FROM picky") == Rows{"1|Ada"});
  auto other = customers_table();
  other.columns[0].key = false;
  other.columns[2].key = true;
  store.record(other);
  auto change = inserted(customer(1, "Ann"));
  v1::Change encoded;
  REQUIRE(encoded.ParseFromString(change.payload));
  encoded.set_schema(2);
  change.payload = encoded.SerializeAsString();
  change.key = "Ann@example.com";
  store.commit({change});
  CHECK_THAT(failure_of(store, view), Catch::Contains("was (id) and is (email)"));
}

TEST_CASE("more keys than a declared view may set aside stop it",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison({"a", "b", "c"});
  RelationalView view = names();
  view.set_aside_at_most(2);
  store.commit({inserted(product(1, "a")), inserted(product(2, "b")), inserted(product(4, "d"))});
  must(catch_up(store, view));
  store.commit({inserted(product(5, "e")), inserted(product(3, "c"))});
  CHECK_THAT(failure_of(store, view), Catch::Contains("set aside already: 2 keys with 2 events") &&
                                          Catch::Contains("offset 4") &&
                                          Catch::Contains("I don't like c"));
  const auto status = must(status_of(view, store.context()));
  CHECK(status.state == "failed");
  CHECK(status.quarantine.keys == 2);
  CHECK(shown(store) == Rows{"4|d|nice"});

  RelationalView strict = names().set_aside_at_most(0);
  ShopStore other;
  other.commit({inserted(product(4, "d"))});
  must(catch_up(other, strict));
  other.commit({inserted(product(5, "e")), inserted(product(3, "c"))});
  CHECK_THAT(failure_of(other, strict), Catch::Contains("its row '3' can't be made"));
  CHECK(shown(other) == Rows{"4|d|nice"});
  dislike({});
  must(catch_up(store, view));
  CHECK(retried(store, view).folded == 2);
  CHECK(shown(store).size() == 5);
}

TEST_CASE("what was skipped is left out of a declared view wherever it is made anew",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison({"ill", "worse"});
  const RelationalView view = names();
  store.commit({inserted(product(1, "kettle")), inserted(product(3, "ill"))});
  must(catch_up(store, view));
  store.commit({updated<Products>(product(3, "cured"))});
  const Offset then = store.end();
  store.commit({updated<Products>(product(3, "worse"))});
  store.commit({updated<Products>(product(3, "well"))});
  must(catch_up(store, view));
  const auto once = must(skip_set_aside(view, store.context(), {}, kByTest));
  CHECK(once.skipped == 1);
  CHECK(once.folded == 1);
  REQUIRE(once.failed.size() == 1);
  CHECK(once.failed[0].offset == Offset{3});
  CHECK(shown(store) == Rows{"1|kettle|nice", "3|cured|nice"});
  CHECK(differences(store, view) == 0);
  CHECK(must(skip_set_aside(view, store.context(), {}, kByTest)).left.events == 0);
  const Rows rows{"1|kettle|nice", "3|well|nice"};
  CHECK(shown(store) == rows);
  CHECK(audit_of(store) == Rows{"skipped|1|3", "retried|2|3", "skipped|3|3", "retried|4|3"});
  must(build_generation(view, store.context()));
  CHECK(shown(store) == rows);
  CHECK(must(verify_view(view, store.context())).left_out.skipped == 2);
  const auto as_of = store.directory() / "then.db";
  CHECK(must(build_as_of(view, store.context(), AsOf(then), as_of)).set_aside.keys == 0);
  CHECK(query(as_of, "SELECT name FROM picky ORDER BY id") == Rows{"kettle", "cured"});
  must(roll_back(view, store.context()));
  CHECK(shown(store) == rows);
  CHECK(differences(store, view) == 0);
  dislike({"ill", "worse", "well"});
  const auto taken_back = must(build_generation(view, store.context(), {.with_skipped = true}));
  CHECK(taken_back.set_aside.skipped == 0);
  CHECK(taken_back.set_aside.keys == 1);
}

TEST_CASE("a rollback brings back what waited in the older generation of a declared view",
          "[projections][quarantine][relational][rollback]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = names();
  store.commit({inserted(product(2, "pan")), inserted(product(3, "poison"))});
  must(catch_up(store, view));
  dislike({});
  must(build_generation(view, store.context()));
  CHECK(shown(store) == Rows{"2|pan|nice", "3|poison|nice"});
  dislike({"poison"});
  store.commit({inserted(product(4, "pot")), updated<Products>(product(3, "cured")),
                inserted(product(5, "poison")), updated<Products>(product(2, "wok"))});
  must(roll_back(view, store.context()));
  CHECK(shown(store) == Rows{"2|wok|nice", "4|pot|nice"});
  CHECK(waiting_in(store) == Rows{"1|3|1", "3|3|0", "4|5|1"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE("rebuild --diff shows what waits in the live generation of a declared view only",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = names();
  store.commit({inserted(product(1, "kettle")), inserted(product(3, "poison"))});
  must(catch_up(store, view));
  std::optional<VerifyReport> seen;
  const BuildHooks only_equal{.may_switch = [&](const VerifyReport& report) {
    seen = report;
    return report.different == 0;
  }};
  CHECK(must(build_generation(view, store.context(), only_equal)).switched);
  dislike({});
  CHECK_FALSE(must(build_generation(view, store.context(), only_equal)).switched);
  REQUIRE(seen->differences.size() == 1);
  CHECK(seen->differences[0].key == "3");
  CHECK(seen->differences[0].live == kNone);
}

TEST_CASE("an error that is no row's fault stops a declared view and sets nothing aside",
          "[projections][quarantine][relational]") {
  ShopStore store;
  bool has_memory = false;
  const RelationalView view = named().from(products).into(
      cache_table{.key = integer("id"), .columns = {text("name")}}, [&](const Products& p) {
        if (!has_memory && p.id() == 3) throw std::bad_alloc();
        return Record{{"name", p.name()}};
      });
  store.commit({inserted(product(1, "kettle")), inserted(product(3, "pan"))});
  const auto stopped = catch_up(store, view);
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kUnavailable);
  has_memory = true;
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"1|kettle", "3|pan"});
  CHECK(must(status_of(view, store.context())).quarantine.keys == 0);

  const RelationalView grouped = named("grouped")
                                     .from(products)
                                     .group_by(by("name",
                                                  [&](const Products& p) {
                                                    if (!has_memory) throw std::bad_alloc();
                                                    return p.name();
                                                  }))
                                     .aggregate(count("n"))
                                     .into(cache_table{});
  has_memory = false;
  const auto none = catch_up(store, grouped);
  REQUIRE_FALSE(none);
  CHECK(none.error().code() == ErrorCode::kUnavailable);

  EncodedChange damaged = inserted(product(9, "pot"));
  v1::Change change;
  REQUIRE(change.ParseFromString(damaged.payload));
  change.set_after("\x0a\xff");
  damaged.payload = change.SerializeAsString();
  store.commit({damaged});
  const auto corrupt = catch_up(store, view);
  REQUIRE_FALSE(corrupt);
  CHECK(corrupt.error().code() == ErrorCode::kCorruption);
}

TEST_CASE("a combination that only a portion's order makes is no reason to set anything aside",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const RelationalView view =
      named()
          .from(orders.join(customers, &Orders::customer_id,
                            [](const Orders& o, const TableRow<Customers>* c) {
                              if (o.status() != (*c)->name()) throw std::runtime_error("no match");
                              return Record{{"name", o.status()}};
                            }))
          .group_by(by("id", [](const Record& r) { return std::string(r["name"].text()); }))
          .aggregate(count("n"))
          .into(cache_table{});
  store.commit({inserted(customer(1, "Ada")), inserted(order_of(1, 1, "Ada"))});
  must(catch_up(store, view));
  // Orders go through first, and meet the customer as it was before.
  std::vector<EncodedChange> changes{deleted(order(1, 1, 5), true),
                                     updated<Customers>(customer(1, "Bob"))};
  for (int i = 2; i < 60; ++i) changes.push_back(inserted(order_of(i, 1, "Bob")));
  store.commit(changes);
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"Bob|58"});
  CHECK(must(status_of(view, store.context())).quarantine.keys == 0);
  must(build_generation(view, store.context()));
  CHECK(shown(store) == Rows{"Bob|58"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE("what was folded beside a worker of a declared view is known to it",
          "[projections][quarantine][relational]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view =
      named()
          .from(orders.join(customers, &Orders::customer_id,
                            [](const Orders& o, const TableRow<Customers>* c) {
                              return Record{{"status", liked(o.status())}, {"name", (*c)->name()}};
                            }))
          .group_by(by("id", [](const Record& r) { return std::string(r["name"].text()); }))
          .aggregate(count("n"))
          .into(cache_table{});
  store.commit({inserted(customer(1, "Ada"))});
  must(catch_up(store, view));
  Running worker(store, view);
  store.commit({inserted(order_of(1, 1, "poison"))});
  REQUIRE(comes_true([&] { return has_folded(store, "picky", store.end()); }));
  CHECK(waiting_in(store) == Rows{"1|1|1"});
  dislike({});  // no function runs just now
  CHECK(retried(store, view).folded == 1);
  CHECK(shown(store) == Rows{"Ada|1"});
  store.commit({updated<Customers>(customer(1, "Bob")), inserted(order_of(2, 1, "x"))});
  REQUIRE(comes_true([&] { return has_folded(store, "picky", store.end()); }));
  CHECK(shown(store) == Rows{"Bob|2"});
  CHECK(worker.stop());
  CHECK(differences(store, view) == 0);
}

TEST_CASE("an event that a declared view can't decode waits with its stream",
          "[projections][quarantine][relational][events]") {
  ShopStore store;
  const RelationalView view = named()
                                  .from(events("visit"))
                                  .group_by(by("id", &Event<>::key))
                                  .aggregate(count("n"), sum("cents", member("cents")))
                                  .into(cache_table{.key = text("id")});
  store.append("visit", "ada", "Seen", R"({"cents":1})");
  store.append("visit", "bob", "Seen", R"({"cents":)");
  store.append("visit", "ada", "Seen", R"({"cents":2})");
  must(catch_up(store, view));
  store.append("visit", "bob", "Seen", R"({"cents":4})");
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"ada|2|3"});
  CHECK(waiting_in(store) == Rows{"1|bob|1", "3|bob|0"});
  CHECK_THAT(
      must(list_set_aside(view, store.context())).at(0).reason.value_or(""),
      Catch::Contains("event at offset 1 of visit, key 'bob'") && Catch::Contains("is no JSON"));
  CHECK(differences(store, view) == 0);
  must(build_generation(view, store.context()));
  CHECK(waiting_in(store) == Rows{"1|bob|1", "3|bob|0"});
  const auto skipped = must(skip_set_aside(view, store.context(), {"visit", "bob"}, kByTest));
  CHECK(skipped.folded == 1);
  CHECK(shown(store) == Rows{"ada|2|3", "bob|1|4"});
  store.erase("visit", "bob");
  must(catch_up(store, view));
  CHECK(shown(store) == Rows{"ada|2|3"});
  CHECK(differences(store, view) == 0);
}

TEST_CASE("a poison among many events costs a rebuild little more than once more",
          "[projections][quarantine][relational]") {
  const auto level = spdlog::get_level();
  spdlog::set_level(spdlog::level::off);
  ShopStore store(true, 1 << 14);
  const Dislike poison;
  const int count = 20'000, bad = GENERATE(1, 10);
  INFO(bad << " bad ones");
  std::vector<EncodedChange> changes;
  for (int i = 0; i < count; ++i) {
    const bool is_bad = i % (count / bad) == count / bad / 2;
    changes.push_back(inserted(product(i, is_bad ? "poison" : "cup")));
    if (changes.size() < 500) continue;
    store.commit(changes);
    changes.clear();
  }
  const RelationalView view = categories();
  calls = 0;
  const auto built = must(build_generation(
      view, store.context(),
      {.events_per_commit = GENERATE(std::uint64_t{1'000}, std::uint64_t{200'000})}));
  CHECK(built.set_aside.keys == static_cast<std::uint64_t>(bad));
  CHECK(calls < static_cast<std::uint64_t>(6 * count));
  CHECK(shown(store) == Rows{"things|" + std::to_string(count - bad) + "|cup"});
  spdlog::set_level(level);
}

TEST_CASE(
    "what a declared view wrote before its time, for want of memory, is taken back with the rest",
    "[.projections_spill]") {
  ShopStore store;
  const Dislike poison;
  const RelationalView view = named().from(products).into(
      cache_table{.key = integer("id"), .columns = {text("name"), integer("letters")}},
      [](const Products& p) {
        return Record{{"name", liked(p.name())},
                      {"letters", static_cast<std::int64_t>(p.description().size())}};
      });
  const std::string large(std::size_t{8} << 20, 'x');  // 34 of them are more than is kept in memory
  const auto changes = [&](int begin, int end) {
    std::vector<EncodedChange> all;
    for (int i = begin; i < end; ++i)
      all.push_back(inserted(product(i, i % 20 == 7 ? "poison" : "cup", large)));
    return all;
  };
  store.commit(changes(0, 1));
  must(catch_up(store, view));
  store.commit(changes(1, 40));
  must(catch_up(store, view));
  CHECK(shown(store).size() == 38);
  CHECK(waiting_in(store) == Rows{"7|7|1", "27|27|1"});
  dislike({});
  CHECK(retried(store, view).folded == 2);
  CHECK(query(store.views() / "picky.db", "SELECT count(*), sum(letters) FROM picky") ==
        Rows{"40|" + std::to_string(40 * large.size())});
}
