#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <random>
#include <thread>

#include "eventstore/inspect.h"
#include "tests/support/store_fixture.h"

// What takes a second process: the kernel's files, locks and futexes.

using namespace millrace;
using namespace millrace::test;
using namespace std::chrono_literals;

namespace {

/// Numbers that a child tells its parent, whatever becomes of it.
struct Shared {
  std::atomic<std::uint64_t> acknowledged = 0;
  std::atomic<std::uint64_t> ready = 0;
};

class SharedMemory {
 public:
  SharedMemory()
      : memory_(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)),
        shared_(new (memory_) Shared) {}
  ~SharedMemory() { ::munmap(memory_, sizeof(Shared)); }
  Shared* operator->() { return shared_; }

 private:
  void* memory_;
  Shared* shared_;
};

template <typename Work>
pid_t in_child(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  REQUIRE(child > 0);
  return child;
}

/// The exit code, or 128 and the signal.
int wait_for(pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::size_t events_of(std::uint64_t number) { return number % 10 == 0 ? 150 : number % 6; }

/// Appends for ever; transaction after transaction is acknowledged through `shared`.
void write_until_killed(const Path& directory, SharedMemory& shared) {
  StoreOptions options = small_options(FileSystem::real());
  options.flush_interval = 0ms;
  options.segment_bytes = 64 << 10;
  auto store = EventStore::open(directory, options);
  if (!store) ::_exit(7);
  ++shared->ready;
  const auto source = (*store)->durable_source();
  if (shared->acknowledged > (source ? source->commit / 10 : 0)) ::_exit(9);  // lost
  for (std::uint64_t number = source ? source->commit / 10 + 1 : 1;; ++number) {
    if (!append_durably(**store, sample_transaction(number, events_of(number)))) ::_exit(8);
    shared->acknowledged = number;
  }
}

}  // namespace

TEST_CASE("F1, F3: a writer killed a thousand times loses nothing that it acknowledged",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  SharedMemory shared;
  std::mt19937_64 random(42);
  constexpr int kKills = 1000;
  int opened = 0, advanced = 0;
  for (int cycle = 0; cycle < kKills; ++cycle) {
    const std::uint64_t ready_before = shared->ready, acknowledged_before = shared->acknowledged;
    const pid_t child = in_child([&] { write_until_killed(directory, shared); });
    // Every third dies early: mostly while it recovers what the one before left. The others die while
    // they write, however slow the machine is.
    const bool dies_early = cycle % 3 == 0;
    const auto started = std::chrono::steady_clock::now();
    while (!dies_early && shared->ready == ready_before &&
           std::chrono::steady_clock::now() - started < 10s)
      std::this_thread::yield();
    const std::uint64_t longest = dies_early ? 2'000 : 20'000;
    std::this_thread::sleep_for(std::chrono::microseconds(random() % longest));
    REQUIRE(::kill(child, SIGKILL) == 0);
    REQUIRE(wait_for(child) == 128 + SIGKILL);  // else it says what it missed
    opened += shared->ready != ready_before ? 1 : 0;
    advanced += shared->acknowledged != acknowledged_before ? 1 : 0;
  }
  CHECK(opened < kKills);  // some died before the store was open
  CHECK(opened >= kKills / 2);
  CHECK(advanced > 0);  // how many depends on how busy the machine is
  const std::uint64_t acknowledged = shared->acknowledged;
  {
    const auto store = must(EventStore::open(directory, small_options(FileSystem::real())));
    REQUIRE(store->durable_source()->commit / 10 >= acknowledged);
  }
  History expected;
  for (std::uint64_t number = 1; number <= acknowledged; ++number)
    if (events_of(number) != 0) expected.push_back(sample_transaction(number, events_of(number)));
  REQUIRE(!expected.empty());
  REQUIRE(is_prefix(expected, read_history(directory, FileSystem::real())));
  CHECK(must(verify_store(directory)).faults.empty());
}

TEST_CASE(
    "F14: a writer that crashes in a loop starts each time, and takes away only what is its own",
    "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  SharedMemory shared;
  for (int cycle = 0; cycle < 20; ++cycle) {
    const std::uint64_t ready_before = shared->ready;
    const pid_t child = in_child([&] { write_until_killed(directory, shared); });
    const auto started = std::chrono::steady_clock::now();
    while (shared->ready == ready_before &&
           std::chrono::steady_clock::now() - started < std::chrono::seconds(10))
      std::this_thread::yield();
    CHECK(shared->ready != ready_before);
    REQUIRE(::kill(child, SIGKILL) == 0);
    REQUIRE(wait_for(child) == 128 + SIGKILL);
    std::ofstream(directory / "log" / "00000000000099999999.log.tmp") << "half a page";
    std::ofstream(directory / "log" / "notes.tmp") << "of somebody else";
  }
  CHECK(EventStore::open(directory, small_options(FileSystem::real())));
  CHECK_FALSE(std::filesystem::exists(directory / "log" / "00000000000099999999.log.tmp"));
  CHECK(std::filesystem::exists(directory / "log" / "notes.tmp"));
}

