#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "projections/value.h"

struct sqlite3;
struct sqlite3_stmt;

namespace millrace::projections::sqlite {

/// A prepared statement, to be run many times. Parameters count from 1, columns from 0.
class Statement {
 public:
  Statement() = default;
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  explicit operator bool() const { return statement_ != nullptr; }

  /// Text and bytes are not copied: they must live until run() or reset().
  void bind(int parameter, const Value& value);

  /// For statements without rows: executes and resets.
  Result<void> run();
  /// The same, but a broken UNIQUE or PRIMARY KEY is an answer: false.
  Result<bool> run_unless_there();
  /// The next row; false after the last one, when the statement has been reset.
  Result<bool> step();
  void reset();

  int column_count() const;
  std::string column_name(int column) const;
  /// Valid until the next step() or reset().
  Value column(int column) const;

 private:
  friend class Database;
  Error failure(int code) const;

  sqlite3_stmt* statement_ = nullptr;
  int bind_failure_ = 0;
};

enum class Mode : std::uint8_t {
  kLive,  ///< WAL, synchronous=NORMAL: after a crash of the machine the last commits may be gone,
          ///< all in one piece.
  kBulk,  ///< A new file that nobody else sees, thrown away after a crash: no syncs, exclusive,
          ///< large cache.
  kReadOnly,  ///< Beside a writer.
};

/// A connection to one SQLite file.
///
/// While another connection holds the lock, calls wait, without an end, until it is given up or
/// `stop` is asked (kCancelled). Errors: kCorruption (damaged, or no database), kNoSpace,
/// kNotFound, kIo. Threads: one at a time.
class Database {
 public:
  static Result<std::unique_ptr<Database>> open(const Path& file, Mode mode,
                                                std::stop_token stop = {});
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// One or more statements without parameters or rows.
  Result<void> execute(const std::string& sql);
  Result<Statement> prepare(std::string_view sql);
  /// First column of the first row as a number; 0 if there is none.
  Result<std::int64_t> number(std::string_view sql);

  Result<void>
  begin();  ///< A read transaction if the file is open for reading, else a write transaction.
  Result<void> commit();
  void rollback() noexcept;  ///< Also where no transaction is open.
  bool in_transaction() const;

  /// Whether the file, and what SQLite keeps beside one that is open for writing, are still where
  /// they were opened. Where they are not, somebody moved, removed or replaced them, and what is
  /// written is written unseen. Of a kLive file.
  bool is_in_place() const;

  std::int64_t changes() const;  ///< Rows that the last statement changed.
  std::int64_t last_insert_id() const;
  const Path& file() const { return file_; }
  Mode mode() const { return mode_; }

 private:
  /// A file, whatever its name.
  struct FileId {
    std::uint64_t device = 0, number = 0;
    bool operator==(const FileId&) const = default;
  };

  Database(Path file, Mode mode, std::stop_token stop);
  std::optional<FileId> beside(const char* ending) const;
  static int wait_for_lock(void* self, int attempt);
  Error failure(int code, std::string_view doing) const;
  Result<void> configure();

  Path file_;
  Mode mode_;
  std::stop_token stop_;
  sqlite3* handle_ = nullptr;
  std::optional<FileId> wal_, wal_index_;  ///< What is open under these names.
  Statement begin_, commit_;
};

}  // namespace millrace::projections::sqlite
