#include "service/shared_store.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "eventstore/consumers.h"
#include "eventstore/policy.h"
#include "eventstore/store_snapshot.h"
#include "eventstore/stream_reader.h"
#include "service/store_server.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

namespace {

Result<AppendResult> append_one(Appender& appender, std::string_view key,
                                ExpectedVersion expected = {}, std::string_view id = {},
                                std::string_view payload = "p") {
  const NewStreamEvent event{.type = "Happened", .payload = payload, .metadata = {}};
  const StreamAppend part{.stream = {"cart", key}, .expected = expected, .events = {&event, 1}};
  return appender.append_durably({.streams = {&part, 1}, .idempotency_key = id});
}

/// A store that is held and served, as a running capture does it.
struct Held {
  explicit Held(const Path& directory)
      : store(must(EventStore::open(directory))),
        server(must(StoreServer::start(*store, directory))) {}
  std::unique_ptr<EventStore> store;
  std::unique_ptr<StoreServer> server;
};

std::vector<std::size_t> payload_sizes(const Path& directory, std::string_view key) {
  const auto reader = must(StreamReader::open(directory));
  std::vector<std::size_t> sizes;
  must(reader->read({"cart", key}, {}, [&](const EventView& event, const TransactionInfo&) {
    sizes.push_back(event.payload.size());
    return true;
  }));
  return sizes;
}

SharedStoreOptions impatient() {
  SharedStoreOptions options;
  options.patience = std::chrono::milliseconds(300);
  return options;
}

}  // namespace

TEST_CASE("an append is the same call whether somebody holds the store or not", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  {
    const auto shared = must(SharedStore::open(path));  // makes it
    CHECK(must(append_one(*shared, "a", ExpectedVersion::none())).next_versions[0] == 1);
  }
  const Held held(path);
  const auto shared = must(SharedStore::open(path));
  CHECK(shared->id() == held.store->id());
  const auto result = must(append_one(*shared, "a", ExpectedVersion::exact(0), "key"));
  CHECK(result.first.value == 1);
  CHECK(result.end.value == 2);
  CHECK(result.next_versions == std::vector<std::uint64_t>{2});
  CHECK(held.store->durable_end().value == 2);
  CHECK(must(append_one(*shared, "a", ExpectedVersion::exact(0), "key")).repeated);
  CHECK(payload_sizes(path, "a").size() == 2);
}

TEST_CASE("errors come through the service as they are", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const Held held(path);
  const auto shared = must(SharedStore::open(path));
  const auto conflict = append_one(*shared, "a", ExpectedVersion::exact(7));
  REQUIRE_FALSE(conflict);
  const auto direct = append_one(*held.store, "a", ExpectedVersion::exact(7));
  CHECK(conflict.error().code() == ErrorCode::kConflict);
  CHECK(conflict.error().message() == direct.error().message());
  CHECK(conflict.error().hint() == direct.error().hint());
  CHECK(append_one(*shared, std::string((1 << 20) + 1, 'k')).error().code() ==
        ErrorCode::kInvalidArgument);
  CHECK(held.store->appended_end().value == 0);
}

TEST_CASE("payloads from nothing to 64 MiB and keys of any bytes go through the service",
          "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const Held held(path);
  const auto shared = must(SharedStore::open(path));
  const std::string any_bytes("\0\xff/\n", 4), large(64 << 20, 'x');
  must(append_one(*shared, any_bytes, {}, {}, ""));
  must(append_one(*shared, any_bytes, {}, {}, large));
  CHECK(payload_sizes(path, any_bytes) == std::vector<std::size_t>{0, 64 << 20});
}

TEST_CASE("a store in a folder with a longer path than a socket's is served all the same",
          "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory.path() / std::string(120, 'd') / "store";
  std::filesystem::create_directories(path.parent_path());
  const Held held(path);
  must(append_one(*must(SharedStore::open(path)), "a"));
  CHECK(held.store->durable_end().value == 1);
}

