#include "service/shared_store.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "schemas/registry.h"
#include "tests/service/service_store.h"

using namespace millrace;
using namespace millrace::test;

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

TEST_CASE("nothing is appended to a captured table, whoever holds the store", "[service]") {
  const TemporaryDirectory directory;
  const Path path = directory / "store";
  std::optional<Held> holder;
  if (GENERATE(true, false)) holder.emplace(path);
  const auto shared = must(SharedStore::open(path));
  const auto append = [&](std::string_view category) {
    const NewStreamEvent event{.type = "Happened", .payload = "p", .metadata = {}};
    const std::vector<StreamAppend> parts{
        {.stream = {"cart", "1"}, .expected = {}, .events = {&event, 1}},
        {.stream = {category, "1"}, .expected = {}, .events = {&event, 1}}};
    const auto appended = shared->append_durably({.streams = parts, .idempotency_key = {}});
    return std::string(appended ? "appended" : name_of(appended.error().code()));
  };
  CHECK(append("public.lines") == "appended");  // no table of that name yet
  {
    const auto schemas = must(SchemaRegistry::open(path));
    must(schemas->record(
        {.category = "public.lines", .schema_name = "public", .table_name = "lines"}));
    must(schemas->flush());
  }
  CHECK(append("public.lines") == name_of(ErrorCode::kFailedPrecondition));
  CHECK(append("public.orders") == "appended");
  CHECK(payload_sizes(path, "1").size() == 2);  // nothing of what was refused
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
