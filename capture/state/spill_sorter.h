#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace millrace {

/// Sorts more records than fit into memory: runs that are sorted in memory go to one file without a
/// name (it goes with the process, however that ends) and are merged from there.
///
/// Memory: what it is given, plus the largest record, while records are added; at most about 16 MiB
/// (kFanIn pieces of runs) while they are read. Disk: all records that were not replaced, at most
/// twice. Errors: kNoSpace, kIo, both naming the folder. Threads: one.
class SpillSorter {
 public:
  static constexpr std::size_t kFanIn = 256;

  struct Record {
    std::string_view key = {};
    std::uint64_t order = 0;  ///< Among records of one key.
    /// Those of the same key with a lower order are needless; some of them may be given all the
    /// same.
    bool replaces = false;
    std::string_view value = {};
  };

  /// The file goes into `folder` once something does not fit into `memory_bytes`.
  SpillSorter(Path folder, std::size_t memory_bytes);
  ~SpillSorter();
  SpillSorter(const SpillSorter&) = delete;
  SpillSorter& operator=(const SpillSorter&) = delete;

  Result<void> add(const Record& record);
  /// The next record by key (as bytes) and order, valid until the next call; nullptr behind the
  /// last. Nothing may be added after the first call.
  Result<const Record*> next();
  /// Makes it empty, for other records.
  Result<void> clear();

  std::uint64_t spilled_bytes() const { return file_end_; }

 private:
  struct Entry {
    std::uint64_t prefix = 0;  ///< The key's first bytes: most comparisons end with them.
    std::uint64_t at = 0;      ///< In arena_.
  };
  struct Run {
    std::uint64_t at = 0, end = 0;  ///< In the file.
  };
  class Cursor;
  class Writer;

  void sort_arena();
  bool is_replaced(std::size_t entry) const;
  Result<void> spill();
  Result<void> open_file();
  Result<void> begin_merge();
  Result<void> merge_some();
  bool comes_later(std::size_t a, std::size_t b) const;

  const Path folder_;
  const std::size_t memory_bytes_;
  std::string arena_;
  std::vector<Entry> entries_;
  int file_ = -1;
  std::uint64_t file_end_ = 0;
  std::vector<Run> runs_;
  bool reading_ = false;
  std::size_t next_entry_ = 0;  // while nothing was spilled
  std::vector<std::unique_ptr<Cursor>> cursors_;
  std::vector<std::size_t> heap_;  // of cursors_, the least record first
  Record record_;
};

}  // namespace millrace
