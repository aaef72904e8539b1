#include "projections/memory_view.h"

#include <atomic>
#include <thread>

#include "examples/cart/cart.h"
#include "projections/command/commands.h"
#include "projections/engine/as_of.h"
#include "projections/engine/retry.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/testing.h"
#include "projections/wait.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/projections/tally.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using namespace std::chrono_literals;
using shop::Customers;
using shop::Orders;
using Lines = std::vector<std::string>;

namespace {

/// No snapshot but those that there have to be.
MemoryViewOptions seldom() { return {.snapshot_events = UINT64_MAX, .snapshot_interval = 24h}; }
/// One with each commit.
MemoryViewOptions always() { return {.snapshot_events = 1, .snapshot_interval = 0ms}; }

/// Each transaction is shown, and committed where the view wants that.
WorkerOptions one_by_one() { return {.events_per_commit = 1, .commit_interval = {}}; }

ViewPlace place_of(const ShopStore& store) { return {store.directory(), store.views(), "tally"}; }

bool shows(const MemoryView<Tally>& view, Offset end) {
  return view.shown() && *view.shown() >= end;
}

/// What the live file's snapshot has.
Lines snapshot_in(const ShopStore& store, const MemoryView<Tally>& view) {
  return must(view.load(store.views() / "tally.db")).lines();
}

void change_file(const ShopStore& store, const std::string& sql) {
  const auto database =
      must(sqlite::Database::open(store.views() / "tally.db", sqlite::Mode::kLive));
  must(database->execute(sql));
}

/// A tally that is written down in another way.
struct Other : Tally {
  static constexpr std::uint32_t kFormat = 2;
  static Result<Other> decode(std::string_view) { return Other{}; }
};

/// Counts the changes that the view's functions are called with.
struct Counted {
  std::atomic<int> calls = 0;
  MemoryView<Tally> view = tally(seldom(), [this](auto&&...) { ++calls; });
};

}  // namespace

TEST_CASE("a view in memory equals the tables, and a start folds only what came after its snapshot",
          "[projections][memory]") {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    INFO("seed " << seed);
    ShopStore store;
    ShopWorkload workload(seed);
    for (int round = 0; round < 8; ++round) {
      const Offset begin = store.end();
      for (int i = 0; i < 15; ++i) store.commit(workload.transaction());
      Counted counted;  // as in another process: nothing is in memory
      CHECK_FALSE(counted.view.read([](const Tally&) {}));
      CHECK_FALSE(counted.view.shown());
      must(catch_up(store, counted.view));
      CHECK(lines_of(counted.view) == workload.expected_totals());
      CHECK(counted.view.shown() == store.end());
      CHECK(static_cast<std::uint64_t>(counted.calls) <= store.end().value - begin.value);
      CHECK(snapshot_in(store, counted.view) == workload.expected_totals());
      CHECK(checkpoint_of(store, "tally").offset == store.end());
    }
    CHECK(must(verify_view(tally(), store.context())).different == 0);
  }
}

TEST_CASE("snapshots are written where they are due, and else nothing but what is shown",
          "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  const auto by_events = tally({.snapshot_events = 3, .snapshot_interval = 24h});
  {
    Running running(store, by_events);
    REQUIRE(comes_true([&] { return shows(by_events, store.end()); }));
    for (int i = 1; i <= 7; ++i) {
      store.commit({inserted(order(i, 1, 100))});
      REQUIRE(must(wait_until_folded(place_of(store), {}, 30s)));
      CHECK(lines_of(by_events) ==
            Lines{"1|Ada|" + std::to_string(i) + "|" + std::to_string(i * 100)});
      // The build's own; then after three events each.
      const int kept = i / 3 * 3;
      CHECK(checkpoint_of(store, "tally").offset.value == static_cast<std::uint64_t>(kept + 1));
      CHECK(snapshot_in(store, by_events) ==
            Lines{"1|Ada|" + std::to_string(kept) + "|" + std::to_string(kept * 100)});
    }
    must(running.stop());
  }
  CHECK(checkpoint_of(store, "tally").offset == store.end());  // an orderly stop
  CHECK(snapshot_in(store, by_events) == Lines{"1|Ada|7|700"});

  const auto by_time = tally({.snapshot_events = UINT64_MAX, .snapshot_interval = 20ms});
  Running running(store, by_time);
  REQUIRE(comes_true([&] { return shows(by_time, store.end()); }));
  store.commit({inserted(order(8, 1, 100))});
  REQUIRE(comes_true([&] { return checkpoint_of(store, "tally").offset == store.end(); }));
  CHECK(snapshot_in(store, by_time) == Lines{"1|Ada|8|800"});
}

