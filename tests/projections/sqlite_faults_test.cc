// What SQLite and the disk below it may do to a view, each row of it by its number.

#include <map>
#include <thread>

#include "projections/engine/build.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "tests/projections/fault_vfs.h"
#include "tests/projections/joined_totals.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/support/killed_child.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;

namespace {

namespace fs = std::filesystem;

/// The same as product_search(), by a function that asks for what is there, and goes on without a
/// look at whether it is.
SearchIndex product_search_that_asks() {
  using shop::Products;
  return SearchIndex("product_search", Version{},
                     {.key = integer("id"),
                      .text = {"name", "description"},
                      .stored = {"category", "price"}})
      .on<Products>("public.products",
                    [](const Change<Products>& change, SearchIndex::Writer& index) {
                      if (change.is_truncate()) return index.clear();
                      if (change.is_delete()) return index.erase(change.key());
                      index.put(change.key(), {{"name", change[&Products::name]},
                                               {"description", change[&Products::description]},
                                               {"category", change[&Products::category]},
                                               {"price", change[&Products::price]}});
                      const auto row = index.find(change.key());
                      index.put(change.key(), {{"name", row.value()["name"]}});
                    });
}

/// Each transaction is a commit of the view: faults and crashes come between them, too.
WorkerOptions commit_each() { return {.events_per_commit = 1, .commit_interval = {}}; }

/// A store, what a view of it shows at each offset where a transaction ends, and the view's files
/// as of the first of them.
class History {
 public:
  History(const View& view, std::uint32_t seed, int transactions) : view_(view), workload_(seed) {
    const bool search = view.name() == "product_search";
    const auto note = [&] {
      shown_[store.end().value] =
          search ? workload_.expected_search() : workload_.expected_totals();
    };
    for (int i = 0; i < 8; ++i) store.commit(workload_.transaction());
    note();
    must(build_generation(view, store.context()));
    fs::copy(store.views(), kept(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    for (int i = 0; i < transactions; ++i) {
      store.commit(workload_.transaction());
      note();
    }
  }

  /// The view's files as they were after the first transactions.
  void start_anew() { put_back(kept()); }
  void put_back(const fs::path& folder) {
    fs::remove_all(store.views());
    fs::copy(folder, store.views(), fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  }
  std::vector<std::string> rows() const { return rows_of(store, view_.name()); }
  Offset checkpoint() const { return checkpoint_of(store, view_.name()).offset; }
  /// What a reader of the view has to see at its checkpoint: whole transactions, and no others.
  const std::vector<std::string>& shown_at_checkpoint() const {
    return shown_.at(checkpoint().value);
  }
  const std::vector<std::string>& shown_at_end() const { return shown_.rbegin()->second; }
  Path folder(const std::string& name) const { return store.directory().parent_path() / name; }

  ShopStore store;

 private:
  Path kept() const { return folder("kept"); }

  const View& view_;
  ShopWorkload workload_;
  std::map<std::uint64_t, std::vector<std::string>> shown_;
};

}  // namespace

TEST_CASE(
    "F101: whichever I/O of SQLite fails, view and checkpoint stay together and go on after it",
    "[projections][sqlite]") {
  const auto search = product_search();
  const auto asking = product_search_that_asks();
  const auto totals = joined_totals();
  for (const View* view : std::initializer_list<const View*>{&search, &asking, &totals}) {
    History history(*view, 21, 4);
    for (const auto fault : {FaultVfs::Fault::kNoSpace, FaultVfs::Fault::kIo})
      for (const bool for_ever : {false, true}) {
        bool met = true;
        std::uint64_t at = 1;
        for (; met; ++at) {
          INFO(view->name() << ", operation " << at << (for_ever ? " and all after it" : "")
                            << (fault == FaultVfs::Fault::kIo ? ", I/O error" : ", no space"));
          history.start_anew();
          Result<void> done;
          {
            FaultVfs disk;
            disk.fail(at, fault, FaultVfs::Which::kAll, for_ever);
            done = catch_up(history.store, *view, commit_each());
            met = disk.met();
          }
          if (!done) {
            CHECK((done.error().code() == ErrorCode::kIo ||
                   done.error().code() == ErrorCode::kNoSpace));
          }
          CHECK(history.rows() == history.shown_at_checkpoint());
          must(catch_up(history.store, *view, commit_each()));
          REQUIRE(history.rows() == history.shown_at_end());
        }
        CHECK(at > 40);
      }
    CHECK(must(verify_view(*view, history.store.context())).different == 0);
  }
}

TEST_CASE("F101: a worker goes on by itself after any write that failed once",
          "[projections][sqlite]") {
  const auto view = joined_totals();
  History history(view, 22, 3);
  bool met = true;
  for (std::uint64_t at = 1; met; ++at) {
    INFO("write " << at);
    history.start_anew();
    FaultVfs disk;
    disk.fail(at, at % 2 == 0 ? FaultVfs::Fault::kIo : FaultVfs::Fault::kNoSpace,
              FaultVfs::Which::kWrites, false);
    WorkerOptions options = commit_each();
    options.retry_first = std::chrono::milliseconds(1);
    std::stop_source stop;
    Result<void> ended;
    const Context context = history.store.context(stop.get_token());
    std::jthread worker([&] { ended = Worker(view, context, options).run(); });
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!has_folded(history.store, view.name(), history.store.end())) {
      REQUIRE(std::chrono::steady_clock::now() < give_up);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    stop.request_stop();
    worker.join();
    met = disk.met();
    must(ended);
    REQUIRE(history.rows() == history.shown_at_end());
  }
}

TEST_CASE("F105: a worker killed before any write to its file neither repeats nor skips",
          "[projections][sqlite]") {
  const bool has_view = GENERATE(true, false);
  const auto search = product_search();
  const auto totals = joined_totals();
  for (const View* view : std::initializer_list<const View*>{&search, &totals}) {
    History history(*view, 23, 4);
    history.store.close();  // no other thread may run when this process is copied
    int step = 1;
    for (bool killed = true; killed; ++step) {
      INFO(view->name() << (has_view ? ", " : " that is made, ") << "write " << step);
      if (has_view)
        history.start_anew();
      else
        fs::remove_all(history.store.views());
      killed = millrace::test::is_killed_at(step, [&](const auto& at_step) {
        FaultVfs disk;
        disk.before_each(at_step);
        return catch_up(history.store, *view, commit_each()).has_value();
      });
      if (fs::exists(history.store.views() / (view->name() + ".db")))
        CHECK(history.rows() == history.shown_at_checkpoint());
      must(catch_up(history.store, *view, commit_each()));
      REQUIRE(history.rows() == history.shown_at_end());
    }
    CHECK(step > 20);
    CHECK(must(verify_view(*view, history.store.context())).different == 0);
  }
}

TEST_CASE("F104: a loss of power takes view and checkpoint back together",
          "[projections][sqlite]") {
  const auto search = product_search();
  const auto totals = joined_totals();
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    const View& view = seed % 2 == 0 ? static_cast<const View&>(search) : totals;
    History history(view, seed, 12);
    std::mt19937 random(seed);
    std::vector<fs::path> lost;
    {
      FaultVfs disk;
      disk.before_each([&] {
        if (random() % 6 != 0) return;
        lost.push_back(history.folder("lost." + std::to_string(lost.size())));
        fs::create_directories(lost.back());
        disk.lose_power(lost.back(), random);
        fs::copy_symlink(history.store.views() / (view.name() + ".db"),
                         lost.back() / (view.name() + ".db"));
      });
      must(catch_up(history.store, view, commit_each()));
    }
    REQUIRE(lost.size() > 5);
    int went_back = 0;
    for (const fs::path& folder : lost) {
      INFO("seed " << seed << ", " << folder.filename().string());
      history.put_back(folder);
      must(catch_up(history.store, view, {.build = {}}));
      REQUIRE(history.rows() == history.shown_at_end());
      history.put_back(folder);
      {
        const auto database = must(sqlite::Database::open(
            history.store.views() / (view.name() + ".db"), sqlite::Mode::kLive));
        auto check = must(database->prepare("PRAGMA integrity_check"));
        REQUIRE(must(check.step()));
        CHECK(check.column(0).text() == "ok");
      }
      CHECK(history.rows() == history.shown_at_checkpoint());
      went_back += history.checkpoint() < history.store.end();
    }
    CHECK(went_back > 0);
    CHECK(must(verify_view(view, history.store.context())).different == 0);
  }
}
