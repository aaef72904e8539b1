// Many views of one store, of which some are slow, fail, or were away for too long.

#include <atomic>
#include <thread>

#include "projections/command/commands.h"
#include "projections/engine/build.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using shop::Products;

namespace {

/// The products' names; `before` is called with each key first.
CacheTable names(const std::string& name, std::function<void(const std::string&)> before = {}) {
  return CacheTable(name, Version{1}, {.key = integer("id"), .columns = {text("name")}})
      .on<Products>("public.products",
                    [before](const Change<Products>& change, CacheTable::Writer& table) {
                      if (before) before(std::string(change.key()));
                      table.put(change.key(), {{"name", change[&Products::name]}});
                    });
}

/// `run` on a thread, as a program of these views does it.
class Program {
 public:
  Program(ShopStore& store, const Views& views)
      : thread_([&store, views, this] {
          code_ = must(run_views(views, store.context(stop_.get_token()), {}));
        }) {}
  int code() {
    if (thread_.joinable()) thread_.join();
    return code_;
  }

 private:
  std::stop_source stop_;
  int code_ = -1;
  std::jthread thread_;
};

}  // namespace

TEST_CASE(
    "F121, F113: of ten views on one store one is slow and one fails, and the others and "
    "whoever appends notice nothing",
    "[projections][worker]") {
  ShopStore store;
  std::atomic<bool> held = true;
  struct Release {
    std::atomic<bool>& held;
    ~Release() { held = false, held.notify_all(); }
  };
  std::vector<CacheTable> tables;
  for (int i = 0; i < 8; ++i) tables.push_back(names("good_" + std::to_string(i)));
  tables.push_back(names("slow", [&](const std::string&) { held.wait(true); }));
  tables.push_back(names("failing", [&](const std::string& key) {
                     if (key == "100") throw std::runtime_error("I don't like it");
                   }).set_aside_at_most(0));
  Views views;
  for (const CacheTable& table : tables) views.push_back(&table);
  const View& slow = *views[8];
  const View& failing = *views[9];

  std::vector<std::string> expected;
  const auto commit = [&](int id) {
    expected.push_back(std::to_string(id) + "|product " + std::to_string(id));
    store.commit({inserted(product(id, "product " + std::to_string(id)))});
  };
  const auto good_ones_show_all = [&] {
    for (int i = 0; i < 8; ++i) {
      const std::string name = "good_" + std::to_string(i);
      if (!has_folded(store, name, store.end()) || rows_of(store, name) != expected) return false;
    }
    return true;
  };
  const auto status = [&](const View& view) { return must(status_of(view, store.context())); };

  commit(1);
  held = false;
  for (const View* view : views) must(catch_up(store, *view));
  held = true;
  Program program(store, views);
  const Release release{held};                  // before the program's end is waited for
  for (int id = 2; id <= 20; ++id) commit(id);  // returns once it is durable
  REQUIRE(comes_true(good_ones_show_all));
  REQUIRE(comes_true([&] { return has_folded(store, "failing", store.end()); }));
  CHECK(status(slow).state == "running");
  CHECK(status(slow).lag == 19);
  CHECK(rows_of(store, "slow").size() == 1);

  commit(99);
  commit(100);
  REQUIRE(comes_true([&] { return status(failing).state == "failed"; }));
  CHECK_THAT(status(failing).reason,
             Catch::Contains("view failing: event at offset 21 of public.products, key '100'") &&
                 Catch::Contains("I don't like it"));
  CHECK(status(failing).lag >= 1);
  CHECK(rows_of(store, "failing").size() < expected.size());
  REQUIRE(comes_true(good_ones_show_all));
  CHECK(status(slow).lag == 21);
  commit(101);  // appending goes on, whatever the views do

  held = false;
  held.notify_all();
  CHECK(program.code() == kExitFailed);
  CHECK(rows_of(store, "slow").size() >= 22);
  // A supervisor starts it again: the others get on, and the one that failed is told again.
  Program again(store, views);
  CHECK(again.code() == kExitFailed);
  CHECK(good_ones_show_all());
  CHECK(rows_of(store, "slow") == expected);
  CHECK(status(slow).lag == 0);
  CHECK(status(failing).state == "failed");
  for (int i = 0; i < 9; ++i)
    CHECK(must(verify_view(*views[static_cast<std::size_t>(i)], store.context())).different == 0);
}