TEST_CASE("a reader of a view in memory sees whole transactions only, and never an older one",
          "[projections][memory]") {
  ShopStore store(true, 16 << 10);
  const auto view = tally({.snapshot_events = 7, .snapshot_interval = 1ms});
  const std::string filler(300, 'x');
  const auto commit_version = [&](int version) {
    std::vector<EncodedChange> changes;
    for (int id = 1; id <= 200; ++id) {
      const Customers row = customer(id, "v" + std::to_string(version) + filler);
      changes.push_back(version == 0 ? inserted(row) : updated<Customers>(row));
    }
    store.commit(changes);
  };
  commit_version(0);
  Running running(store, view, one_by_one());
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    for (int version = 1; version <= 25; ++version) commit_version(version);
    done = true;
  });
  std::atomic<int> looks = 0, faults = 0;
  const auto look = [&] {
    for (int last = 0; !done; ++looks) {
      const auto seen = view.read([](const Tally& tally) {
        std::set<std::string> names;
        for (const auto& [id, customer] : tally.customers) names.insert(customer.name);
        return std::pair(tally.customers.size(), names);
      });
      const bool whole = seen && seen->first == 200 && seen->second.size() == 1;
      const int version = whole ? std::stoi(seen->second.begin()->substr(1)) : -1;
      if (version < last) ++faults;
      last = version;
    }
  };
  std::jthread one(look), two(look);
  writer.join(), one.join(), two.join();
  CHECK(looks > 0);
  CHECK(faults == 0);
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  CHECK(lines_of(view)[0] == "1|v25" + filler + "|0|0");
  must(running.stop());
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("a worker that is stopped in the middle of a transaction leaves nothing of it",
          "[projections][memory]") {
  ShopStore store(true, 1 << 10);
  store.commit({inserted(customer(1, "Ada"))});
  std::stop_source* stop_at_40 = nullptr;
  const auto view = tally(seldom(), [&](std::string_view, std::string_view key, Offset) {
    if (stop_at_40 != nullptr && key == "40") stop_at_40->request_stop();
  });
  std::stop_source stop;
  stop_at_40 = &stop;
  const Context context = store.context(stop.get_token());
  Worker worker(view, context, one_by_one());
  Result<void> ended;
  std::jthread thread([&] { ended = worker.run(); });
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  std::vector<EncodedChange> changes;
  for (int id = 2; id <= 80; ++id)
    changes.push_back(inserted(customer(id, "one of many " + std::to_string(id))));
  store.commit(changes);
  thread.join();
  must(ended);
  CHECK(checkpoint_of(store, "tally").offset.value == 1);
  CHECK(snapshot_in(store, view) == Lines{"1|Ada|0|0"});
  const auto read = view.read([](const Tally&) {});  // neither a half, nor a wait without an end
  REQUIRE_FALSE(read);
  CHECK(read.error().code() == ErrorCode::kUnavailable);
  CHECK_FALSE(view.shown());
  stop_at_40 = nullptr;
  must(catch_up(store, view));
  CHECK(lines_of(view).size() == 80);
}

TEST_CASE("a snapshot of another version, format or shape is refused with the difference",
          "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  must(catch_up(store, tally()));
  const auto refusal = [&](const View& view) {
    const auto done = catch_up(store, view);
    REQUIRE_FALSE(done);
    CHECK(done.error().code() == ErrorCode::kFailedPrecondition);
    CHECK(done.error().to_string().find("shop rebuild tally") != std::string::npos);
    return done.error().message();
  };
  CHECK(refusal(tally({}, {}, Version{2})).find("of version 1, the program has version 2") !=
        std::string::npos);
  const auto take = [](const Change<Customers>&, Tally&) {};
  CHECK(refusal(memory_view<Other>("tally", Version{1}).on<Customers>("public.customers", take))
            .find("\n    - in memory, state format 1") != std::string::npos);
  CHECK(refusal(memory_view<Tally>("tally", Version{1}).on<Customers>("public.customers", take))
            .find("\n    - from public.orders with old rows") != std::string::npos);
  CHECK(must(status_of(tally({}, {}, Version{2}), store.context())).state == "refused");
  must(catch_up(store, tally()));
}

