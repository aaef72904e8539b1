#include "base/file.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

class PosixFile final : public File {
 public:
  PosixFile(Descriptor descriptor, Path path)
      : descriptor_(std::move(descriptor)), path_(std::move(path)) {}

  Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t count = ::pread(descriptor_.number(), into.data() + done, into.size() - done,
                                    static_cast<off_t>(position + done));
      if (count == 0) break;
      if (count > 0)
        done += static_cast<std::size_t>(count);
      else if (errno != EINTR)
        return failure("read");
    }
    return done;
  }

  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t count =
          ::pwrite(descriptor_.number(), bytes.data(), bytes.size(), static_cast<off_t>(position));
      if (count >= 0) {
        bytes.remove_prefix(static_cast<std::size_t>(count));
        position += static_cast<std::uint64_t>(count);
      } else if (errno != EINTR) {
        return failure("write");
      }
    }
    return {};
  }

  Result<void> sync() override {
    if (::fdatasync(descriptor_.number()) != 0) return failure("sync");
    return {};
  }

  Result<void> truncate(std::uint64_t size) override {
    while (::ftruncate(descriptor_.number(), static_cast<off_t>(size)) != 0)
      if (errno != EINTR) return failure("truncate");
    return {};
  }

  void start_writeback(std::uint64_t position, std::uint64_t size) override {
    static_cast<void>(::sync_file_range(descriptor_.number(), static_cast<off64_t>(position),
                                        static_cast<off64_t>(size), SYNC_FILE_RANGE_WRITE));
  }

  Result<void> allocate(std::uint64_t position, std::uint64_t size) override {
    while (::fallocate(descriptor_.number(), 0, static_cast<off_t>(position),
                       static_cast<off_t>(size)) != 0) {
      if (errno == EOPNOTSUPP || errno == ENOSYS) return extend_to(position + size);
      if (errno != EINTR) return failure("allocate");
    }
    return {};
  }

  Result<std::uint64_t> size() override {
    struct stat status {};
    if (::fstat(descriptor_.number(), &status) != 0) return failure("stat");
    return static_cast<std::uint64_t>(status.st_size);
  }

  Result<std::uint64_t> identity() override {
    struct stat status {};
    if (::fstat(descriptor_.number(), &status) != 0) return failure("stat");
    return static_cast<std::uint64_t>(status.st_ino);
  }

 private:
  Result<void> extend_to(std::uint64_t end) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t now, size());
    return now < end ? truncate(end) : Result<void>{};
  }

  Error failure(std::string_view what) const {
    return Error::from_errno(errno, std::string(what) + " " + path_.string());
  }

  Descriptor descriptor_;
  Path path_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  Result<void> describe(std::string_view holder) override {
    while (::ftruncate(descriptor_.number(), 0) != 0)
      if (errno != EINTR) return failure();
    for (off_t position = 0; !holder.empty();) {
      const ssize_t count = ::pwrite(descriptor_.number(), holder.data(), holder.size(), position);
      if (count < 0 && errno != EINTR) return failure();
      if (count <= 0) continue;
      holder.remove_prefix(static_cast<std::size_t>(count));
      position += count;
    }
    return {};
  }

 private:
  static Error failure() { return Error::from_errno(errno, "write the lock file"); }

  Descriptor descriptor_;
};

/// The kernel finds the futex by file and position, so processes meet in it wherever each has
/// mapped it.
class PosixSharedWord final : public SharedWord {
 public:
  static constexpr std::size_t kPageBytes = 4096;

  PosixSharedWord(void* page, std::uint64_t position)
      : page_(page), word_(static_cast<char*>(page) + position) {}
  PosixSharedWord(const PosixSharedWord&) = delete;
  PosixSharedWord& operator=(const PosixSharedWord&) = delete;
  ~PosixSharedWord() override { ::munmap(page_, kPageBytes); }

