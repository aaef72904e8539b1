// What others may do to a view's file: hold its lock, damage it, move it, take what is beside it.

#include <atomic>
#include <fstream>
#include <thread>

#include "projections/engine/build.h"
#include "projections/engine/status.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "tests/projections/running.h"
#include "tests/projections/shop_store.h"
#include "tests/projections/shop_workload.h"
#include "tests/support/process.h"

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using millrace::test::ChildProcess;
using shop::Orders;
using shop::Products;

namespace {

namespace fs = std::filesystem;

/// A row per customer with a count, which an update that is lost or repeated would change.
RelationalView order_counts() {
  return view("order_counts", Version{1})
      .from(table<Orders>("public.orders"))
      .group_by(&Orders::customer_id)
      .aggregate(count("orders"), sum("spent", &Orders::total_cents))
      .into(cache_table{});
}
std::vector<std::string> counted(const ShopStore& store) {
  return query(store.views() / "order_counts.db", "SELECT * FROM order_counts ORDER BY 1");
}

/// SQLite's own program in another process, with a transaction open on the view's file.
class OtherProcess {
 public:
  OtherProcess(const fs::path& file, const std::string& sql) : process_({"sqlite3", file}) {
    process_.write(".timeout 30000\n" + sql + "\n.print ready\n");
    while (const auto line = process_.read_line())
      if (*line == "ready") return;
    throw std::runtime_error("sqlite3 said: " + process_.error_output());
  }
  void end(const std::string& sql) {
    process_.write(sql + "\n");
    process_.close_input();
    CHECK(process_.wait() == 0);
  }

 private:
  ChildProcess process_;
};

}  // namespace

