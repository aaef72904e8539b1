#pragma once

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>

#include "capture/capture.h"
#include "eventstore/inspect.h"
#include "tests/support/captured_log.h"
#include "tests/support/forwarding_fs.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

/// What most tests of capture begin with: a database with a table, a store for it, a disk that
/// behaves badly when asked to.
namespace millrace::test {

inline constexpr const char* kOrders =
    "CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric(12,2), note text)";

/// A database with one table, and a store for it.
struct Scene {
  TestDatabase database;
  TemporaryDirectory directory;

  Scene() { database.exec(kOrders); }
  Path store() const { return directory.path() / "store"; }
  CaptureOptions options() {
    CaptureOptions options;
    options.source = database.uri();
    options.store = store();
    options.slot = database.name();
    options.status_interval = std::chrono::milliseconds(100);
    return options;
  }
  std::string slot_column(const std::string& column) {
    return database.value("SELECT " + column + " FROM pg_replication_slots WHERE slot_name = '" +
                          database.name() + "'");
  }
  bool is_streaming() {
    return database.value(
               "SELECT count(*) FROM pg_stat_replication r JOIN pg_replication_slots s ON "
               "s.active_pid = r.pid"
               " WHERE r.state = 'streaming' AND s.slot_name = '" +
               database.name() + "'") == "1";
  }
  /// Of changes: what tells how far a snapshot is does not count.
  std::uint64_t durable_changes() { return count_changes(store()); }
};

inline nlohmann::json order(std::int64_t id, const char* status, const char* total) {
  return {{"id", id}, {"status", status}, {"total", total}, {"note", nullptr}};
}

/// "SLOT_MISSING" of the error that a capture halted with; "none" if it did not end with one.
inline std::string state_of(const Result<void>& outcome) {
  if (outcome) return "none";
  return outcome.error().message().substr(0, outcome.error().message().find(':'));
}

/// A disk whose syncs stand still while `stalled`, or whose log writes fail for want of space while
/// `full`.
class TroubledDisk final : public test::ForwardingFileSystem {
 public:
  std::atomic<bool> stalled = false, full = false;
  std::atomic<int> waiting = 0;
  std::string stall_after;  ///< Stalled once a file of this name was put in place.

  void release() {
    stalled = false;
    stalled.notify_all();
  }

  Result<void> rename(const Path& from, const Path& to) override {
    MILLRACE_RETURN_IF_ERROR(ForwardingFileSystem::rename(from, to));
    if (to.filename() == stall_after) stalled = true;
    return {};
  }
  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    MILLRACE_ASSIGN_OR_RETURN(auto file, ForwardingFileSystem::open(path, mode));
    return std::unique_ptr<File>(new Watched(std::move(file), *this));
  }

 private:
  class Watched final : public test::ForwardingFile {
   public:
    Watched(std::unique_ptr<File> file, TroubledDisk& disk)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
      if (disk_.full && bytes.size() > 64)
        return Error(ErrorCode::kNoSpace, "write: no space left on device");
      return ForwardingFile::write_at(position, bytes);
    }
    Result<void> sync() override {
      ++disk_.waiting;
      disk_.stalled.wait(true);
      --disk_.waiting;
      return ForwardingFile::sync();
    }

   private:
    TroubledDisk& disk_;
  };
};

/// Whatever a test ends with, nobody waits for the disk for ever.
struct Release {
  TroubledDisk& disk;
  ~Release() { disk.release(); }
};

}  // namespace millrace::test