TEST_CASE("a damaged snapshot is found, and a rebuild mends it", "[projections][memory]") {
  ShopStore store;
  for (int id = 1; id <= 50; ++id) store.commit({inserted(customer(id, "Ada"))});
  const auto view = tally();
  must(catch_up(store, view));
  const std::string damage = GENERATE(
      "UPDATE millrace_memory_part SET bytes = CAST(replace(bytes, '7|Ada', '7|Eve') AS BLOB)",
      "UPDATE millrace_memory_part SET bytes = CAST(substr(bytes, 2) AS BLOB)",
      "DELETE FROM millrace_memory_part", "DELETE FROM millrace_memory",
      "INSERT INTO millrace_memory_part VALUES(9, x'00')",
      "UPDATE millrace_memory SET checksum = checksum + 1");
  INFO(damage);
  change_file(store, damage);
  const auto done = catch_up(store, tally());
  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::kCorruption);
  CHECK(done.error().message().find("snapshot of the view's state is damaged") !=
        std::string::npos);
  CHECK(done.error().to_string().find("`rebuild`") != std::string::npos);
  const auto verified = verify_view(view, store.context());
  REQUIRE_FALSE(verified);
  CHECK(verified.error().code() == ErrorCode::kCorruption);
  CHECK(must(status_of(view, store.context())).state == "failed");
  must(build_generation(view, store.context()));
  const auto again = tally();
  must(catch_up(store, again));
  CHECK(lines_of(again).size() == 50);
}

TEST_CASE("a snapshot that its type can't decode is told apart from a damaged one",
          "[projections][memory]") {
  struct Fickle : Tally {
    static Result<Fickle> decode(std::string_view bytes) {
      if (bytes.empty()) return Fickle{};
      if (bytes.size() % 2 == 0) throw std::runtime_error("it is even");
      return Error(ErrorCode::kInvalidArgument, "it is odd");
    }
  };
  ShopStore store;
  store.commit({inserted(customer(1, GENERATE("Ada", "Adah")))});
  const auto view = memory_view<Fickle>("fickle", Version{1})
                        .on<Customers>("public.customers", [](const auto& change, Fickle& state) {
                          state.customers[1].name = change.after()->name();
                        });
  const auto done = catch_up(store, view);
  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(done.error().message().find("can't be decoded") != std::string::npos);
  CHECK((done.error().message().find("threw: it is even") != std::string::npos ||
         done.error().message().find("it is odd") != std::string::npos));
  CHECK(done.error().to_string().find("kFormat") != std::string::npos);
}

TEST_CASE("verify and rebuild --diff name the rows of a state that differ",
          "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada")), inserted(customer(2, "Bob"))});
  std::string name_of_2;
  const auto view = memory_view<Tally>("tally", Version{1})
                        .on<Customers>("public.customers", [&](const auto& change, Tally& state) {
                          const auto id = change.after()->id();
                          state.customers[id].name = id == 2 ? name_of_2 : change.after()->name();
                        });
  name_of_2 = "Bob";
  must(catch_up(store, view));
  CHECK(must(verify_view(view, store.context())).compared == 2);
  name_of_2 = "Eve";
  const auto report = must(verify_view(view, store.context()));
  CHECK(report.different == 1);
  REQUIRE(report.differences.size() == 1);
  CHECK(report.differences[0].what == "row");
  CHECK(report.differences[0].key == "'2'");
  CHECK(report.differences[0].live == "value = 'Bob, 0 orders, 0 cents'");
  CHECK(report.differences[0].computed == "value = 'Eve, 0 orders, 0 cents'");

  std::uint64_t different = 0;
  const auto kept = must(build_generation(view, store.context(), {.may_switch = [&](const auto& r) {
                                            different = r.different;
                                            return false;
                                          }}));
  CHECK(different == 1);
  CHECK_FALSE(kept.switched);
  CHECK(snapshot_in(store, tally()) == Lines{"1|Ada|0|0", "2|Bob|0|0"});
}

TEST_CASE("a state without rows is compared by its bytes", "[projections][memory]") {
  struct Sum {
    std::int64_t cents = 0;
    std::string encode() const { return std::to_string(cents); }
    static Result<Sum> decode(std::string_view bytes) {
      return Sum{std::stoll(std::string(bytes))};
    }
  };
  ShopStore store;
  std::int64_t wrong = 0;
  const auto view = memory_view<Sum>("sum", Version{1})
                        .on<Orders>("public.orders", [&](const Change<Orders>& change, Sum& sum) {
                          sum.cents += change.after()->total_cents() + wrong;
                        });
  store.commit({inserted(order(1, 1, 5)), inserted(order(2, 1, 6))});
  must(catch_up(store, view));
  CHECK(must(view.read([](const Sum& sum) { return sum.cents; })) == 11);
  CHECK(must(verify_view(view, store.context())).different == 0);
  wrong = 1;
  const auto report = must(verify_view(view, store.context()));
  CHECK(report.different == 1);
  CHECK(report.differences.at(0).what == "state");
}