TEST_CASE("F100: a second process holds the lock again and again, and no update is lost",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  const fs::path file = store.views() / "order_counts.db";
  Running running(store, view, {.retry_first = std::chrono::milliseconds(1)});
  std::int64_t id = 2;
  for (const char* const begin : {"BEGIN IMMEDIATE;", "BEGIN EXCLUSIVE;",
                                  "BEGIN; UPDATE millrace_checkpoint SET failure = '';"})
    for (int round = 0; round < 5; ++round) {
      OtherProcess holder(file, begin);
      for (int i = 0; i < 20; ++i) store.commit({inserted(order(id++, 7, 1))});
      const auto before = std::to_string(id - 1);
      CHECK(counted(store) != std::vector<std::string>{"7|" + before + "|" + before});
      holder.end(round % 2 == 0 ? "COMMIT;" : "ROLLBACK;");
      REQUIRE(comes_true([&] {
        return counted(store) == std::vector<std::string>{"7|" + before + "|" + before};
      }));
    }
  must(running.stop());
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("F100: a reader that keeps its snapshot holds up nothing and sees what it saw",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  auto reader =
      must(sqlite::Database::open(store.views() / "order_counts.db", sqlite::Mode::kReadOnly));
  must(reader->begin());
  CHECK(must(reader->number("SELECT orders FROM order_counts")) == 1);
  for (int id = 2; id <= 50; ++id) {
    store.commit({inserted(order(id, 7, 1))});
    must(catch_up(store, view));
  }
  CHECK(must(reader->number("SELECT orders FROM order_counts")) == 1);
  CHECK(counted(store) == std::vector<std::string>{"7|50|50"});
  reader->rollback();
  CHECK(must(reader->number("SELECT orders FROM order_counts")) == 50);
}

TEST_CASE("F100: one who read first and would write on an old snapshot is refused, not the view",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  auto other = must(sqlite::Database::open(store.views() / "order_counts.db", sqlite::Mode::kLive));
  must(other->execute("BEGIN"));
  CHECK(must(other->number("SELECT orders FROM order_counts")) == 1);
  store.commit({inserted(order(2, 7, 1))});
  must(catch_up(store, view));
  const auto written = other->execute("UPDATE order_counts SET orders = 99");
  REQUIRE_FALSE(written);
  CHECK(written.error().code() == ErrorCode::kLocked);  // SQLITE_BUSY_SNAPSHOT
  other->rollback();
  CHECK(counted(store) == std::vector<std::string>{"7|2|2"});
}

TEST_CASE(
    "F102: flipped bytes are an error that names the way out, never a crash, and a rebuild "
    "gives the same again",
    "[projections][sqlite]") {
  ShopStore store;
  ShopWorkload workload(31);
  const auto view = product_search();
  for (int i = 0; i < 60; ++i) store.commit(workload.transaction());
  must(catch_up(store, view));
  const auto expected = rows_of(store, "product_search");
  const fs::path file = store.views() / "product_search.1.db", kept = store.views() / "kept";
  fs::rename(file, kept);
  store.commit({updated<Products>(product(1'000'000, "new"))});
  std::mt19937 random(31);
  int refused = 0;
  for (int round = 0; round < 60; ++round) {
    fs::remove(fs::path(file) += "-wal");
    fs::remove(fs::path(file) += "-shm");
    fs::copy_file(kept, file, fs::copy_options::overwrite_existing);
    // Half of them in the first page, where the file's structure begins.
    const auto size = round % 2 == 0 ? 4096 : fs::file_size(file);
    const auto at = std::uniform_int_distribution<std::uint64_t>(0, size - 64)(random);
    INFO("round " << round << ", 64 bytes at " << at);
    {
      std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
      damaged.seekp(static_cast<std::streamoff>(at));
      for (int i = 0; i < 64; ++i) damaged.put(static_cast<char>(random()));
    }
    const auto done = catch_up(store, view);
    const auto status = must(status_of(view, store.context()));
    if (done) {  // it hit what nothing needed to go on: the rows are right, or verify tells
      const auto verified = verify_view(view, store.context());
      if (verified && verified->different == 0) {
        auto rows = rows_of(store, "product_search");
        CHECK(rows.back().starts_with("1000000|new"));
        rows.pop_back();
        CHECK(rows == expected);
      }
      continue;
    }
    ++refused;
    INFO(done.error().to_string());
    CHECK_THAT(done.error().to_string(), Catch::Contains("rebuild"));
    CHECK((status.state == "unreadable" || status.state == "failed" || status.state == "refused"));
    CHECK_FALSE(status.reason.empty());
  }
  CHECK(refused > 10);
  must(build_generation(view, store.context()));
  auto rebuilt = rows_of(store, "product_search");
  CHECK(rebuilt.back().starts_with("1000000|new"));
  rebuilt.pop_back();
  CHECK(rebuilt == expected);
}

TEST_CASE("F103: a view whose folder is moved away or removed stops, and is made anew by a start",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  store.commit({inserted(order(1, 7, 1))});
  Running running(store, view, {.retry_first = std::chrono::milliseconds(1)});
  REQUIRE(comes_true([&] { return has_folded(store, "order_counts", store.end()); }));
  const bool moved = GENERATE(true, false);
  // Moved in any case: while it is removed the worker may still make files in it.
  const fs::path away = fs::path(store.views()) += ".away";
  fs::rename(store.views(), away);
  if (!moved) fs::remove_all(away);
  store.commit({inserted(order(2, 7, 1))});
  REQUIRE(comes_true([&] { return running.has_ended(); }));
  const auto ended = running.stop();
  REQUIRE_FALSE(ended);
  CHECK_THAT(ended.error().to_string(), Catch::Contains(store.views().string()));
  must(catch_up(store, view));
  CHECK(counted(store) == std::vector<std::string>{"7|2|2"});
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("F103: a view's file that is moved or removed under its worker is not written unseen",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  store.commit({inserted(order(1, 7, 1))});
  must(catch_up(store, view));
  const fs::path file = store.views() / "order_counts.1.db", copied = store.views() / "copied.db";
  fs::copy_file(file, copied);
  Running running(store, view, {.retry_first = std::chrono::milliseconds(1)});
  store.commit({inserted(order(2, 7, 1))});
  REQUIRE(comes_true([&] { return has_folded(store, "order_counts", store.end()); }));
  const auto is_whole = [&] {
    return has_folded(store, "order_counts", store.end()) &&
           counted(store) == std::vector<std::string>{"7|3|3"};
  };

  SECTION("removed: the worker stops and says so, and a rebuild mends it") {
    fs::remove(file);
    store.commit({inserted(order(3, 7, 1))});
    REQUIRE(comes_true([&] { return running.has_ended(); }));
    const auto ended = running.stop();
    REQUIRE_FALSE(ended);
    CHECK_THAT(ended.error().to_string(),
               Catch::Contains("order_counts.1.db") && Catch::Contains("rebuild order_counts"));
    must(build_generation(view, store.context()));
    CHECK(is_whole());
  }
  SECTION("replaced by a copy: the worker goes on with that") {
    fs::rename(copied, file);
    fs::remove(fs::path(file) += "-wal");
    fs::remove(fs::path(file) += "-shm");
    store.commit({inserted(order(3, 7, 1))});
    REQUIRE(comes_true(is_whole));
    must(running.stop());
  }
  SECTION(
      "-wal and -shm are removed and made anew by a reader: the worker goes on where that reads") {
    fs::remove(fs::path(file) += "-wal");
    fs::remove(fs::path(file) += "-shm");
    OtherProcess reader(file, "SELECT orders FROM order_counts;");
    REQUIRE(fs::exists(fs::path(file) += "-wal"));
    REQUIRE(fs::exists(fs::path(file) += "-shm"));
    store.commit({inserted(order(3, 7, 1))});
    // Until the worker lets go of the index that was removed, SQLite shares it within this process.
    REQUIRE(comes_true([&] {
      try {
        return is_whole();
      } catch (const std::runtime_error&) {
        return false;
      }
    }));
    reader.end("");
    must(running.stop());
  }
  for (const char* const ending : {"-wal", "-shm"})
    DYNAMIC_SECTION(ending << " is removed: the worker puts it back, and nothing is lost") {
      fs::remove(fs::path(file) += ending);
      store.commit({inserted(order(3, 7, 1))});
      REQUIRE(comes_true([&] { return fs::exists(fs::path(file) += ending); }));
      REQUIRE(comes_true(is_whole));
      must(running.stop());
    }
  CHECK(must(verify_view(view, store.context())).different == 0);
}

TEST_CASE("F103: without its WAL or its index, or as a hot copy, a view is whole and goes on",
          "[projections][sqlite]") {
  ShopStore store;
  const auto view = order_counts();
  for (int id = 1; id <= 20; ++id) store.commit({inserted(order(id, 7, 1))});
  must(catch_up(store, view));
  const fs::path file = store.views() / "order_counts.1.db";
  auto holder = must(sqlite::Database::open(file, sqlite::Mode::kReadOnly));
  CHECK(must(holder->number("SELECT orders FROM order_counts")) == 20);
  for (int id = 21; id <= 40; ++id) store.commit({inserted(order(id, 7, 1))});
  must(catch_up(store, view));
  REQUIRE(fs::exists(fs::path(file) += "-wal"));  // kept by the reader

  const fs::path copied = store.views() / "copied.db";
  SECTION("a copy of the file and its WAL, taken while it is used") {
    fs::copy_file(file, copied);
    fs::copy_file(fs::path(file) += "-wal", fs::path(copied) += "-wal");
    holder.reset();
    CHECK(query(copied, "SELECT orders FROM order_counts") == std::vector<std::string>{"40"});
    fs::rename(copied, file);
    fs::rename(fs::path(copied) += "-wal", fs::path(file) += "-wal");
  }
  SECTION("a copy of the file alone: it went back, view and checkpoint together") {
    fs::copy_file(file, copied);
    holder.reset();
    fs::remove(fs::path(file) += "-wal");
    fs::remove(fs::path(file) += "-shm");
    fs::rename(copied, file);
    CHECK(counted(store) == std::vector<std::string>{"7|20|20"});
    CHECK(checkpoint_of(store, "order_counts").offset == Offset{20});
  }
  SECTION("the index beside the WAL is gone") {
    holder.reset();
    fs::remove(fs::path(file) += "-shm");
  }
  store.commit({inserted(order(41, 7, 1))});
  must(catch_up(store, view));
  CHECK(counted(store) == std::vector<std::string>{"7|41|41"});
  CHECK(must(verify_view(view, store.context())).different == 0);
}