  void wait(std::uint32_t seen, std::chrono::nanoseconds timeout) override {
    char native[sizeof seen];
    store_le<std::uint32_t>(native, seen);
    std::memcpy(&seen, native, sizeof seen);
    const timespec relative{.tv_sec = static_cast<time_t>(timeout.count() / 1'000'000'000),
                            .tv_nsec = static_cast<long>(timeout.count() % 1'000'000'000)};
    if (::syscall(SYS_futex, word_, FUTEX_WAIT, seen, &relative, nullptr, 0) == 0) return;
    // The file was cut short (EFAULT): there is nothing to sleep on, but the caller must not spin.
    if (errno == EFAULT)
      std::this_thread::sleep_for(std::min(timeout, std::chrono::nanoseconds(10'000'000)));
  }

  void wake_all() override {
    ::syscall(SYS_futex, word_, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }

 private:
  void* page_;
  char* word_;
};

class PosixFileSystem final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    const int flags = mode == OpenMode::kRead        ? O_RDONLY
                      : mode == OpenMode::kReadWrite ? O_RDWR
                                                     : O_RDWR | O_CREAT | O_EXCL;
    MILLRACE_ASSIGN_OR_RETURN(Descriptor descriptor, open_regular(path, flags));
    // Access times are nobody's business here, and keeping them is a good part of a small read. The
    // kernel grants it to the file's owner.
    static_cast<void>(::fcntl(descriptor.number(), F_SETFL, O_NOATIME));
    return std::make_unique<PosixFile>(std::move(descriptor), path);
  }

  Result<void> make_directory(const Path& path) override {
    if (::mkdir(path.c_str(), 0700) == 0) return {};
    const int error_number = errno;
    struct stat status {};
    if (error_number == EEXIST && ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
      return {};
    return Error::from_errno(error_number, "make directory " + path.string());
  }

  Result<std::vector<std::string>> list(const Path& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(directory, error), end;
    while (!error && entry != end) {
      names.push_back(entry->path().filename().string());
      entry.increment(error);
    }
    if (error) return Error::from_errno(error.value(), "list " + directory.string());
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<bool> exists(const Path& path) override {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Error::from_errno(errno, "stat " + path.string());
  }

  Result<void> rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return {};
    return Error::from_errno(errno, "rename " + from.string() + " to " + to.string());
  }

  Result<void> link(const Path& from, const Path& to) override {
    if (::link(from.c_str(), to.c_str()) == 0) return {};
    const int error = errno;
    const std::string what = "link " + to.string() + " to " + from.string();
    if (error == EXDEV || error == EPERM || error == EOPNOTSUPP || error == EMLINK ||
        error == ENOSYS)
      return Error(ErrorCode::kUnsupported, what + ": not on this file system");
    if (error == EEXIST) return Error(ErrorCode::kFailedPrecondition, what + ": it is there");
    return Error::from_errno(error, what);
  }

  Result<void> remove(const Path& path) override {
    if (::unlink(path.c_str()) == 0) return {};
    return Error::from_errno(errno, "remove " + path.string());
  }

  Result<void> sync_directory(const Path& directory) override {
    const Descriptor descriptor(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (descriptor.number() < 0 || ::fsync(descriptor.number()) != 0)
      return Error::from_errno(errno, "sync directory " + directory.string());
    return {};
  }

  Result<std::unique_ptr<FileLock>> lock(const Path& path) override {
    MILLRACE_ASSIGN_OR_RETURN(Descriptor descriptor, open_regular(path, O_RDWR | O_CREAT));
    // lock_holder() takes a shared lock for an instant: that is no holder, so ask again shortly
    // after.
    for (int attempt = 0; ::flock(descriptor.number(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
      if (errno == EINTR) continue;
      if (errno != EWOULDBLOCK) return Error::from_errno(errno, "lock " + path.string());
      if (attempt >= 3)
        return Error(ErrorCode::kLocked,
                     path.string() + " is held by " + holder_in(descriptor.number()));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return std::make_unique<PosixLock>(std::move(descriptor));
  }

  Result<std::string> lock_holder(const Path& path) override {
    const auto descriptor = open_regular(path, O_RDONLY);
    if (!descriptor && descriptor.error().code() == ErrorCode::kNotFound) return std::string();
    if (!descriptor) return descriptor.error();
    if (::flock(descriptor->number(), LOCK_SH | LOCK_NB) == 0) return std::string();
    if (errno != EWOULDBLOCK) return Error::from_errno(errno, "lock " + path.string());
    return holder_in(descriptor->number());
  }

  Result<std::unique_ptr<SharedWord>> shared_word(const Path& path,
                                                  std::uint64_t position) override {
    MILLRACE_CHECK(position % 4 == 0 && position < PosixSharedWord::kPageBytes);
    MILLRACE_ASSIGN_OR_RETURN(const Descriptor descriptor, open_regular(path, O_RDONLY));
    void* page =
        ::mmap(nullptr, PosixSharedWord::kPageBytes, PROT_READ, MAP_SHARED, descriptor.number(), 0);
    if (page == MAP_FAILED) return Error::from_errno(errno, "map " + path.string());
    return std::make_unique<PosixSharedWord>(page, position);
  }

  std::string boot_id() override {
    std::string id;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), id);
    return id;
  }

 private:
  /// Never waits, whatever lies there.
  static Result<Descriptor> open_regular(const Path& path, int flags) {
    Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
    if (descriptor.number() < 0) {
      if (errno == ELOOP) return not_regular(path);
      return Error::from_errno(errno, "open " + path.string());
    }
    struct stat status {};
    if (::fstat(descriptor.number(), &status) != 0)
      return Error::from_errno(errno, "stat " + path.string());
    if (!S_ISREG(status.st_mode)) return not_regular(path);
    return descriptor;
  }

  static std::string holder_in(int descriptor) {
    char holder[256];
    const ssize_t size = ::pread(descriptor, holder, sizeof holder, 0);
    const std::string_view text(holder, size > 0 ? static_cast<std::size_t>(size) : 0);
    return text.empty() ? "another process" : printable(text);
  }

  static Error not_regular(const Path& path) {
    return Error(ErrorCode::kFailedPrecondition, path.string() + " is not a regular file")
        .hint("millrace does not follow links out of its folders; put the file itself there.");
  }
};

}  // namespace

Result<void> FileSystem::link(const Path& from, const Path&) {
  return Error(ErrorCode::kUnsupported, "link " + from.string() + ": not on this file system");
}

FileSystem& FileSystem::real() {
  static PosixFileSystem files;
  return files;
}

Result<std::string> read_file(FileSystem& files, const Path& path, std::uint64_t bytes_max) {
  MILLRACE_ASSIGN_OR_RETURN(const auto file, files.open(path, OpenMode::kRead));
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, file->size());
  if (size > bytes_max)
    return Error(ErrorCode::kCorruption, path.string() + " has " + std::to_string(size) +
                                             " bytes, more than it can have (" +
                                             std::to_string(bytes_max) + ")");
  std::string bytes(size, '\0');
  MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file->read_at(0, bytes));
  bytes.resize(count);
  return bytes;
}

Result<void> write_file_atomically(FileSystem& files, const Path& path, std::string_view bytes) {
  const Path temporary = path.string() + ".tmp";
  MILLRACE_ASSIGN_OR_RETURN(const bool leftover, files.exists(temporary));
  if (leftover) MILLRACE_RETURN_IF_ERROR(files.remove(temporary));
  {
    MILLRACE_ASSIGN_OR_RETURN(const auto file, files.open(temporary, OpenMode::kCreate));
    MILLRACE_RETURN_IF_ERROR(file->write_at(0, bytes));
    MILLRACE_RETURN_IF_ERROR(file->sync());
  }
  MILLRACE_RETURN_IF_ERROR(files.rename(temporary, path));
  return files.sync_directory(path.parent_path().empty() ? Path(".") : path.parent_path());
}

}  // namespace millrace
