#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "eventstore/inspect.h"
#include "tests/support/forwarding_fs.h"
#include "tests/support/store_fixture.h"

// What real file systems do when they are full, read-only, thin, or lack something. Some of it
// needs root, for mounts in a namespace of their own; without it those tests say so and end.

using namespace millrace;
using namespace millrace::test;

namespace {

/// Mounts of this process that nobody else sees, and that go with it.
bool may_mount() {
  static const bool allowed = ::geteuid() == 0 && ::unshare(CLONE_NEWNS) == 0 &&
                              ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  if (!allowed) WARN("left out: mounting needs root");
  return allowed;
}

class Tmpfs {
 public:
  Tmpfs(const Path& at, const std::string& options) : at_(at) {
    std::filesystem::create_directories(at);
    REQUIRE(::mount("tmpfs", at.c_str(), "tmpfs", 0, options.c_str()) == 0);
  }
  Tmpfs(const Tmpfs&) = delete;
  Tmpfs& operator=(const Tmpfs&) = delete;
  ~Tmpfs() { ::umount2(at_.c_str(), MNT_DETACH); }
  void change(const std::string& options, unsigned long flags = 0) {
    REQUIRE(::mount("tmpfs", at_.c_str(), "tmpfs", MS_REMOUNT | flags, options.c_str()) == 0);
  }

 private:
  Path at_;
};

StoreOptions real_options() { return small_options(FileSystem::real()); }

/// Appends until it fails; gives what was acknowledged, and the error.
History append_until_error(const Path& directory, Error& error, std::uint64_t limit = 5000) {
  History acknowledged;
  auto store = EventStore::open(directory, real_options());
  if (!store) {
    error = store.error();
    return acknowledged;
  }
  for (std::uint64_t number = 1; number <= limit; ++number) {
    const StoredTransaction transaction = sample_transaction(number, 10, 100);
    if (const auto done = append_durably(**store, transaction); !done) {
      error = done.error();
      // Whoever reads goes on meanwhile.
      REQUIRE(read_history(directory, FileSystem::real()) == acknowledged);
      return acknowledged;
    }
    acknowledged.push_back(transaction);
  }
  FAIL("nothing failed");
  return acknowledged;
}

void check_goes_on(const Path& directory, const History& acknowledged) {
  std::uint64_t next = 0;
  {
    const auto store = must(EventStore::open(directory, real_options()));
    const auto source = store->durable_source();
    next = (source ? source->commit / 10 : 0) + 1;
    REQUIRE(next > acknowledged.size());
    must(append_durably(*store, sample_transaction(next, 3)));
  }
  const History after = read_history(directory, FileSystem::real());
  REQUIRE(is_prefix(acknowledged, after));
  REQUIRE(after.back() == sample_transaction(next, 3));
  REQUIRE(must(verify_store(directory)).faults.empty());
}

}  // namespace

TEST_CASE("F19: a disk of any size fills up, reading goes on, and with room again so does writing",
          "[eventstore][disk]") {
  if (!may_mount()) return;
  const TemporaryDirectory folder;
  for (int pages = 1; pages <= 60; pages += pages < 20 ? 1 : 7) {
    CAPTURE(pages);
    Tmpfs disk(folder / "disk", "size=" + std::to_string(pages * 4) + "k");
    Error error(ErrorCode::kInternal, "");
    const History acknowledged = append_until_error(folder / "disk/store", error);
    CHECK(error.code() == ErrorCode::kNoSpace);
    disk.change("size=16m");
    check_goes_on(folder / "disk/store", acknowledged);
  }
}

TEST_CASE("F20: a file system out of inodes is a full disk", "[eventstore][disk]") {
  if (!may_mount()) return;
  const TemporaryDirectory folder;
  for (int inodes = 1; inodes <= 12; ++inodes) {
    CAPTURE(inodes);
    Tmpfs disk(folder / "disk", "size=16m,nr_inodes=" + std::to_string(inodes));
    Error error(ErrorCode::kInternal, "");
    const History acknowledged = append_until_error(folder / "disk/store", error);
    CHECK(error.code() == ErrorCode::kNoSpace);
    disk.change("size=16m,nr_inodes=1000");
    check_goes_on(folder / "disk/store", acknowledged);
  }
}