TEST_CASE("B33: the socket is for the owner only", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const Held held(path);
  struct stat info {};
  REQUIRE(::stat((path / "service.sock").c_str(), &info) == 0);
  CHECK(S_ISSOCK(info.st_mode));
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("a holder that serves nobody is named, after a while", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  const auto store = must(EventStore::open(path));
  const auto shared = SharedStore::open(path, impatient());
  REQUIRE_FALSE(shared);
  CHECK(shared.error().code() == ErrorCode::kLocked);
  CHECK(shared.error().message().find("pid " + std::to_string(::getpid())) != std::string::npos);
}

TEST_CASE("F14: a socket that a killed process left is no obstacle", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  must(EventStore::open(path));
  REQUIRE(::mknod((path / "service.sock").c_str(), S_IFSOCK | 0600, 0) == 0);
  const auto first = must(SharedStore::open(path));
  must(append_one(*first, "a"));
  must(append_one(*must(SharedStore::open(path)), "a"));
  CHECK(payload_sizes(path, "a").size() == 2);
}

TEST_CASE("the store goes from hand to hand, and no append is lost or comes twice", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  must(EventStore::open(path));
  std::atomic<int> failures = 0;
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  constexpr int kAppends = 40;
  for (int thread = 0; thread < 3; ++thread)
    threads.emplace_back([&, thread] {
      SharedStoreOptions options;
      options.hold = std::chrono::milliseconds(5);
      const auto shared = SharedStore::open(path, options);
      for (int i = 0; shared && i < kAppends; ++i) {
        const std::string id = std::to_string(thread) + "/" + std::to_string(i);
        if (!append_one(**shared, "all", {}, id)) ++failures;
      }
      if (!shared) ++failures;
    });
  std::thread captures([&] {  // holds the store again and again, for a moment
    while (!done) {
      auto store = EventStore::open(path);
      if (!store) continue;
      const auto server = StoreServer::start(**store, path);
      if (!server || !append_one(**store, "captured")) ++failures;
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  captures.join();
  CHECK(failures == 0);
  CHECK(payload_sizes(path, "all").size() == 3 * kAppends);
}

TEST_CASE("a store that was replaced under a client is not written to", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  auto held = std::make_unique<Held>(path);
  const auto shared = must(SharedStore::open(path, impatient()));
  must(append_one(*shared, "a"));
  held.reset();
  std::filesystem::remove_all(path);
  const Held other(path);
  const auto result = append_one(*shared, "a", {}, "key");
  REQUIRE_FALSE(result);
  CHECK(result.error().code() == ErrorCode::kFailedPrecondition);
  CHECK(other.store->appended_end().value == 0);
}

namespace {

void set_compacting(Appender& store, std::string_view category) {
  const PolicyEvent policy = must(policy_event(category, {.retention = Retention::kCompact}));
  const NewStreamEvent event{.type = "PolicySet", .payload = policy.payload, .metadata = {}};
  const StreamAppend part{
      .stream = {kPolicyCategory, policy.key}, .expected = {}, .events = {&event, 1}};
  must(store.append_durably({.streams = {&part, 1}, .idempotency_key = {}}));
}

/// Segments of which most can go.
void fill(Appender& store) {
  for (int i = 0; i < 40; ++i) {
    must(append_one(store, "a", {}, {}, std::string(600, 'x')));
  }
}

}  // namespace

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

  CompactionProgress last;
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
  CHECK(must(restore_store(directory / "copy", directory / "restored")).end == copied.end);
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
  options.progress = [&](const CompactionProgress&) { stop.request_stop(); };
  const auto stopped = shared->compact(options);
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code() == ErrorCode::kCancelled);
  must(shared->compact({}));  // the holder's has ended
}

TEST_CASE("who only appends gives the store to one who wants to keep it", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  SharedStoreOptions options;
  options.hold = std::chrono::hours(1);  // never idle
  const auto shared = must(SharedStore::open(path, options));
  must(append_one(*shared, "a"));
  std::atomic<bool> done = false;
  std::thread busy([&] {
    while (!done) must(append_one(*shared, "a"));
  });
  CHECK(EventStore::open(path).error().code() == ErrorCode::kLocked);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  Result<std::unique_ptr<EventStore>> kept = Error(ErrorCode::kLocked, "");
  while (!kept && std::chrono::steady_clock::now() < deadline) {
    ask_to_yield(path);
    kept = EventStore::open(path);
  }
  REQUIRE(kept);
  {
    const auto server = must(StoreServer::start(**kept, path));
    const auto before = (*kept)->durable_end();
    // The other one goes on through this one, which does not yield.
    while ((*kept)->durable_end().value < before.value + 10 &&
           std::chrono::steady_clock::now() < deadline)
      ask_to_yield(path);
    CHECK((*kept)->durable_end().value >= before.value + 10);
    done = true;
    busy.join();
  }
}
