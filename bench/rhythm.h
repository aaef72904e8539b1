#pragma once

#include <mutex>
#include <vector>

#include "tests/support/forwarding_fs.h"

// What a store did to its disk, to be done again without the store: the limit of appending.
namespace millrace::bench {

/// Bytes written, or 0 for a sync, in order.
class Rhythm {
 public:
  void add(std::size_t step) {
    const std::scoped_lock lock(mutex_);
    steps_.push_back(step);
  }
  std::vector<std::size_t> take() {
    const std::scoped_lock lock(mutex_);
    return std::move(steps_);
  }

 private:
  std::mutex mutex_;
  std::vector<std::size_t> steps_;
};

/// The real file system, listening to what happens to segments.
class ListeningFileSystem final : public test::ForwardingFileSystem {
 public:
  Rhythm rhythm;
  Result<std::unique_ptr<File>> open(const Path& path, OpenMode mode) override;
};

/// The same writes and syncs, one after the other, into a preallocated file that is made: the
/// seconds of each write with the syncs behind it.
std::vector<double> raw_writes(const Path& path, const std::vector<std::size_t>& rhythm);
double total_of(const std::vector<double>& seconds);

}  // namespace millrace::bench
