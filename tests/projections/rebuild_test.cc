#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "tests/projections/joined_totals.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/support/killed_child.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using millrace::test::is_killed_at;

namespace {

/// Rebuilds (or what else `build` does) in a process that is killed at its `step`th step; false if
/// it got to the end before that.
bool rebuild_killed_at(ShopStore& store, const View& view, int step,
                       decltype(&build_generation) build = &build_generation) {
  return is_killed_at(step, [&](const auto& at_step) {
    const Context context = store.context();
    return build(view, context, {.at_step = [&](std::string_view) { at_step(); }}).has_value();
  });
}

/// Without locks and without what SQLite keeps beside a file that was read last.
std::vector<std::string> files_of(const ShopStore& store) {
  std::vector<std::string> names;
  for (const auto& name : must(FileSystem::real().list(store.views())))
    if (name.ends_with(".db")) names.push_back(name);
  return names;
}

}  // namespace

TEST_CASE("a rebuilt view equals the one that followed the store", "[projections][rebuild]") {
  ShopStore store;
  ShopWorkload workload(11);
  const auto search = product_search();
  const auto totals = customer_totals();
  const Context context = store.context();
  for (int i = 0; i < 100; ++i) {
    store.commit(workload.transaction());
    if (i % 10 != 0) continue;
    must(Worker(search, context, {.until_caught_up = true}).run());
    must(Worker(totals, context, {.until_caught_up = true}).run());
  }
  must(Worker(search, context, {.until_caught_up = true}).run());
  must(Worker(totals, context, {.until_caught_up = true}).run());
  const auto live_search = rows_of(store, "product_search"),
             live_totals = rows_of(store, "customer_totals");
  CHECK(must(build_generation(search, context)).generation == 2);
  CHECK(must(build_generation(totals, context)).generation == 2);
  CHECK(rows_of(store, "product_search") == live_search);
  CHECK(rows_of(store, "customer_totals") == live_totals);
  CHECK(live_search == workload.expected_search());
}

TEST_CASE("a rebuild that commits between the halves of a change of key keeps unchanged columns",
          "[projections][rebuild]") {
  ShopStore store(true, 1 << 10);
  std::vector<EncodedChange> rows, moves;
  for (int id = 1; id <= 100; ++id) {
    rows.push_back(inserted(product(id, "name", "description " + std::to_string(id))));
    moves.push_back(deleted(product(id, "")));
    moves.push_back(moved(product(1000 + id, "moved"), id, {3}));
  }
  store.commit(rows);
  store.commit(moves);
  int cut_between_halves = 0;
  const auto reader = must(LogReader::open(store.directory()));
  while (const Batch* batch = must(reader->next()))
    cut_between_halves += batch->first.value > rows.size() && batch->first.value % 2 == 1;
  REQUIRE(cut_between_halves > 0);
  std::vector<std::string> expected;
  for (int id = 1; id <= 100; ++id)
    expected.push_back(std::to_string(1000 + id) + "|moved|description " + std::to_string(id));
  const auto search = product_search();
  const auto cache = product_cache();
  for (const std::uint64_t events : {1, 2, 3, 7}) {
    INFO("a commit after " << events << " events");
    const BuildHooks hooks{.events_per_commit = events};
    must(build_generation(search, store.context(), hooks));
    must(build_generation(cache, store.context(), hooks));
    CHECK(rows_of(store, "product_search", "id, name, description") == expected);
    CHECK(rows_of(store, "product_cache") == expected);
    CHECK(must(verify_view(search, store.context(), hooks)).different == 0);
    CHECK(must(verify_view(cache, store.context(), hooks)).different == 0);
  }
}

TEST_CASE("F114: a rebuild killed at any step leaves the old view live and can be started again",
          "[projections][rebuild]") {
  ShopStore store;
  ShopWorkload workload(5);
  const auto view = product_search();
  for (int i = 0; i < 20; ++i) store.commit(workload.transaction());
  must(build_generation(view, store.context()));
  store.close();  // no other thread may run when this process is copied
  const auto expected = workload.expected_search();
  int step = 1;
  for (; rebuild_killed_at(store, view, step); ++step) {
    INFO("step " << step);
    CHECK(rows_of(store, "product_search") == expected);
    CHECK(must(verify_view(view, store.context())).different == 0);
  }
  CHECK(step > 8);
  CHECK(rows_of(store, "product_search") == expected);
  const auto live = must(status_of(view, store.context())).generation;
  const std::string name = "product_search.";
  CHECK(files_of(store) == std::vector<std::string>{name + std::to_string(live - 1) + ".db",
                                                    name + std::to_string(live) + ".db",
                                                    name + "db"});
}

