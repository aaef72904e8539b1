#include "projections/engine/status.h"
#include "tests/projections/disliked_names.h"

// Whichever function of a declared view it is that can't take a row.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;

namespace {

/// A view, with rows that it takes and one that it does not, whose key is 3.
struct Kind {
  std::string what;
  RelationalView view;
  std::vector<EncodedChange> good, bad;
  std::string reason;  ///< A part of it.
};

std::vector<Kind> kinds() {
  const std::vector<EncodedChange> pots{inserted(product(1, "kettle")),
                                        inserted(product(2, "pan"))};
  const std::vector<EncodedChange> poison{inserted(product(3, "poison"))};
  auto priceless = product(3, "pot");
  priceless.set_price("a fortune");
  const std::vector<EncodedChange> sold{inserted(customer(1, "Ada")), inserted(order_of(1, 1, "x")),
                                        inserted(order_of(2, 1, "y"))};
  const std::vector<EncodedChange> bad_order{inserted(order_of(3, 1, "poison"))};
  auto nowhere = customer(3, "Bob");
  auto somewhere = customer(1, "Ada");
  somewhere.set_city("Bern");
  const auto with_name = [](const Orders& o, const TableRow<Customers>* c) {
    return Record{{"status", liked(o.status())}, {"name", c ? (*c)->name() : "?"}};
  };
  std::vector<Kind> all;
  all.push_back({"where", categories(), pots, poison, "I don't like poison"});
  all.push_back({"into", names(), pots, poison, "its row '3' can't be made: I don't like poison"});
  all.push_back({"map",
                 named()
                     .from(products)
                     .map([](const Products& p) { return liked(p.name()); })
                     .group_by(by("id", [](const std::string& name) { return name; }))
                     .aggregate(count("n"))
                     .into(cache_table{}),
                 pots, poison, "row '3' of public.products"});
  all.push_back({"flat_map",
                 named()
                     .from(products)
                     .flat_map([](const Products& p) {
                       return std::vector<std::string>{p.category(), liked(p.name())};
                     })
                     .group_by(by("id", [](const std::string& word) { return word; }))
                     .aggregate(count("n"))
                     .into(cache_table{}),
                 pots, poison, "row '3' of public.products"});
  all.push_back({"by",
                 named()
                     .from(products)
                     .group_by(by("id", [](const Products& p) { return liked(p.name()); }))
                     .aggregate(count("n"))
                     .into(cache_table{}),
                 pots, poison, "row '3' of public.products"});
  all.push_back(
      {"an aggregate's expression",
       named()
           .from(products)
           .group_by(by("id", [](const Products& p) { return p.category(); }))
           .aggregate(count("n"),
                      projections::max("name", [](const Products& p) { return liked(p.name()); }))
           .into(cache_table{}),
       pots, poison, "row '3' of public.products"});
  all.push_back({"a number that is none",
                 named()
                     .from(products)
                     .group_by(by("id", [](const Products& p) { return p.category(); }))
                     .aggregate(projections::min("cheapest", decimal(&Products::price)), count("n"))
                     .into(cache_table{}),
                 pots,
                 {inserted(priceless)},
                 "'a fortune' is no decimal number"});
  all.push_back({"a fold of one's own",
                 named()
                     .from(products)
                     .group_by(by("id", [](const Products& p) { return p.category(); }))
                     .aggregate(fold("names", std::string(),
                                     [](std::string so_far, const Products& p) {
                                       return so_far + liked(p.name()) + " ";
                                     }))
                     .into(cache_table{}),
                 pots, poison, "I don't like poison"});
  all.push_back({"a fold that takes back",
                 named()
                     .from(products)
                     .group_by(by("id", [](const Products& p) { return p.category(); }))
                     .aggregate(fold(
                         "letters", std::int64_t{0},
                         [](std::int64_t sum, const Products& p) {
                           return sum + static_cast<std::int64_t>(liked(p.name()).size());
                         },
                         take_back([](std::int64_t sum, const Products& p) {
                           return sum - static_cast<std::int64_t>(p.name().size());
                         })))
                     .into(cache_table{}),
                 pots, poison, "I don't like poison"});
  all.push_back(
      {"a join's function",
       named()
           .from(orders.join(customers, &Orders::customer_id, with_name))
           .into(cache_table{.key = integer("id"), .columns = {text("status"), text("name")}},
                 [](const Record& r) { return r; }),
       sold, bad_order, "I don't like poison"});
  all.push_back(
      {"a join's function before a group",
       named()
           .from(orders.left_join(customers, &Orders::customer_id, with_name))
           .group_by(by("id", [](const Record& r) { return std::string(r["name"].text()); }))
           .aggregate(count("n"))
           .into(cache_table{}),
       sold, bad_order, "row '3' of public.orders"});
  all.push_back(
      {"a join by value",
       named()
           .from(orders.join(customers, on(&Orders::customer_id, &Customers::id), with_name))
           .into(cache_table{.key = text("id"), .columns = {text("status"), text("name")}},
                 [](const Record& r) { return r; }),
       sold, bad_order, "I don't like poison"});
  all.push_back(
      {"a reference",
       named()
           .from(orders.left_join(
               customers, [](const Orders& o) { return liked(o.status()) == "x" ? 1 : 2; },
               [](const Orders& o, const TableRow<Customers>* c) {
                 return Record{{"status", o.status()}, {"name", c ? (*c)->name() : "?"}};
               }))
           .into(cache_table{.key = integer("id"), .columns = {text("status"), text("name")}},
                 [](const Record& r) { return r; }),
       sold, bad_order, "row '3' of public.orders"});
  all.push_back({"a group that is null",
                 named()
                     .from(customers)
                     .group_by(&Customers::city)
                     .aggregate(count("n"))
                     .into(cache_table{.key = text("id")}),
                 {inserted(somewhere)},
                 {inserted(nowhere)},
                 "key is null"});
  return all;
}

}  // namespace