TEST_CASE("F122: a view that lags behind what expires holds it, or is told, and never has a gap",
          "[projections][worker]") {
  ShopStore store;
  const auto view = names("names");
  store.commit({inserted(product(1, "first"))});
  must(catch_up(store, view));
  const Offset folded = checkpoint_of(store, "names").offset;
  store.close();
  const bool holds = GENERATE(true, false);
  {
    StoreOptions options;
    options.segment_bytes = 64 << 10;
    auto log = must(EventStore::open(store.directory(), options));
    std::uint64_t lsn = 1'000'000;
    const auto commit = [&](const NewEvent& event) {
      TransactionInfo transaction;
      transaction.source = {.epoch = 1, .commit = lsn += 100};
      must(log->begin(transaction));
      must(log->add(event));
      const Offset end = must(log->commit(lsn + 50));
      log->request_flush();
      REQUIRE(must(log->wait_durable(end, 0, std::chrono::minutes(1))));
    };
    if (holds) must(log->maintenance().register_consumer("names", folded, ConsumerPolicy::kHold));
    std::mt19937 random(1);
    for (int id = 2; id <= 200; ++id) {
      std::string noise(2'000, ' ');  // that zstd can't make small
      for (char& c : noise) c = static_cast<char>('!' + random() % 90);
      const auto change = inserted(product(id, "late", noise));
      commit(as_event(change));
    }
  }
  const auto millrace = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {MILLRACE_PROGRAM, "log"});
    for (const std::string& word : {std::string("--store"), store.directory().string()})
      words.push_back(word);
    const auto ran = millrace::test::run_command(words);
    INFO(ran.out << ran.err);
    REQUIRE(ran.exit_code == 0);
    return ran.out;
  };
  millrace({"policy", "--category", "public.products", "--set", "expire,max-bytes=20KiB"});
  const std::string compacted = millrace({"compact", "--min-dead", "0"});
  INFO(compacted);
  store.open();
  const auto done = catch_up(store, view);
  if (holds) {
    must(done);
    CHECK(rows_of(store, "names").size() == 200);
    return;
  }
  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::kGone);
  CHECK_THAT(done.error().to_string(), Catch::Contains("OFFSET_GONE"));
  CHECK(rows_of(store, "names") == std::vector<std::string>{"1|first"});  // as it was
  CHECK(checkpoint_of(store, "names").offset == folded);
  must(build_generation(view, store.context()));  // of what the log still has
  CHECK(rows_of(store, "names").size() < 100);
  CHECK(must(verify_view(view, store.context())).different == 0);
  must(catch_up(store, view));
}

TEST_CASE("F122: a view of two tables misses what expired of them, and nothing of a third",
          "[projections][worker]") {
  ShopStore store(true, 1 << 20, 64 << 10);
  const CacheTable view = customer_totals();
  store.commit({inserted(customer(1, "Ada")), inserted(order(1, 1, 100))});
  must(catch_up(store, view));
  const Offset folded = checkpoint_of(store, "customer_totals").offset;
  const std::string filler(1'000, 'x');
  for (int id = 2; id <= 300; ++id)
    store.commit({inserted(product(id, "noise", filler)), inserted(order(id, 1, 100))});
  const bool own = GENERATE(true, false);
  store.expire(own ? "public.orders" : "public.products", 1'000);
  REQUIRE(LogReader::open(store.directory(), {.from = folded}).error().code() == ErrorCode::kGone);

  const auto done = catch_up(store, view);
  if (!own) {
    must(done);
    CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"1|Ada|300|30000"});
    CHECK(must(verify_view(view, store.context())).different == 0);
    return;
  }
  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::kGone);
  CHECK_THAT(done.error().to_string(), Catch::Contains("OFFSET_GONE") &&
                                           Catch::Contains("of public.orders between the offsets"));
  CHECK(rows_of(store, "customer_totals") == std::vector<std::string>{"1|Ada|1|100"});  // as it was
  CHECK(checkpoint_of(store, "customer_totals").offset == folded);
  must(build_generation(view, store.context()));  // of what the log still has
  CHECK(must(verify_view(view, store.context())).different == 0);
  must(catch_up(store, view));
}

TEST_CASE("rebuild makes several views at once, and one that fails keeps none from being made",
          "[projections][rebuild]") {
  ShopStore store;
  store.commit({inserted(product(1, "lamp"))});
  std::atomic<int> folding = 0;
  const auto met = [&](const std::string&) {
    ++folding;
    if (!comes_true([&] { return folding >= 2; })) throw std::runtime_error("nobody else came");
  };
  const CacheTable one = names("one", met).set_aside_at_most(0),
                   two = names("two", met).set_aside_at_most(0),
                   failing = names("failing",
                                   [](const std::string&) {
                                     throw std::runtime_error("I don't like it");
                                   })
                                 .set_aside_at_most(0),
                   last = names("last");
  const Views views{&one, &two, &failing, &last};
  Options options;
  options.jobs = 2;
  CHECK(must(rebuild_views(views, store.context(), options)) == 1);
  for (const char* name : {"one", "two", "last"})
    CHECK(rows_of(store, name) == std::vector<std::string>{"1|lamp"});
  CHECK(status_of(failing, store.context())->state == "unmade");
}
