#pragma once

#include <memory>
#include <utility>

#include "base/file.h"

namespace millrace::test {

/// A file that does what another one does; override what shall be different.
class ForwardingFile : public File {
 public:
  explicit ForwardingFile(std::unique_ptr<File> file) : file_(std::move(file)) {}

  Result<std::size_t> read_at(std::uint64_t position, std::span<char> into) override {
    return file_->read_at(position, into);
  }
  Result<void> write_at(std::uint64_t position, std::string_view bytes) override {
    return file_->write_at(position, bytes);
  }
  Result<void> sync() override { return file_->sync(); }
  Result<void> truncate(std::uint64_t size) override { return file_->truncate(size); }
  void start_writeback(std::uint64_t position, std::uint64_t size) override {
    file_->start_writeback(position, size);
  }
  Result<void> allocate(std::uint64_t position, std::uint64_t size) override {
    return file_->allocate(position, size);
  }
  Result<std::uint64_t> size() override { return file_->size(); }
  Result<std::uint64_t> identity() override { return file_->identity(); }

 private:
  std::unique_ptr<File> file_;
};

/// The kernel's file system; override what shall be different.
class ForwardingFileSystem : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override {
    return real().open(path, mode);
  }
  Result<void> make_directory(const Path& path) override { return real().make_directory(path); }
  Result<std::vector<std::string>> list(const Path& path) override { return real().list(path); }
  Result<bool> exists(const Path& path) override { return real().exists(path); }
  Result<void> rename(const Path& from, const Path& to) override { return real().rename(from, to); }
  Result<void> link(const Path& from, const Path& to) override { return real().link(from, to); }
  Result<void> remove(const Path& path) override { return real().remove(path); }
  Result<void> sync_directory(const Path& path) override { return real().sync_directory(path); }
  Result<std::unique_ptr<FileLock>> lock(const Path& path) override { return real().lock(path); }
  Result<std::string> lock_holder(const Path& path) override { return real().lock_holder(path); }
  Result<std::unique_ptr<SharedWord>> shared_word(const Path& path,
                                                  std::uint64_t position) override {
    return real().shared_word(path, position);
  }
  std::string boot_id() override { return real().boot_id(); }
};

}  // namespace millrace::test