TEST_CASE("F114: a declared view's rebuild killed at any step leaves the old one live",
          "[projections][rebuild][relational]") {
  ShopStore store;
  ShopWorkload workload(7);
  const auto view = joined_totals();
  for (int i = 0; i < 30; ++i) store.commit(workload.transaction());
  must(build_generation(view, store.context()));
  store.close();
  const auto expected = workload.expected_totals();
  int step = 1;
  for (; rebuild_killed_at(store, view, step); ++step) {
    INFO("step " << step);
    CHECK(rows_of(store, "joined_totals") == expected);
    CHECK(must(verify_view(view, store.context())).different == 0);
  }
  CHECK(step > 8);
  // What it keeps beside its rows is whole, too: it goes on rightly.
  store.open();
  for (int i = 0; i < 30; ++i) store.commit(workload.transaction());
  const Context context = store.context();
  must(Worker(view, context, {.until_caught_up = true}).run());
  CHECK(rows_of(store, "joined_totals") == workload.expected_totals());
}

TEST_CASE(
    "F114: a rollback killed at any step leaves one generation live, and can be started again",
    "[projections][rebuild]") {
  ShopStore store;
  ShopWorkload workload(8);
  const auto search = product_search();
  const auto joined = joined_totals();
  for (const View* view : std::initializer_list<const View*>{&search, &joined}) {
    for (int i = 0; i < 20; ++i) store.commit(workload.transaction());
    must(build_generation(*view, store.context()));
    for (int i = 0; i < 20; ++i) store.commit(workload.transaction());
    must(build_generation(*view, store.context()));
    store.close();
    const auto expected = view == &search ? workload.expected_search() : workload.expected_totals();
    const auto before = must(status_of(*view, store.context())).generation;
    int step = 1;
    for (; rebuild_killed_at(store, *view, step, &roll_back); ++step) {
      INFO(view->name() << ", step " << step);
      CHECK(rows_of(store, view->name()) == expected);
      CHECK(must(verify_view(*view, store.context())).different == 0);
      if (must(status_of(*view, store.context())).generation < before) break;  // it had switched
    }
    CHECK(step > 2);
    CHECK(must(status_of(*view, store.context())).generation < before);
    CHECK(rows_of(store, view->name()) == expected);
    store.open();
  }
}

TEST_CASE("F114: a first build killed at any step leaves nothing in the way",
          "[projections][rebuild]") {
  const auto totals = customer_totals();
  const auto joined = joined_totals();
  for (const View* view : std::initializer_list<const View*>{&totals, &joined}) {
    ShopStore store;
    ShopWorkload workload(6);
    for (int i = 0; i < 20; ++i) store.commit(workload.transaction());
    store.close();
    int step = 1;
    for (; rebuild_killed_at(store, *view, step); ++step) {
      INFO(view->name() << ", step " << step);
      if (std::filesystem::exists(store.views() / (view->name() + ".db")))
        CHECK(rows_of(store, view->name()) == workload.expected_totals());
    }
    CHECK(step > 8);
    CHECK(rows_of(store, view->name()) == workload.expected_totals());
  }
}

TEST_CASE("the generation before the live one is kept and older ones are removed",
          "[projections][rebuild]") {
  ShopStore store;
  const auto view = product_cache();
  store.commit({inserted(product(1, "kettle"))});
  for (int i = 0; i < 4; ++i) must(build_generation(view, store.context()));
  CHECK(files_of(store) ==
        std::vector<std::string>{"product_cache.3.db", "product_cache.4.db", "product_cache.db"});
  CHECK(std::filesystem::read_symlink(store.views() / "product_cache.db") == "product_cache.4.db");
}

TEST_CASE("a rebuild tells how far it is and can be stopped", "[projections][rebuild]") {
  ShopStore store(true, 1 << 10);
  const auto view = product_cache();
  std::vector<EncodedChange> changes;
  for (int id = 1; id <= 100; ++id) changes.push_back(inserted(product(id, "kettle")));
  store.commit(changes);
  std::vector<std::uint64_t> done;
  const BuildHooks watched{.progress = [&](Offset at, Offset end) {
    CHECK(end == store.end());
    done.push_back(at.value);
  }};
  must(build_generation(view, store.context(), watched));
  CHECK(done.size() > 3);
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(done.back() == store.end().value);

  std::stop_source stop;
  const auto stopped = build_generation(view, store.context(stop.get_token()),
                                        {.at_step = [&](std::string_view step) {
                                          if (step == "created") stop.request_stop();
                                        }});
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  CHECK(files_of(store) == std::vector<std::string>{"product_cache.1.db", "product_cache.db"});
}

