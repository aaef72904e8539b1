#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

using Path = std::filesystem::path;

/// An open regular file. Positions and sizes are bytes.
///
/// Errors: kNoSpace (disk, quota or size limit), else kIo. Short reads and writes are completed
/// here. Threads: as the kernel has it; calls at different positions may run at once.
class File {
 public:
  virtual ~File() = default;

  /// Fills `into` from `position`; fewer bytes only where the file ends.
  virtual Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) = 0;
  virtual Result<void> write_at(std::uint64_t position, std::string_view bytes) = 0;
  /// Makes every completed write durable (fdatasync). After a failure nothing that was written
  /// since the last success may be believed, and asking again would lie: close and recover.
  virtual Result<void> sync() = 0;
  /// Lets the disk begin with what was written there, so that a later sync() has less to wait for.
  /// Promises nothing, and hides no error from that sync().
  virtual void start_writeback(std::uint64_t position, std::uint64_t size) = 0;
  virtual Result<void> truncate(std::uint64_t size) = 0;
  /// Reserves zero-filled space so that later writes there change no metadata. A file system
  /// without preallocation gives a file of that size all the same.
  virtual Result<void> allocate(std::uint64_t position, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
  /// Tells this file from every other of its file system, whatever their names (the inode).
  virtual Result<std::uint64_t> identity() = 0;
};

/// A 32-bit little-endian word in a file, which any process can sleep on until it changes (a shared
/// futex). The word itself is written with File::write_at; its bytes are never touched through
/// memory, so that a file cut short by somebody else does no harm (no SIGBUS). Threads: any.
class SharedWord {
 public:
  virtual ~SharedWord() = default;
  /// Sleeps while the word is `seen`, at most `timeout`. May wake early: look again.
  virtual void wait(std::uint32_t seen, std::chrono::nanoseconds timeout) = 0;
  virtual void wake_all() = 0;
};

/// Holds an advisory lock until destroyed; the kernel frees it when the process dies.
class FileLock {
 public:
  virtual ~FileLock() = default;
  /// Replaces the lock file's text (who holds it); not durable, only for people.
  virtual Result<void> describe(std::string_view holder) = 0;
};

enum class OpenMode : std::uint8_t {
  kRead,
  kReadWrite,
  kCreate,  ///< Read and write; fails if the file is there (O_EXCL).
};

/// Every file that the store touches comes in through here, so that a test can fail, tear or
/// forget each operation. Files are made 0600 and directories 0700; symbolic links are not
/// followed.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  virtual Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) = 0;
  virtual Result<void> make_directory(const Path& path) = 0;  ///< Fine if it is there already.
  virtual Result<std::vector<std::string>> list(const Path& directory) = 0;  ///< Names, sorted.
  virtual Result<bool> exists(const Path& path) = 0;
  virtual Result<void> rename(const Path& from, const Path& to) = 0;
  /// Another name for the same file. Errors also: kUnsupported (not on this file system, not across
  /// two, or not allowed), kFailedPrecondition (`to` is there).
  virtual Result<void> link(const Path& from, const Path& to);
  virtual Result<void> remove(const Path& path) = 0;
  /// Makes creations, renames and removals in `directory` durable.
  virtual Result<void> sync_directory(const Path& directory) = 0;
  /// kLocked with the holder's own description if another process (or this one) has it.
  virtual Result<std::unique_ptr<FileLock>> lock(const Path& path) = 0;
  /// Who holds the lock, in its own words; empty if nobody. Makes no file.
  virtual Result<std::string> lock_holder(const Path& path) = 0;
  /// The word at `position` of a file that exists; `position` is a multiple of 4 below 4096.
  virtual Result<std::unique_ptr<SharedWord>> shared_word(const Path& path,
                                                          std::uint64_t position) = 0;
  /// Another one after each start of the machine: after it, what was never synced may be gone.
  virtual std::string boot_id() = 0;

  /// The kernel's.
  static FileSystem& real();
};

/// The whole file; kCorruption if it is larger than `bytes_max`.
Result<std::string> read_file(FileSystem& files, const Path& path, std::uint64_t bytes_max);

/// `path` holds either its old content or all of `bytes`, whatever happens, and it is durable on
/// return: temporary file, sync, rename, sync of the directory.
Result<void> write_file_atomically(FileSystem& files, const Path& path, std::string_view bytes);

}  // namespace millrace