TEST_CASE("F21: a store on a read-only file system is read, not written", "[eventstore][disk]") {
  if (!may_mount()) return;
  const TemporaryDirectory folder;
  Tmpfs disk(folder / "disk", "size=16m");
  const Path directory = folder / "disk/store";
  const History written{sample_transaction(1, 5)};
  { must(append_durably(*must(EventStore::open(directory, real_options())), written[0])); }
  disk.change("size=16m", MS_RDONLY);
  const Error error = EventStore::open(directory, real_options()).error();
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(error.message().find("Read-only file system") != std::string::npos);
  CHECK(read_history(directory, FileSystem::real()) == written);
  disk.change("size=16m");
  check_goes_on(directory, written);
}

TEST_CASE(
    "F18: a sync that fails in a real kernel poisons the store and costs nothing acknowledged",
    "[eventstore][disk]") {
  if (!may_mount()) return;
  const TemporaryDirectory folder;
  // A disk of 256 MiB that has room for 24: ext4 takes the writes, the sync finds out.
  Tmpfs thin(folder / "thin", "size=24m");
  std::filesystem::create_directories(folder / "disk");
  const std::string image = folder / "thin/image", disk = folder / "disk";
  const std::string make = "truncate -s 256M " + image + " && mkfs.ext4 -q -F -E nodiscard " +
                           image + " && mount -o loop " + image + " " + disk + " 2>&-";
  if (std::system(make.c_str()) != 0) {
    WARN("left out: no loop device or no mkfs.ext4");
    return;
  }
  History acknowledged;
  {
    StoreOptions options = real_options();
    options.segment_bytes = 64 << 20;
    options.pending_bytes_max = 8 << 20;
    const auto store = must(EventStore::open(folder / "disk/store", options));
    Result<void> done;
    for (std::uint64_t number = 1; done && number < 500; ++number) {
      const StoredTransaction transaction = sample_transaction(number, 20, 50'000);
      done = append_durably(*store, transaction);
      if (done) acknowledged.push_back(transaction);
    }
    REQUIRE_FALSE(done);
    CHECK(store->status().error().message() == done.error().message());
  }
  // Mounted anew, the page cache is gone: what is there now is what the disk has.
  CHECK(std::system(("umount " + disk).c_str()) == 0);
  REQUIRE(std::system(("mount -o loop,ro,noload " + image + " " + disk + " 2>&-").c_str()) == 0);
  std::optional<Error> error;
  const History after = read_history(folder / "disk/store", FileSystem::real(), &error);
  CHECK((error || is_prefix(acknowledged, after)));
  CHECK((is_prefix(after, acknowledged) || is_prefix(acknowledged, after)));
  CHECK(std::system(("umount " + disk).c_str()) == 0);
}

namespace {

/// Blocks of 4 KiB that can't be read, in the files whose name ends with `name`.
class BadBlocks final : public ForwardingFileSystem {
 public:
  std::string name;
  std::optional<std::uint64_t> block;

  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    auto file = ForwardingFileSystem::open(path, mode);
    if (!file || !path.string().ends_with(name)) return file;
    return std::make_unique<BadFile>(*std::move(file), *this);
  }

 private:
  struct BadFile final : ForwardingFile {
    BadFile(std::unique_ptr<File> file, const BadBlocks& owner)
        : ForwardingFile(std::move(file)), blocks(owner) {}
    Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
      if (blocks.block && *blocks.block * 4096 < position + into.size() &&
          position < (*blocks.block + 1) * 4096)
        return Error(ErrorCode::kIo, "read: Input/output error");
      return ForwardingFile::read_at(position, into);
    }
    const BadBlocks& blocks;
  };
};

}  // namespace

TEST_CASE("F31: a block that can't be read costs its range only, and writing goes on",
          "[eventstore][disk]") {
  const TemporaryDirectory folder;
  const Path directory = folder / "store";
  History written;
  const auto store = must(EventStore::open(directory, real_options()));
  for (std::uint64_t number = 1; number <= 12; ++number) {
    written.push_back(sample_transaction(number, 20, 100));
    must(append_durably(*store, written.back()));
  }
  BadBlocks files;
  files.name = "/log/00000000000000000000.log";
  const std::uint64_t bytes = std::filesystem::file_size(directory / files.name.substr(1));
  REQUIRE(bytes > 3 * 4096);
  for (files.block = 0; *files.block * 4096 < bytes; ++*files.block) {
    std::optional<Error> error;
    const History read = read_history(directory, files, &error);
    REQUIRE(is_prefix(read, written));
    REQUIRE(error);
    CHECK(error->code() == ErrorCode::kIo);
    // What lies in other segments is read all the same.
    const auto reader =
        must(LogReader::open(directory, {.from = {200}, .categories = {}, .files = &files}));
    CHECK(must(reader->next()) != nullptr);
    written.push_back(sample_transaction(written.size() + 1, 1));
    must(append_durably(*store, written.back()));
  }
}

