#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "eventstore/consumers.h"
#include "eventstore/store_snapshot.h"
#include "service/shared_store.h"
#include "service/updates.h"
#include "tests/service/service_store.h"
#include "tests/support/forwarding_fs.h"

using namespace millrace;
using namespace millrace::test;

TEST_CASE("maintenance is the same whether somebody holds the store or not", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const bool held_by_other = GENERATE(false, true);
  SharedStoreOptions options;
  options.store = small_options(FileSystem::real());
  std::unique_ptr<EventStore> holder;
  std::unique_ptr<StoreServer> server;
  if (held_by_other) {
    holder = must(EventStore::open(path, options.store));
    server = must(StoreServer::start(*holder, path));
  }
  const auto shared = must(SharedStore::open(path, options));
  set_compacting(*shared, "cart");
  fill(*shared);

  must(shared->register_consumer("search", Offset{2}, ConsumerPolicy::kHold));
  must(shared->register_consumer("cache", Offset{0}, ConsumerPolicy::kLose));
  must(shared->advance_consumer("search", Offset{5}));
  CHECK(shared->advance_consumer("search", Offset{4}).error().code() ==
        ErrorCode::kInvalidArgument);
  CHECK(must(find_consumer(path, "search")).offset.value == 5);
  CHECK(must(find_consumer(path, "cache")).policy == ConsumerPolicy::kLose);
  must(shared->remove_consumer("cache"));
  CHECK(shared->remove_consumer("cache").error().code() == ErrorCode::kNotFound);

  MaintenanceProgress last;
  const auto dry = must(shared->compact(
      {.dry_run = true, .progress = [&](const auto& progress) { last = progress; }}));
  CHECK(last.done_bytes > 0);
  CHECK(last.done_bytes <= last.total_bytes);
  const auto report = must(shared->compact({}));
  REQUIRE_FALSE(report.rewritten.empty());
  CHECK(report.rewritten.size() == dry.rewritten.size());
  CHECK(report.rewritten[0].file == dry.rewritten[0].file);
  CHECK(report.rewritten[0].bytes_after < report.rewritten[0].bytes_before);
  CHECK(report.rewritten[0].events_removed > 0);
  CHECK(payload_sizes(path, "a").size() < 40);

  const std::vector<EntityToErase> entities{
      {.key = "a", .tombstone_type = "Forgotten", .tombstone_payload = "bye"}, {.key = "nobody"}};
  const auto erased = must(shared->erase({.category = "cart", .entities = entities}));
  REQUIRE(erased.entities.size() == 2);
  CHECK(erased.entities[0].key == "a");
  CHECK(erased.entities[0].events > 0);
  CHECK(erased.entities[0].events == erased.events());
  CHECK(erased.entities[0].last < erased.entities[0].tombstone);
  CHECK(erased.entities[1].key == "nobody");
  CHECK(erased.entities[1].tombstone.value == erased.entities[0].tombstone.value + 1);
  CHECK(payload_sizes(path, "a") == std::vector<std::size_t>{3});
  CHECK(shared->erase({.category = "$policy", .entities = entities}).error().code() ==
        ErrorCode::kInvalidArgument);

  const auto copied = must(shared->snapshot(directory / "copy"));
  CHECK(copied.end.value == erased.entities[1].tombstone.value + 1);
  CHECK(copied.linked > 0);
  CHECK(must(restore_store(directory / "copy", directory / "restored")).copy.end == copied.end);
  CHECK(shared->snapshot(directory / "copy").error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("a compaction that another process does stops when the caller is stopped", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const auto holder = must(EventStore::open(path, small_options(FileSystem::real())));
  const auto server = must(StoreServer::start(*holder, path));
  const auto shared = must(SharedStore::open(path));
  set_compacting(*shared, "cart");
  fill(*shared);
  std::stop_source stop;
  CompactionOptions options{.bytes_per_second = 1};  // it would take hours
  options.stop = stop.get_token();
  options.progress = [&](const MaintenanceProgress&) { stop.request_stop(); };
  const auto stopped = shared->compact(options);
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  must(shared->compact({}));  // the holder's has ended
}

namespace {

constexpr EntityToErase kEntity{
    .key = "a", .tombstone_type = "Forgotten", .tombstone_payload = "bye"};
constexpr EraseRequest kErase{.category = "cart", .entities = {&kEntity, 1}};

/// The kernel's file system, in which maintenance takes each step when it is let: the next segment
/// written anew, the next link of a copy.
class GatedFs final : public ForwardingFileSystem {
 public:
  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    const std::string name = path.string();
    const bool is_new_generation = mode == OpenMode::kCreate && name.ends_with(".log.tmp") &&
                                   std::filesystem::exists(name.substr(0, name.size() - 4));
    if (is_new_generation) pass();
    return ForwardingFileSystem::open(path, mode);
  }
  Result<void> link(const Path& from, const Path& to) override {
    pass();
    return ForwardingFileSystem::link(from, to);
  }

  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = counts_ = true;
  }
  void open_wide() {
    const std::lock_guard lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  void wait_for_somebody() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ != 0; });
  }
  void let_one_pass() {
    const std::lock_guard lock(mutex_);
    if (waiting_ != 0) may_pass_ = true;
    changed_.notify_all();
  }
  /// Since close().
  int passed() {
    const std::lock_guard lock(mutex_);
    return passed_;
  }

 private:
  void pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !closed_ || may_pass_; });
    may_pass_ = false;
    --waiting_;
    passed_ += counts_;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false, counts_ = false, may_pass_ = false;
  int waiting_ = 0, passed_ = 0;
};