TEST_CASE("wait is for what the process that runs a view in memory shows",
          "[projections][memory][wait]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  const auto view = tally(seldom());
  must(catch_up(store, view));
  // The snapshot has it, but nobody shows it.
  CHECK_FALSE(must(wait_until_folded(place_of(store), {}, 0ms)));
  CHECK_FALSE(must(status_of(view, store.context())).shown);
  Running running(store, view);
  CHECK(must(wait_until_folded(place_of(store), {}, 30s)));
  CHECK(shows(view, store.end()));
  for (int i = 1; i <= 20; ++i) {
    store.commit({inserted(order(i, 1, 1))});
    REQUIRE(must(wait_until_folded(place_of(store), {}, 30s)));
    CHECK(lines_of(view) == Lines{"1|Ada|" + std::to_string(i) + "|" + std::to_string(i)});
  }
  CHECK(checkpoint_of(store, "tally").offset.value == 1);
  const auto status = must(status_of(view, store.context()));
  CHECK(status.state == "running");
  CHECK(status.shown == store.end());
  CHECK(status.lag == 0);
  CHECK(to_json(status).find("\"shown\":21") != std::string::npos);
  store.commit({inserted(product(1, "of a table that the view does not take"))});
  CHECK(must(wait_until_folded(place_of(store), {}, 30s)));
  CHECK(must(wait_until_folded(place_of(store), {.lsn = Lsn{2200}}, 30s)));
  CHECK(shows(view, store.end()));
  must(running.stop());
  CHECK_FALSE(must(wait_until_folded(place_of(store), {}, 0ms)));
  CHECK(must(status_of(view, store.context())).lag == 0);
}

TEST_CASE("one worker runs a view in memory", "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  const auto view = tally(), other = tally();
  Running running(store, view);
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  const auto second = catch_up(store, other);
  REQUIRE_FALSE(second);
  CHECK(second.error().code() == ErrorCode::kLocked);
  CHECK_FALSE(other.shown());
  must(running.stop());
}

