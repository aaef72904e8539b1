#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "base/result.h"
#include "schemas/table_schema.h"

namespace millrace {

/// Every version of every captured table's schema, kept in the file `schemas` of a store.
///
/// The file is append-only: header, then records of length, checksum and a millrace.v1.TableSchema
/// message. The log refers to a version by category and number, so flush() comes before the log's
/// write.
///
/// Errors: kCorruption (the file is damaged: names file and byte), kUnsupported (made by a newer
/// version), kIo, kNoSpace. A failed write poisons the registry: that first error answers every
/// later record() and flush(), and opening it again recovers. Threads: all of it, from any; what it
/// returns stays valid and unchanged for ever.
class SchemaRegistry {
 public:
  using Schema = std::shared_ptr<const TableSchema>;

  /// For the store's writer: makes the file where it is missing, cuts off a torn last record. One
  /// at a time: the store's lock sees to it.
  static Result<std::unique_ptr<SchemaRegistry>> open(const Path& store_directory,
                                                      FileSystem& files = FileSystem::real());
  /// For everybody else: reads only; picks up what a writer adds when something unknown is asked
  /// for. Where the file is missing (a store without captured tables) it is empty until there is
  /// one.
  static Result<std::unique_ptr<SchemaRegistry>> open_read_only(
      const Path& store_directory, FileSystem& files = FileSystem::real());
  /// Kept nowhere: for live changes that go to no store. flush() does nothing.
  static std::unique_ptr<SchemaRegistry> in_memory();

  ~SchemaRegistry();
  SchemaRegistry(const SchemaRegistry&) = delete;
  SchemaRegistry& operator=(const SchemaRegistry&) = delete;

  /// The version that `seen` is: an existing one if its columns, keys, types and replica identity
  /// are the latest one's, else a new one. Field numbers: a column that keeps name, kind and
  /// array-ness keeps its number, any other gets one never used before. `seen` needs no version and
  /// no field numbers. In memory at once; durable after flush(). Errors also: kInvalidArgument (no
  /// category, two columns of one name), kFailedPrecondition (opened read-only).
  Result<Schema> record(TableSchema seen);
  /// Makes everything recorded durable. Free when there is nothing new.
  Result<void> flush();

  /// kNotFound if there is none, also after looking at the file again.
  Result<Schema> find(std::string_view category, std::uint32_t version);
  /// Latest version; kNotFound if the category was never captured. Read-only: looks at the file
  /// each time.
  Result<Schema> latest(std::string_view category);
  /// All versions of all categories, sorted by category and version. Read-only: looks at the file
  /// each time.
  Result<std::vector<Schema>> all();

 private:
  enum class Mode : std::uint8_t { kWriter, kReader, kMemory };

  SchemaRegistry(FileSystem* files, Path path, Mode mode);

  Result<void> open_for_writing();
  /// Where the last mark is, and whether it is the last whole item.
  struct Loaded {
    std::uint64_t mark = 0;
    bool marked = true;
  };
  Result<Loaded> load() MILLRACE_REQUIRES(file_mutex_);
  Result<void> settle(const Loaded& loaded) MILLRACE_REQUIRES(file_mutex_);
  Result<void> refresh();
  Result<void> append(const std::vector<Schema>& schemas) MILLRACE_REQUIRES(file_mutex_);
  Result<void> write_mark() MILLRACE_REQUIRES(file_mutex_);
  Schema known(std::string_view category, std::uint32_t version);

  FileSystem* const files_;
  const Path path_;
  const Mode mode_;

  Mutex file_mutex_;  // held during I/O, so that nobody who only looks something up waits for it;
                      // before mutex_
  std::unique_ptr<File> file_ MILLRACE_GUARDED_BY(file_mutex_);
  std::uint64_t end_ MILLRACE_GUARDED_BY(file_mutex_) = 0;  // after the last whole item

  Mutex mutex_;
  /// Version v of a category at [v - 1].
  std::map<std::string, std::vector<Schema>, std::less<>> versions_ MILLRACE_GUARDED_BY(mutex_);
  std::vector<Schema> pending_ MILLRACE_GUARDED_BY(mutex_);  // recorded, not yet written
  std::optional<Error> failure_ MILLRACE_GUARDED_BY(mutex_);
};

}  // namespace millrace