TEST_CASE("F113: whichever function of a declared view fails, the row's key waits and others go on",
          "[projections][quarantine][relational]") {
  const auto first_by = GENERATE("build", "tail");
  for (const Kind& kind : kinds()) {
    INFO(kind.what << ", first by " << first_by);
    const RelationalView& view = kind.view;
    must(view.check());
    ShopStore good, store;
    const Dislike poison;
    good.commit(kind.good);
    must(catch_up(good, view));
    if (first_by == std::string("tail")) must(catch_up(store, view));
    const std::size_t failing = kind.good.size();
    std::vector<EncodedChange> changes = kind.good;
    changes.insert(changes.end(), kind.bad.begin(), kind.bad.end());
    store.commit(changes);
    must(catch_up(store, view));
    CHECK(shown(store) == shown(good));
    const auto waiting = must(list_set_aside(view, store.context()));
    REQUIRE(waiting.size() == 1);
    CHECK(waiting[0].offset.value == failing);
    CHECK(waiting[0].category == kind.bad[0].category);
    CHECK(waiting[0].key == "3");
    CHECK(waiting[0].attempts == 1);
    CHECK_THAT(waiting[0].reason.value_or(""), Catch::Contains(kind.reason));
    const auto status = must(status_of(view, store.context()));
    CHECK(status.state == "stopped");
    CHECK(status.lag == 0);
    CHECK(status.quarantine.keys == 1);
    CHECK(differences(store, view) == 0);
    CHECK(retried(store, view).failed.size() == 1);
    CHECK(must(list_set_aside(view, store.context())).at(0).attempts == 2);
    CHECK(shown(store) == shown(good));
    must(build_generation(view, store.context()));
    CHECK(shown(store) == shown(good));
    CHECK(waiting_in(store) == Rows{std::to_string(failing) + "|3|1"});

    dislike({});
    if (kind.what == "a number that is none" || kind.what == "a group that is null") continue;
    const auto report = retried(store, view);
    CHECK(report.folded == 1);
    CHECK(report.left.events == 0);
    CHECK(shown(store) != shown(good));
    CHECK(differences(store, view) == 0);
    const Rows mended = shown(store);
    must(build_generation(view, store.context()));
    CHECK(shown(store) == mended);
  }
}