/// Takes the store from who holds it for a moment, as a capture does that starts.
std::unique_ptr<EventStore> take_over(const Path& path) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (;;) {
    auto store = EventStore::open(path, small_options(FileSystem::real()));
    if (store) return *std::move(store);
    REQUIRE(store.error().code() == ErrorCode::kLocked);
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    ask_to_yield(path);
  }
}

SharedStoreOptions long_holding(FileSystem& files) {
  SharedStoreOptions options;
  options.store = small_options(files);
  options.hold = std::chrono::hours(1);
  return options;
}

}  // namespace

TEST_CASE("a capture need not wait for a compaction, which goes on through it", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const auto holder = must(SharedStore::open(path, long_holding(FileSystem::real())));
  set_compacting(*holder, "cart");
  fill(*holder);
  const bool called_elsewhere = GENERATE(false, true);
  const auto caller = called_elsewhere ? must(SharedStore::open(path)) : nullptr;
  std::atomic<bool> has_rewritten = false, is_done = false;
  CompactionOptions options{.bytes_per_second = 20'000};
  options.so_far = [&](const CompactionReport& report) {
    has_rewritten = !report.rewritten.empty();
  };
  Result<CompactionReport> report = Error(ErrorCode::kInternal, "");
  std::jthread compacting([&] {
    report = (caller ? caller : holder)->compact(options);
    is_done = has_rewritten = true;
  });
  while (!has_rewritten) std::this_thread::yield();
  const auto store = take_over(path);
  CHECK_FALSE(is_done);
  const auto server = must(StoreServer::start(*store, path));
  compacting.join();
  REQUIRE(report);
  CHECK(report->rewritten.size() > 1);  // also what was done before
  CHECK(payload_sizes(path, "a").size() < 20);
  for (const RewrittenSegment& one : report->rewritten) {
    CHECK(std::count_if(report->rewritten.begin(), report->rewritten.end(),
                        [&](const auto& other) { return other.file == one.file; }) == 1);
    CHECK(one.events_removed > 0);
  }
}

TEST_CASE("a capture need not wait for a copy or an erasure, which go on through it", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  GatedFs files;
  const auto holder = must(SharedStore::open(path, long_holding(files)));
  fill(*holder, 6000);
  const bool erases = GENERATE(false, true), called_elsewhere = GENERATE(false, true);
  const auto caller = called_elsewhere ? must(SharedStore::open(path)) : nullptr;
  files.close();
  Result<EraseReport> erased = Error(ErrorCode::kInternal, "");
  Result<StoreCopyReport> copied = Error(ErrorCode::kInternal, "");
  std::jthread working([&] {
    SharedStore& store = *(caller ? caller : holder);
    if (erases)
      erased = store.erase(kErase);
    else
      copied = store.snapshot(directory / "copy");
  });
  files.wait_for_somebody();
  CHECK(ask_to_yield(path));
  files.open_wide();
  const auto store = take_over(path);
  CHECK(files.passed() == 1);
  const auto server = must(StoreServer::start(*store, path));
  working.join();
  if (erases) {
    REQUIRE(erased);
    CHECK(erased->events() >= 40);
    CHECK(payload_sizes(path, "a") == std::vector<std::size_t>{3});
  } else {
    REQUIRE(copied);
    CHECK(must(restore_store(directory / "copy", directory / "restored")).copy.end == copied->end);
  }
}

TEST_CASE("who goes on for nobody says so", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  GatedFs files;
  auto options = long_holding(files);
  options.patience = std::chrono::milliseconds(300);
  const auto holder = must(SharedStore::open(path, options));
  fill(*holder, 6000);
  files.close();
  Result<StoreCopyReport> copied = Error(ErrorCode::kInternal, "");
  std::jthread working([&] { copied = holder->snapshot(directory / "copy"); });
  files.wait_for_somebody();
  CHECK(ask_to_yield(path));
  files.open_wide();
  const auto store = take_over(path);  // and serves nobody
  working.join();
  REQUIRE_FALSE(copied);
  CHECK(copied.error().code() == ErrorCode::kLocked);
  CHECK(copied.error().message().find("the snapshot was ended to make room") != std::string::npos);
}

TEST_CASE("what another process does ends when its caller goes away", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  GatedFs files;
  const auto holder = must(EventStore::open(path, small_options(files)));
  const auto server = must(StoreServer::start(*holder, path));
  const auto shared = must(SharedStore::open(path));
  fill(*shared, 6000);  // 40 segments
  const bool erases = GENERATE(false, true);
  files.close();
  std::stop_source stop;
  std::jthread caller([&] {
    std::optional<Error> error;
    if (erases) {
      EraseOptions options;
      options.stop = stop.get_token();
      error = shared->erase(kErase, options).error();
    } else {
      CopyOptions options;
      options.stop = stop.get_token();
      error = shared->snapshot(directory / "copy", options).error();
    }
    CHECK(error->code() == ErrorCode::kCancelled);
  });
  files.wait_for_somebody();
  stop.request_stop();
  caller.join();
  std::atomic<bool> has_ended = false;
  std::jthread next([&] {  // waits for its turn
    if (erases)
      must(holder->maintenance().compact({.dry_run = true}));
    else
      must(holder->maintenance().register_consumer("view", Offset{0}, ConsumerPolicy::kHold));
    has_ended = true;
  });
  while (!has_ended) {
    must(append_one(*shared, "b"));  // behind the cancellation, on the same connection
    files.let_one_pass();
  }
  next.join();
  CHECK(files.passed() < 20);
  files.open_wide();
  if (erases)
    CHECK(must(shared->erase(kErase)).events() > 20);
  else
    CHECK(must(shared->snapshot(directory / "copy")).linked > 20);
}

TEST_CASE("a store that serves a long call is not given back as idle", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  SharedStoreOptions options;
  options.store = small_options(FileSystem::real());
  const auto holder = must(SharedStore::open(path, options));
  set_compacting(*holder, "cart");
  fill(*holder, 6000);
  const auto shared = must(SharedStore::open(path));
  MaintenanceProgress last;
  bool began_anew = false;
  must(shared->compact({.bytes_per_second = 150'000, .progress = [&](const auto& now) {
                          began_anew = began_anew || now.done_bytes < last.done_bytes;
                          last = now;
                        }}));
  CHECK_FALSE(began_anew);
}

