#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace millrace::projections::test {

/// A disk under SQLite that fails when asked to, and knows what a loss of power would leave: while
/// there is one of these, every file that SQLite opens is on it.
///
/// Only main files and WALs are written through it; the index beside a WAL is shared memory, which
/// is lost with the power. Threads: any.
class FaultVfs {
 public:
  enum class Fault { kNoSpace, kIo };
  enum class Which { kWrites, kAll };  ///< Writes, truncations and syncs; or reads, too.

  FaultVfs() : real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
    vfs_.zName = "millrace-faults";
    vfs_.pAppData = this;
    vfs_.szOsFile = static_cast<int>(sizeof(Handle)) + real_->szOsFile;
    vfs_.pNext = nullptr;
    vfs_.xOpen = &FaultVfs::open;
    vfs_.xDelete = &FaultVfs::remove;
    if (sqlite3_vfs_register(&vfs_, 1) != SQLITE_OK) throw std::runtime_error("no VFS");
  }
  ~FaultVfs() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
  }
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  /// The `at`th operation from now on fails, the first being 1; and all after it, if `for_ever`.
  void fail(std::uint64_t at, Fault fault, Which which, bool for_ever) {
    const std::lock_guard lock(mutex_);
    at_ = at, fault_ = fault, which_ = which, for_ever_ = for_ever, count_ = 0, met_ = false;
  }
  void work_again() { fail(0, Fault::kIo, Which::kWrites, false); }
  /// Whether there was such an operation.
  bool met() {
    const std::lock_guard lock(mutex_);
    return met_;
  }

  /// Called before each write, truncation and sync, when lose_power() tells what there would be.
  void before_each(std::function<void()> look) { look_ = std::move(look); }

  /// Writes to `folder` the files as they might be after a loss of power at this moment: of what
  /// was not synced, each write may be there or not, or be torn. For the look of before_each().
  template <typename Random>
  void lose_power(const std::filesystem::path& folder, Random& random) {
    const auto any = [&](std::size_t end) {
      return std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
    };
    // Nothing, everything, or some of what was not synced.
    const std::size_t luck = any(4);
    for (const auto& [path, disk] : disks_) {
      if (disk.removed && (disk.removed_durably || any(2) == 0)) continue;
      std::string bytes = disk.synced;
      for (const Change& change : disk.changes) {
        if (luck == 0 || (luck > 1 && any(2) == 0)) continue;
        const std::size_t length =
            luck > 2 && any(8) == 0 ? any(change.bytes.size() + 1) : change.bytes.size();
        apply({change.at, change.bytes.substr(0, length), change.truncates}, bytes);
      }
      std::ofstream(folder / std::filesystem::path(path).filename(), std::ios::binary) << bytes;
    }
  }

 private:
  struct Change {
    std::size_t at = 0;
    std::string bytes;
    bool truncates = false;
  };
  struct Disk {
    std::string synced;           ///< What is there whatever happens.
    std::vector<Change> changes;  ///< Since the last sync, in order.
    bool removed = false, removed_durably = false;
  };
  struct Handle : sqlite3_file {
    FaultVfs* owner;
    const char* path;  ///< Lives as long as the file is open; nullptr for one that has no name.
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };

  static void apply(const Change& change, std::string& bytes) {
    if (change.truncates) return bytes.resize(change.at);
    if (bytes.size() < change.at + change.bytes.size())
      bytes.resize(change.at + change.bytes.size());
    std::memcpy(bytes.data() + change.at, change.bytes.data(), change.bytes.size());
  }

  /// SQLITE_OK, or what to fail with.
  int meet(bool is_write, int io_error) {
    const std::lock_guard lock(mutex_);
    if (at_ == 0 || (!is_write && which_ == Which::kWrites)) return SQLITE_OK;
    ++count_;
    if (count_ != at_ && !(for_ever_ && count_ > at_)) return SQLITE_OK;
    met_ = true;
    return fault_ == Fault::kNoSpace && io_error == SQLITE_IOERR_WRITE ? SQLITE_FULL : io_error;
  }
  void note(Handle* file, Change change) {
    if (look_) look_();
    const std::lock_guard lock(mutex_);
    if (file->path != nullptr) disks_[file->path].changes.push_back(std::move(change));
  }
  void note_sync(Handle* file) {
    if (look_) look_();
    const std::lock_guard lock(mutex_);
    if (file->path == nullptr) return;
    Disk& disk = disks_[file->path];
    for (const Change& change : disk.changes) apply(change, disk.synced);
    disk.changes.clear();
  }

  static Handle* handle(sqlite3_file* file) { return static_cast<Handle*>(file); }
  static FaultVfs& self(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out) {
    FaultVfs& owner = self(vfs);
    auto* opened = static_cast<Handle*>(file);
    opened->pMethods = nullptr;
    opened->owner = &owner;
    opened->path = name;
    const int code = owner.real_->xOpen(owner.real_, name, opened->real(), flags, out);
    if (code != SQLITE_OK) return code;
    opened->pMethods = &kMethods;
    if (name == nullptr) return SQLITE_OK;
    const std::lock_guard lock(owner.mutex_);
    const auto found = owner.disks_.find(name);
    if (found == owner.disks_.end() || found->second.removed) {
      std::ifstream in(name, std::ios::binary);
      owner.disks_[name] = {.synced = std::string(std::istreambuf_iterator<char>(in), {}),
                            .changes = {}};
    }
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int sync_folder) {
    FaultVfs& owner = self(vfs);
    if (owner.look_) owner.look_();
    const int code = owner.real_->xDelete(owner.real_, name, sync_folder);
    const std::lock_guard lock(owner.mutex_);
    if (const auto found = owner.disks_.find(name);
        code == SQLITE_OK && found != owner.disks_.end())
      found->second.removed = true, found->second.removed_durably = sync_folder != 0;
    return code;
  }
  static int close(sqlite3_file* file) {
    return handle(file)->real()->pMethods->xClose(handle(file)->real());
  }
  static int read(sqlite3_file* file, void* to, int size, sqlite3_int64 at) {
    if (const int code = handle(file)->owner->meet(false, SQLITE_IOERR_READ)) return code;
    return handle(file)->real()->pMethods->xRead(handle(file)->real(), to, size, at);
  }
  static int write(sqlite3_file* file, const void* from, int size, sqlite3_int64 at) {
    if (const int code = handle(file)->owner->meet(true, SQLITE_IOERR_WRITE)) return code;
    handle(file)->owner->note(
        handle(file),
        {static_cast<std::size_t>(at),
         std::string(static_cast<const char*>(from), static_cast<std::size_t>(size)), false});
    return handle(file)->real()->pMethods->xWrite(handle(file)->real(), from, size, at);
  }
  static int truncate(sqlite3_file* file, sqlite3_int64 size) {
    if (const int code = handle(file)->owner->meet(true, SQLITE_IOERR_TRUNCATE)) return code;
    handle(file)->owner->note(handle(file), {static_cast<std::size_t>(size), {}, true});
    return handle(file)->real()->pMethods->xTruncate(handle(file)->real(), size);
  }
  static int sync(sqlite3_file* file, int flags) {
    if (const int code = handle(file)->owner->meet(true, SQLITE_IOERR_FSYNC)) return code;
    handle(file)->owner->note_sync(handle(file));
    return handle(file)->real()->pMethods->xSync(handle(file)->real(), flags);
  }
  static int size(sqlite3_file* file, sqlite3_int64* out) {
    return handle(file)->real()->pMethods->xFileSize(handle(file)->real(), out);
  }
  static int lock(sqlite3_file* file, int level) {
    return handle(file)->real()->pMethods->xLock(handle(file)->real(), level);
  }
  static int unlock(sqlite3_file* file, int level) {
    return handle(file)->real()->pMethods->xUnlock(handle(file)->real(), level);
  }
  static int reserved(sqlite3_file* file, int* out) {
    return handle(file)->real()->pMethods->xCheckReservedLock(handle(file)->real(), out);
  }
  static int control(sqlite3_file* file, int what, void* argument) {
    return handle(file)->real()->pMethods->xFileControl(handle(file)->real(), what, argument);
  }
  static int sector(sqlite3_file* file) {
    return handle(file)->real()->pMethods->xSectorSize(handle(file)->real());
  }
  static int traits(sqlite3_file* file) {
    return handle(file)->real()->pMethods->xDeviceCharacteristics(handle(file)->real());
  }
  static int shm_map(sqlite3_file* file, int page, int size, int extend, void volatile** out) {
    return handle(file)->real()->pMethods->xShmMap(handle(file)->real(), page, size, extend, out);
  }
  static int shm_lock(sqlite3_file* file, int at, int count, int flags) {
    return handle(file)->real()->pMethods->xShmLock(handle(file)->real(), at, count, flags);
  }
  static void shm_barrier(sqlite3_file* file) {
    handle(file)->real()->pMethods->xShmBarrier(handle(file)->real());
  }
  static int shm_unmap(sqlite3_file* file, int remove_it) {
    return handle(file)->real()->pMethods->xShmUnmap(handle(file)->real(), remove_it);
  }

  static constexpr sqlite3_io_methods kMethods = {
      2,       close,  read,   write,   truncate, sync,        size,      lock,    unlock, reserved,
      control, sector, traits, shm_map, shm_lock, shm_barrier, shm_unmap, nullptr, nullptr};

  sqlite3_vfs* const real_;
  sqlite3_vfs vfs_;
  std::function<void()> look_;
  std::mutex mutex_;
  std::uint64_t at_ = 0, count_ = 0;
  Fault fault_ = Fault::kIo;
  Which which_ = Which::kWrites;
  bool for_ever_ = false, met_ = false;
  std::map<std::string, Disk> disks_;
};

}  // namespace millrace::projections::test