TEST_CASE("F45: a file system without locks is refused, for two writers would meet there",
          "[eventstore][disk]") {
  class NoLocks final : public ForwardingFileSystem {
    Result<std::unique_ptr<FileLock>> lock(const Path& path) override {
      return Error::from_errno(ENOLCK, "lock " + path.string());
    }
  };
  const TemporaryDirectory folder;
  NoLocks files;
  const Error error = EventStore::open(folder / "store", small_options(files)).error();
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(error.message().find("No locks available") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(folder / "store/log"));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they stand here themselves

namespace {

/// What the kernel does to this thread's and the flusher's calls.
struct Kernel {
  std::atomic<std::size_t> bytes_max = SIZE_MAX;  // of one read or write
  std::atomic<unsigned> interrupts_every = 0;     // calls end with EINTR
  std::atomic<bool> allocates = true;
  std::atomic<unsigned> calls = 0;

  bool interrupts() {
    const unsigned every = interrupts_every;
    return every != 0 && ++calls % every == 0;
  }
  void reset() {
    bytes_max = SIZE_MAX;
    interrupts_every = 0;
    allocates = true;
  }
} kernel;

}  // namespace

extern "C" {
ssize_t pread(int file, void* into, std::size_t size, off_t position) {
  if (kernel.interrupts()) return errno = EINTR, -1;
  return ::syscall(SYS_pread64, file, into, std::min(size, kernel.bytes_max.load()), position);
}
ssize_t pwrite(int file, const void* from, std::size_t size, off_t position) {
  if (kernel.interrupts()) return errno = EINTR, -1;
  return ::syscall(SYS_pwrite64, file, from, std::min(size, kernel.bytes_max.load()), position);
}
int fallocate(int file, int mode, off_t position, off_t size) {
  if (kernel.interrupts()) return errno = EINTR, -1;
  if (!kernel.allocates) return errno = EOPNOTSUPP, -1;
  return static_cast<int>(::syscall(SYS_fallocate, file, mode, position, size));
}
int ftruncate(int file, off_t size) noexcept {
  if (kernel.interrupts()) return errno = EINTR, -1;
  return static_cast<int>(::syscall(SYS_ftruncate, file, size));
}
}

TEST_CASE("F15: reads and writes that are short or interrupted are gone on with",
          "[eventstore][disk]") {
  const TemporaryDirectory folder;
  const auto [bytes, every] = GENERATE(table<std::size_t, unsigned>(
      {{1000, 0}, {513, 0}, {7, 0}, {SIZE_MAX, 2}, {SIZE_MAX, 3}, {100, 2}}));
  kernel.bytes_max = bytes;
  kernel.interrupts_every = every;
  History written;
  {
    const auto store = must(EventStore::open(folder / "store", real_options()));
    for (std::uint64_t number = 1; number <= 8; ++number) {
      written.push_back(sample_transaction(number, 1 + number % 7, 100));
      must(append_durably(*store, written.back()));
    }
  }
  const History read = read_history(folder / "store", FileSystem::real());
  kernel.reset();
  CHECK(read == written);
  CHECK(must(verify_store(folder / "store")).faults.empty());
}

TEST_CASE("F45: a file system without preallocation holds a store as well", "[eventstore][disk]") {
  const TemporaryDirectory folder;
  kernel.allocates = false;
  History written;
  {
    const auto store = must(EventStore::open(folder / "store", real_options()));
    for (std::uint64_t number = 1; number <= 12; ++number) {
      written.push_back(sample_transaction(number, 20, 100));
      must(append_durably(*store, written.back()));
    }
  }
  const History read = read_history(folder / "store", FileSystem::real());
  kernel.reset();
  CHECK(read == written);
  CHECK(must(verify_store(folder / "store")).faults.empty());
}

#endif
