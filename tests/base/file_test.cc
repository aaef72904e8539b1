#include "base/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/fault_fs.h"
#include "tests/support/temporary_directory.h"

using namespace millrace;
using namespace millrace::test;
using namespace std::chrono_literals;

namespace {

FileSystem& files() { return FileSystem::real(); }

std::string read_all(const Path& path) { return read_file(files(), path, 1 << 20).value(); }

}  // namespace

TEST_CASE("what is written at a position is read there, and reading ends at the end", "[base]") {
  const TemporaryDirectory folder;
  const auto file = files().open(folder / "f", OpenMode::kCreate).value();
  REQUIRE(file->write_at(3, "abc"));
  REQUIRE(file->sync());
  char bytes[10] = {};
  CHECK(file->read_at(0, bytes) == 6);
  CHECK(std::string_view(bytes, 6) == std::string_view("\0\0\0abc", 6));
  CHECK(file->read_at(6, bytes) == 0);
  CHECK(file->read_at(600, bytes) == 0);
  CHECK(file->size() == 6);
  REQUIRE(file->truncate(4));
  CHECK(read_all(folder / "f").size() == 4);
  REQUIRE(file->allocate(4, 8192));
  CHECK(file->size() == 8196);
  CHECK(read_all(folder / "f").substr(3) == "a" + std::string(8192, '\0'));
}

TEST_CASE("opening says what is wrong with what is there", "[base]") {
  const TemporaryDirectory folder;
  CHECK(files().open(folder / "none", OpenMode::kRead).error().code() == ErrorCode::kNotFound);
  REQUIRE(files().open(folder / "there", OpenMode::kCreate));
  CHECK(files().open(folder / "there", OpenMode::kCreate).error().code() == ErrorCode::kIo);
  CHECK(files().open(folder.path(), OpenMode::kRead).error().code() ==
        ErrorCode::kFailedPrecondition);
  std::filesystem::create_symlink(folder / "there", folder / "link");
  CHECK(files().open(folder / "link", OpenMode::kRead).error().code() ==
        ErrorCode::kFailedPrecondition);
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);  // opening it must not wait for a writer
  CHECK(files().open(folder / "fifo", OpenMode::kRead).error().code() ==
        ErrorCode::kFailedPrecondition);
}

TEST_CASE("B32: what is no regular file is refused in place of a lock and of a shared word",
          "[base]") {
  const TemporaryDirectory folder;
  REQUIRE(files().open(folder / "there", OpenMode::kCreate));
  REQUIRE(::mkfifo((folder / "fifo").c_str(), 0600) == 0);  // opening it must not wait for a writer
  std::filesystem::create_symlink(folder / "there", folder / "link");
  for (const Path& path : {folder / "fifo", folder / "link"}) {
    CAPTURE(path);
    CHECK(files().lock(path).error().code() == ErrorCode::kFailedPrecondition);
    CHECK(files().lock_holder(path).error().code() == ErrorCode::kFailedPrecondition);
    CHECK(files().shared_word(path, 0).error().code() == ErrorCode::kFailedPrecondition);
  }
  CHECK_FALSE(files().lock(folder.path()));
  CHECK(files().lock_holder(folder.path()).error().code() == ErrorCode::kFailedPrecondition);
}

TEST_CASE("F20: a file over its size limit is a full disk, not a death", "[base]") {
  const TemporaryDirectory folder;
  // /dev/full is no regular file, so it is refused before it could be full.
  CHECK(files().open("/dev/full", OpenMode::kReadWrite).error().code() ==
        ErrorCode::kFailedPrecondition);
  const auto file = files().open(folder / "f", OpenMode::kCreate).value();
  const auto written = file->write_at(std::uint64_t{1} << 62, "x");
  REQUIRE_FALSE(written);
  CHECK(written.error().code() == ErrorCode::kNoSpace);
}

TEST_CASE("directories are listed sorted, made once, and only for the owner", "[base]") {
  const TemporaryDirectory folder;
  REQUIRE(files().make_directory(folder / "d"));
  REQUIRE(files().make_directory(folder / "d"));
  CHECK(files().make_directory(folder / "no/such/parent").error().code() == ErrorCode::kNotFound);
  for (const char* name : {"b", "a", "c"})
    REQUIRE(files().open(folder / "d" / name, OpenMode::kCreate));
  CHECK(files().list(folder / "d") == std::vector<std::string>{"a", "b", "c"});
  REQUIRE(files().rename(folder / "d/a", folder / "d/z"));
  REQUIRE(files().remove(folder / "d/b"));
  REQUIRE(files().sync_directory(folder / "d"));
  CHECK(files().list(folder / "d") == std::vector<std::string>{"c", "z"});
  CHECK(files().exists(folder / "d/c") == true);
  CHECK(files().exists(folder / "d/b") == false);
  CHECK(files().exists(folder / "d/c/x") == false);
  CHECK(files().remove(folder / "d/b").error().code() == ErrorCode::kNotFound);
  CHECK(files().list(folder / "none").error().code() == ErrorCode::kNotFound);
  CHECK((std::filesystem::status(folder / "d").permissions() &
         std::filesystem::perms::others_all) == std::filesystem::perms::none);
}