TEST_CASE("a rebuild of a view in memory runs beside its worker, and can be taken back",
          "[projections][memory][rebuild]") {
  ShopStore store;
  std::atomic<bool> loud = false;
  const auto view = memory_view<Tally>("tally", Version{1}, seldom())
                        .on<Customers>("public.customers", [&](const auto& change, Tally& state) {
                          auto& name = state.customers[change.after()->id()].name;
                          name = change.after()->name() + (loud ? "!" : "");
                        });
  store.commit({inserted(customer(1, "Ada"))});
  Running running(store, view);
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  store.commit({inserted(customer(2, "Bob"))});  // beyond the snapshot
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  loud = true;
  CHECK(must(build_generation(view, store.context())).generation == 2);
  store.commit({inserted(customer(3, "Cid"))});
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  CHECK(lines_of(view) == Lines{"1|Ada!|0|0", "2|Bob!|0|0", "3|Cid!|0|0"});
  loud = false;
  CHECK(must(roll_back(view, store.context())).generation == 1);
  store.commit({inserted(customer(4, "Dan"))});
  REQUIRE(comes_true([&] { return shows(view, store.end()); }));
  CHECK(lines_of(view) == Lines{"1|Ada|0|0", "2|Bob|0|0", "3|Cid|0|0", "4|Dan|0|0"});
  must(running.stop());
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("a view in memory is built as it was, and read from that file", "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, "Ada"))});
  store.commit({inserted(order(1, 1, 10))});
  store.commit({inserted(order(2, 1, 10))});
  const auto view = tally();
  const Path file = store.directory().parent_path() / "then.db";
  must(build_as_of(view, store.context(), AsOf(Offset{2}), file));
  CHECK(must(view.load(file)).lines() == Lines{"1|Ada|1|10"});
  CHECK_FALSE(view.shown());  // what is built is not shown
}

TEST_CASE("a state larger than its limit stops the view", "[projections][memory]") {
  ShopStore store;
  store.commit({inserted(customer(1, std::string(2000, 'x')))});
  const auto done = catch_up(store, tally({.snapshot_bytes_max = 1000}));
  REQUIRE_FALSE(done);
  CHECK(done.error().message().find("snapshot_bytes_max") != std::string::npos);
  must(catch_up(store, tally({.snapshot_bytes_max = 3000})));
}

TEST_CASE("snapshots of many parts grow and shrink", "[projections][memory]") {
  ShopStore store;
  const std::string large(3 << 20, 'x');
  const auto view = tally(always());
  for (int id = 1; id <= 6; ++id) store.commit({inserted(customer(id, large))});
  must(catch_up(store, view));
  CHECK(query(store.views() / "tally.db", "SELECT count(*) FROM millrace_memory_part") ==
        Lines{"3"});
  const auto again = tally(always());
  must(catch_up(store, again));
  CHECK(lines_of(again) == lines_of(view));
  for (int id = 2; id <= 6; ++id) store.commit({deleted(customer(id, ""))});
  must(catch_up(store, view));
  CHECK(query(store.views() / "tally.db", "SELECT count(*) FROM millrace_memory_part") ==
        Lines{"1"});
  CHECK(snapshot_in(store, view) == Lines{"1|" + large + "|0|0"});
}

TEST_CASE("a view in memory takes events of streams and messages beside tables",
          "[projections][memory]") {
  struct Seen {
    std::map<std::string, std::string> last;
    std::string encode() const {
      std::string bytes;
      for (const auto& [name, what] : last) bytes += name + "=" + what + ";";
      return bytes;
    }
    static Result<Seen> decode(std::string_view bytes) {
      Seen seen;
      while (!bytes.empty()) {
        const std::size_t equals = bytes.find('='), end = bytes.find(';');
        seen.last[std::string(bytes.substr(0, equals))] =
            bytes.substr(equals + 1, end - equals - 1);
        bytes.remove_prefix(end + 1);
      }
      return seen;
    }
  };
  const auto make = [] {
    return memory_view<Seen>("seen", Version{1})
        .on<Customers>("public.customers", [](const Change<Customers>& change,
                                              Seen& seen) { seen.last["customer"] = change.key(); })
        .on_event<Cart>([](const Event<Cart::Event>& event, Seen& seen) {
          if (event.is_erased()) return void(seen.last["cart"] = "erased");
          event.match([&](const Cart::ItemAdded& added) { seen.last["cart"] = added.sku; },
                      [](const auto&) {});
        })
        .on_event("visit",
                  [](const Event<>& event, Seen& seen) { seen.last["visit"] = event.type(); })
        .on_message("audit",
                    [](const Event<>& event, Seen& seen) { seen.last["audit"] = event.data(); });
  };
  const auto all = [](const Seen& seen) { return seen.encode(); };
  ShopStore store;
  const auto added = Cart::encode(Cart::ItemAdded{"kettle", 1, 100});
  store.append("cart", "9f3a", added.type, added.payload);
  store.append("visit", "1", "Began", "{}");
  store.commit({inserted(customer(7, "Ada")), message("audit", "by Bob"), message("other", "x")});
  const auto view = make(), again = make();
  must(catch_up(store, view));
  CHECK(must(view.read(all)) == "audit=by Bob;cart=kettle;customer=7;visit=Began;");
  store.erase("cart", "9f3a");
  must(catch_up(store, again));
  CHECK(must(again.read(all)) == "audit=by Bob;cart=erased;customer=7;visit=Began;");
  CHECK(must(view.read(all)) == "audit=by Bob;cart=kettle;customer=7;visit=Began;");
}

TEST_CASE("ViewTester holds views in memory", "[projections][memory][testing]") {
  namespace given = millrace::projections::testing;
  const auto view = tally();
  given::ViewTester tester(view);
  const Orders first = order(1, 7, 100);
  tester.given({given::inserted("public.customers", "7", customer(7, "Ada")),
                given::inserted("public.orders", "1", first)});
  CHECK(tester.rows() == Lines{"7|Ada, 1 orders, 100 cents"});
  CHECK(tester.state<Tally>().customers.at(7).cents == 100);
  tester.apply(given::deleted("public.orders", "1", &first));
  CHECK(tester.state<Tally>().customers.at(7).cents == 100);
  tester.crash();
  tester.given({given::inserted("public.orders", "2", order(2, 7, 5))});
  CHECK(tester.state<Tally>().lines() == Lines{"7|Ada|2|105"});
  const std::vector<given::Transaction> transactions{
      {given::inserted("public.customers", "7", customer(7, "Ada"))},
      {given::inserted("public.orders", "1", first)},
      {given::deleted("public.orders", "1", &first)}};
  CHECK(first_difference(view, transactions) == std::nullopt);
  CHECK_FALSE(view.shown());
}