TEST_CASE("a file in the place of the link is left alone", "[projections][rebuild]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle"))});
  std::filesystem::create_directories(store.views());
  must(write_file_atomically(FileSystem::real(), store.views() / "product_cache.db", "precious"));
  const auto refused = build_generation(product_cache(), store.context());
  REQUIRE_FALSE(refused);
  CHECK_THAT(refused.error().to_string(),
             Catch::Contains("not a link") && Catch::Contains("Move it away"));
  CHECK(must(read_file(FileSystem::real(), store.views() / "product_cache.db", 100)) == "precious");
}

TEST_CASE("a rebuild with other columns is compared by the columns that both have",
          "[projections][rebuild][diff]") {
  ShopStore store;
  store.commit({inserted(product(1, "kettle")), inserted(product(2, "pan"))});
  must(build_generation(product_cache(), store.context()));
  const auto wider =
      CacheTable("product_cache", Version{2},
                 {.key = text("id"), .columns = {text("name"), text("category")}})
          .on<shop::Products>("public.products", [](const Change<shop::Products>& change,
                                                    CacheTable::Writer& table) {
            table.put(
                change.key(),
                {{"name", change.key() == "2" ? Value("wok") : change[&shop::Products::name]}});
          });
  std::optional<VerifyReport> seen;
  const auto stayed = must(build_generation(
      wider, store.context(),
      {.may_switch = [&](const VerifyReport& report) { return seen = report, false; }}));
  CHECK_FALSE(stayed.switched);
  REQUIRE(seen);
  REQUIRE(seen->differences.size() == 3);
  CHECK(seen->differences[0].what == "column");
  CHECK(seen->differences[0].key == "description");
  CHECK(seen->differences[1].key == "category");
  CHECK(seen->differences[2].live == "name = 'pan'");
  CHECK(seen->differences[2].computed == "name = 'wok'");
  CHECK(files_of(store) == std::vector<std::string>{"product_cache.1.db", "product_cache.db"});
}

TEST_CASE("a rebuild that is compared while a worker goes on stands where the live one does",
          "[projections][rebuild][diff]") {
  ShopStore store;
  ShopWorkload workload(4);
  const auto view = product_search();
  for (int i = 0; i < 30; ++i) store.commit(workload.transaction());
  must(Worker(view, store.context(), {.until_caught_up = true}).run());
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 10; ++i) store.commit(workload.transaction());
    int compared = 0;
    const Context context = store.context();
    const auto built =
        must(build_generation(view, context,
                              {.at_step =
                                   [&](std::string_view step) {
                                     if (step == "indexed")
                                       must(Worker(view, context, {.until_caught_up = true}).run());
                                   },
                               .may_switch =
                                   [&](const VerifyReport& report) {
                                     ++compared;
                                     CHECK(report.offset == store.end());
                                     CHECK(report.different == 0);
                                     return true;
                                   }}));
    CHECK(compared == 1);
    CHECK(built.checkpoint.offset == store.end());
    CHECK(rows_of(store, "product_search") == workload.expected_search());
  }
}

TEST_CASE("verify names a changed, a missing and a foreign row", "[projections][verify]") {
  ShopStore store;
  const auto view = product_search();
  store.commit(
      {inserted(product(1, "kettle")), inserted(product(2, "pan")), inserted(product(3, "pot"))});
  must(build_generation(view, store.context()));
  CHECK(must(verify_view(view, store.context())).different == 0);
  {
    const auto database =
        must(sqlite::Database::open(store.views() / "product_search.db", sqlite::Mode::kLive));
    must(database->execute("UPDATE product_search SET price = '0.01' WHERE rowid = 1"));
    must(database->execute("DELETE FROM product_search WHERE rowid = 2"));
    must(database->execute("INSERT INTO product_search(rowid, id, name) VALUES(9, 9, 'ghost')"));
  }
  const auto report = must(verify_view(view, store.context()));
  CHECK(report.different >= 3);
  REQUIRE(report.differences.size() >= 3);
  CHECK(report.differences[0].key == "1");
  CHECK(report.differences[0].live == "price = '0.01'");
  CHECK(report.differences[0].computed == "price = '19.90'");
  CHECK(report.differences[1].key == "2");
  CHECK(report.differences[1].live == "(none)");
  CHECK(report.differences[2].key == "9");
  CHECK(report.differences[2].computed == "(none)");
  // What the inverted index holds of it is found too.
  CHECK(
      std::any_of(report.differences.begin(), report.differences.end(), [](const auto& difference) {
        return difference.what == "word" && difference.key == "'ghost'";
      }));
  CHECK(files_of(store) == std::vector<std::string>{"product_search.1.db", "product_search.db"});
}