TEST_CASE("a store that is another one now is let go while somebody asks for it", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  auto held = std::make_unique<Held>(path);
  const auto shared = must(SharedStore::open(path, impatient()));
  held.reset();
  std::filesystem::remove_all(path);
  must(EventStore::open(path));
  std::atomic<bool> done = false;
  std::jthread asking([&] {
    while (!done) ask_to_yield(path);
  });
  for (int i = 0; i < 20; ++i) CHECK_FALSE(append_one(*shared, "a"));
  done = true;
}

TEST_CASE("who does not listen to updates holds up nobody and gets the latest", "[service]") {
  std::mutex mutex;
  std::condition_variable changed;
  bool listens = false;
  std::vector<int> heard;
  {
    service::Updates<int> updates(std::chrono::milliseconds(0), [&](int update) {
      std::unique_lock lock(mutex);
      heard.push_back(update);
      changed.notify_all();
      changed.wait(lock, [&] { return listens; });
    });
    updates.tell(updates.kProgress, 1);
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return !heard.empty(); });
    }
    for (int i = 2; i < 10'000; ++i)
      updates.tell(i % 2 == 0 ? updates.kProgress : updates.kReport, i);
    const std::lock_guard lock(mutex);
    listens = true;
    changed.notify_all();
  }
  REQUIRE(heard.size() >= 2);
  CHECK(heard.size() <= 3);
  CHECK(heard.front() == 1);
  CHECK(heard.back() == 9'999);
}