TEST_CASE("a file keeps its identity under another name", "[base]") {
  const TemporaryDirectory folder;
  const auto file = files().open(folder / "a", OpenMode::kCreate).value();
  REQUIRE(files().rename(folder / "a", folder / "b"));
  CHECK(files().open(folder / "b", OpenMode::kRead).value()->identity().value() ==
        file->identity().value());
  CHECK(files().open(folder / "c", OpenMode::kCreate).value()->identity().value() !=
        file->identity().value());
}

TEST_CASE("a file is replaced as a whole, or not at all", "[base]") {
  for (std::uint64_t step = 1;; ++step) {
    FaultFs disk;
    REQUIRE(write_file_atomically(disk, "/f", "old"));
    disk.die_at(step);
    const bool written = write_file_atomically(disk, "/f", std::string(2000, 'n')).has_value();
    const bool hit = disk.fault_was_hit();
    disk.lose_power(step);
    const std::string content = disk.content("/f");
    REQUIRE((content == "old" || content == std::string(2000, 'n')));
    if (written) REQUIRE(content != "old");
    REQUIRE(write_file_atomically(disk, "/f", "next"));  // a leftover is not in the way
    REQUIRE(disk.content("/f") == "next");
    if (!hit) break;
  }
}

TEST_CASE("a file larger than it can be is not read", "[base]") {
  const TemporaryDirectory folder;
  std::ofstream(folder / "f") << "12345";
  CHECK(read_file(files(), folder / "f", 5) == std::string("12345"));
  CHECK(read_file(files(), folder / "f", 4).error().code() == ErrorCode::kCorruption);
}

TEST_CASE("a lock is held by one, who is named, and free when let go", "[base]") {
  const TemporaryDirectory folder;
  const Path path = folder / "LOCK";
  CHECK(files().lock_holder(path) == std::string());
  CHECK(files().exists(path) == false);
  auto lock = files().lock(path).value();
  CHECK(files().lock_holder(path) == std::string("another process"));
  REQUIRE(lock->describe("pid 5, a program with a long name"));
  REQUIRE(lock->describe("pid 7, me"));
  CHECK(files().lock_holder(path) == std::string("pid 7, me"));
  const Error error = files().lock(path).error();
  CHECK(error.code() == ErrorCode::kLocked);
  CHECK(error.message().find("held by pid 7, me") != std::string::npos);
  lock.reset();
  CHECK(files().lock_holder(path) == std::string());
  CHECK(files().lock(path).has_value());
}

TEST_CASE("asking who holds a lock is never in the way of the one who takes it", "[base]") {
  const TemporaryDirectory folder;
  const Path path = folder / "LOCK";
  REQUIRE(files().lock(path));
  std::jthread asker([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      static_cast<void>(files().lock_holder(path));
      std::this_thread::yield();
    }
  });
  int refused = 0;
  for (int i = 0; i < 200; ++i) refused += files().lock(path) ? 0 : 1;
  CHECK(refused == 0);
}

TEST_CASE("who sleeps on a word wakes when it changes, in any mapping of it", "[base]") {
  const TemporaryDirectory folder;
  const Path path = folder / "word";
  const auto file = files().open(path, OpenMode::kCreate).value();
  REQUIRE(file->write_at(0, std::string(8, '\0')));
  const auto word = files().shared_word(path, 4).value();
  const auto other = files().shared_word(path, 4).value();
  std::atomic<bool> woken = false;
  std::jthread sleeper([&] {
    char now[4] = {};
    while (now[0] == 0) {
      other->wait(0, 1min);
      static_cast<void>(file->read_at(4, now));
    }
    woken = true;
  });
  REQUIRE(file->write_at(4, "\x01"));
  word->wake_all();
  sleeper.join();
  CHECK(woken);
  const auto start = std::chrono::steady_clock::now();
  word->wait(0, 1min);  // it is 1 meanwhile
  word->wait(1, 1ms);   // nobody wakes
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}

TEST_CASE("F40: a word in a file that was cut short does no harm", "[base]") {
  const TemporaryDirectory folder;
  const auto file = files().open(folder / "word", OpenMode::kCreate).value();
  REQUIRE(file->write_at(0, std::string(8, '\0')));
  const auto word = files().shared_word(folder / "word", 0).value();
  REQUIRE(file->truncate(0));
  word->wait(0, 1ms);
  word->wake_all();
  CHECK(files().shared_word(folder / "none", 0).error().code() == ErrorCode::kNotFound);
}

TEST_CASE("the machine has one boot id", "[base]") {
  CHECK(files().boot_id().size() == 36);
  CHECK(files().boot_id() == files().boot_id());
}