TEST_CASE("B69: a writer in another process is refused with pid and program",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  SharedMemory shared;
  const pid_t child = in_child([&] {
    const auto store = EventStore::open(directory, small_options(FileSystem::real()));
    shared->ready = store ? 1 : 2;
    shared->ready.notify_all();
    ::pause();
  });
  while (shared->ready == 0) std::this_thread::yield();
  REQUIRE(shared->ready == 1);
  const auto started = std::chrono::steady_clock::now();
  const Error error = EventStore::open(directory).error();
  CHECK(std::chrono::steady_clock::now() - started < 1s);
  CHECK(error.code() == ErrorCode::kLocked);
  CHECK(error.message().find("pid " + std::to_string(child) + ", ") != std::string::npos);
  CHECK(must(summarize_store(directory)).writer.find("pid " + std::to_string(child)) == 0);
  REQUIRE(::kill(child, SIGKILL) == 0);
  wait_for(child);
  CHECK(EventStore::open(directory).has_value());  // no stale lock
}

TEST_CASE("readers in another process are woken when the durable end moves",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  SharedMemory shared;
  // Made and closed before the fork, so that no thread of this process is in the way of it.
  {
    must(append_durably(*must(EventStore::open(directory, small_options(FileSystem::real()))),
                        sample_transaction(1, 1)));
  }
  constexpr std::uint64_t kTransactions = 200;
  const pid_t child = in_child([&] {
    const auto reader = LogReader::open(directory);
    if (!reader) ::_exit(2);
    shared->ready = 1;
    for (std::uint64_t events = 0; events < kTransactions;) {
      const auto batch = (*reader)->next();
      if (!batch) ::_exit(3);
      if (*batch == nullptr) {
        if (!(*reader)->wait(30s).value_or(false)) ::_exit(4);
        continue;
      }
      while ((*batch)->next() != nullptr) ++events;
      shared->acknowledged = events;
    }
  });
  while (shared->ready == 0) std::this_thread::yield();
  const auto store = must(EventStore::open(directory, small_options(FileSystem::real())));
  std::vector<std::chrono::nanoseconds> latencies;
  for (std::uint64_t number = 2; number <= kTransactions; ++number) {
    must(append_durably(*store, sample_transaction(number, 1)));
    const auto durable = std::chrono::steady_clock::now();
    while (shared->acknowledged < number && std::chrono::steady_clock::now() - durable < 30s)
      std::this_thread::yield();
    latencies.push_back(std::chrono::steady_clock::now() - durable);
  }
  CHECK(wait_for(child) == 0);
  // Far below the second after which a reader looks by itself; the bound leaves room for a busy
  // machine.
  std::sort(latencies.begin(), latencies.end());
  CHECK(latencies[latencies.size() / 2] < 100ms);
}

TEST_CASE("a reader follows across the death of the writer and the start of the next",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  { must(EventStore::open(directory)); }
  const auto reader = must(LogReader::open(directory));
  SharedMemory shared;
  StoredTransaction transaction;
  std::uint64_t seen = 0;
  for (int cycle = 0; cycle < 10; ++cycle) {
    const pid_t child = in_child([&] { write_until_killed(directory, shared); });
    const std::uint64_t goal = seen + 20;
    while (seen < goal) {
      Batch* batch = must(reader->next());
      if (batch == nullptr) {
        REQUIRE(must(reader->wait(30s)));
        continue;
      }
      std::uint64_t events = 0;
      while (batch->next() != nullptr) ++events;
      REQUIRE(batch->status());
      if (batch->last_of_transaction) {
        const std::uint64_t number = batch->info.source.commit / 10;
        REQUIRE(number > seen);
        for (std::uint64_t between = seen + 1; between < number; ++between)
          REQUIRE(events_of(between) == 0);  // nothing was passed over
        seen = number;
      }
    }
    REQUIRE(::kill(child, SIGKILL) == 0);
    wait_for(child);
  }
}

TEST_CASE("F44: a store that is moved, removed or replaced under its writer takes no more events",
          "[eventstore][process]") {
  class MovableClock final : public Clock {
   public:
    Monotonic monotonic() override { return system().monotonic() + ahead.load(); }
    UnixMicros wall() override { return system().wall(); }
    std::atomic<std::chrono::seconds> ahead{0s};
  };
  const TemporaryDirectory folder;
  const Path directory = folder / "store", elsewhere = folder / "elsewhere";
  MovableClock clock;
  StoreOptions options = small_options(FileSystem::real());
  options.clock = &clock;
  auto store = must(EventStore::open(directory, options));
  must(append_durably(*store, sample_transaction(1, 3)));
  const bool waits = GENERATE(true, false);
  bool replaced = false;
  SECTION("moved") { std::filesystem::rename(directory, elsewhere); }
  SECTION("removed") { std::filesystem::remove_all(directory); }
  SECTION("replaced by a copy") {
    std::filesystem::rename(directory, elsewhere);
    std::filesystem::copy(elsewhere, directory, std::filesystem::copy_options::recursive);
    replaced = true;
  }
  Result<void> done;
  if (waits) {
    clock.ahead = 2s;
    done = append_durably(*store, sample_transaction(2, 3));
  } else {
    for (std::uint64_t number = 2; done && number < 20; ++number)  // until a segment is full
      done = append_durably(*store, sample_transaction(number, 20, 200));
  }
  REQUIRE_FALSE(done);
  CHECK(done.error().code() == ErrorCode::kFailedPrecondition);
  store.reset();
  CHECK(std::filesystem::exists(directory) == replaced);  // no new one was made silently
  if (!replaced) return;
  CHECK(read_history(directory, FileSystem::real()) == History{sample_transaction(1, 3)});
  CHECK(std::distance(std::filesystem::directory_iterator(directory / "log"), {}) == 1);
}

TEST_CASE("B33: files of a store are for their owner only, whatever the umask",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const mode_t before = ::umask(0);
  {
    const auto store = must(EventStore::open(directory, small_options(FileSystem::real())));
    for (std::uint64_t number = 1; number <= 4; ++number)
      must(append_durably(*store, sample_transaction(number, 100)));
    must(store->run_maintenance());
  }
  ::umask(before);
  const auto others = std::filesystem::perms::group_all | std::filesystem::perms::others_all;
  CHECK((std::filesystem::status(directory).permissions() & others) ==
        std::filesystem::perms::none);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    CAPTURE(entry.path());
    CHECK((entry.status().permissions() & others) == std::filesystem::perms::none);
    ++files;
  }
  CHECK(files > 5);  // segments and an index among them
}

TEST_CASE("B33: a store whose files are read-only is read, not written", "[eventstore][process]") {
  if (::geteuid() == 0) {
    WARN("left out: root may write everything");
    return;
  }
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const auto open = [&] { return EventStore::open(directory, small_options(FileSystem::real())); };
  { must(append_durably(*must(open()), sample_transaction(1, 1))); }
  const Path segment = directory / "log/00000000000000000000.log";
  std::filesystem::permissions(segment, std::filesystem::perms::owner_read);
  CHECK(open().error().code() == ErrorCode::kIo);
  CHECK(read_history(directory, FileSystem::real()).size() == 1);
}

TEST_CASE("B32: a link, a pipe or a folder in place of a file of the store is refused, and at once",
          "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const auto open = [&] { return EventStore::open(directory, small_options(FileSystem::real())); };
  { must(append_durably(*must(open()), sample_transaction(1, 1))); }
  const std::string name = GENERATE("HEAD", "LOCK", "store.json", "log/00000000000000000000.log");
  const Path path = directory / name;
  std::filesystem::rename(path, folder / "elsewhere");
  std::filesystem::create_symlink(folder / "elsewhere", path);
  CHECK(open().error().code() == ErrorCode::kFailedPrecondition);
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  CHECK_FALSE(open());
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(open().error().code() == ErrorCode::kFailedPrecondition);
  if (name != "LOCK") {
    const auto reader = LogReader::open(directory);
    CHECK(reader.error().code() == ErrorCode::kFailedPrecondition);
  }
  std::filesystem::remove(path);
  std::filesystem::rename(folder / "elsewhere", path);
  CHECK(open());
}

TEST_CASE("B32: a description made a terabyte long is refused unread", "[eventstore][process]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  const auto open = [&] { return EventStore::open(directory, small_options(FileSystem::real())); };
  { must(append_durably(*must(open()), sample_transaction(1, 1))); }
  const Path description = directory / "store.json";
  std::filesystem::resize_file(description, std::uintmax_t{1} << 40);
  CHECK(open().error().code() == ErrorCode::kCorruption);
  CHECK(LogReader::open(directory).error().code() == ErrorCode::kCorruption);
}
