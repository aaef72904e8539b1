#include "projections/sqlite/database.h"

#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::projections::sqlite {
namespace {

constexpr int kAttemptsBetweenWarnings = 200;  // at 50 ms each: every 10 seconds

ErrorCode code_for(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return ErrorCode::kCorruption;
    case SQLITE_FULL: return ErrorCode::kNoSpace;
    case SQLITE_CANTOPEN: return ErrorCode::kNotFound;
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ErrorCode::kLocked;
    case SQLITE_INTERRUPT: return ErrorCode::kCancelled;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
    case SQLITE_ERROR: return ErrorCode::kFailedPrecondition;
    default: return ErrorCode::kIo;
  }
}

Error error_of(sqlite3* handle, int code, const Path& file, std::string_view doing) {
  const char* text = handle ? sqlite3_errmsg(handle) : sqlite3_errstr(code);
  Error error(code_for(code), file.string() + ": " + std::string(doing) + ": " + text);
  switch (error.code()) {
    case ErrorCode::kCorruption:
      return std::move(error).hint(
          "The view's file is damaged. It is a cache of the log: make it anew with `rebuild`.");
    case ErrorCode::kNoSpace:
      return std::move(error).hint(
          "Free some space on that file system. `run` goes on by itself then; start anything else "
          "again.");
    default: return error;
  }
}

}  // namespace

Statement::Statement(Statement&& other) noexcept
    : statement_(std::exchange(other.statement_, nullptr)), bind_failure_(other.bind_failure_) {}

Statement& Statement::operator=(Statement&& other) noexcept {
  std::swap(statement_, other.statement_);
  std::swap(bind_failure_, other.bind_failure_);
  return *this;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

void Statement::bind(int parameter, const Value& value) {
  int code = SQLITE_OK;
  switch (value.kind()) {
    case Value::Kind::kNull: code = sqlite3_bind_null(statement_, parameter); break;
    case Value::Kind::kInteger:
      code = sqlite3_bind_int64(statement_, parameter, value.integer());
      break;
    case Value::Kind::kReal: code = sqlite3_bind_double(statement_, parameter, value.real()); break;
    case Value::Kind::kText:
      // A null pointer would bind NULL; an empty text is not null.
      code = sqlite3_bind_text64(statement_, parameter,
                                 value.text().empty() ? "" : value.text().data(),
                                 value.text().size(), SQLITE_STATIC, SQLITE_UTF8);
      break;
    case Value::Kind::kBlob:
      code = sqlite3_bind_blob64(statement_, parameter,
                                 value.text().empty() ? "" : value.text().data(),
                                 value.text().size(), SQLITE_STATIC);
      break;
    case Value::Kind::kUnchanged: MILLRACE_CHECK(!"an unchanged value is never written");
  }
  if (code != SQLITE_OK && bind_failure_ == SQLITE_OK) bind_failure_ = code;
}

Result<void> Statement::run() {
  MILLRACE_ASSIGN_OR_RETURN(const bool row, step());
  if (row) reset();
  return {};
}

Result<bool> Statement::run_unless_there() {
  if (bind_failure_ == SQLITE_OK) {
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_DONE) return reset(), true;
    if ((code & 0xff) == SQLITE_CONSTRAINT) return reset(), false;
    Error error = failure(code);
    reset();
    return error;
  }
  MILLRACE_RETURN_IF_ERROR(run());
  return true;
}

Result<bool> Statement::step() {
  const int code = bind_failure_ != SQLITE_OK ? bind_failure_ : sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    reset();
    return false;
  }
  Error error = failure(code);
  reset();
  return error;
}

void Statement::reset() {
  sqlite3_reset(statement_);
  bind_failure_ = SQLITE_OK;
}

int Statement::column_count() const { return sqlite3_column_count(statement_); }

std::string Statement::column_name(int column) const {
  return sqlite3_column_name(statement_, column);
}

Value Statement::column(int column) const {
  const auto bytes = [&](const void* data) {
    return std::string_view(static_cast<const char*>(data),
                            static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
  };
  switch (sqlite3_column_type(statement_, column)) {
    case SQLITE_INTEGER: return sqlite3_column_int64(statement_, column);
    case SQLITE_FLOAT: return sqlite3_column_double(statement_, column);
    case SQLITE_TEXT: return bytes(sqlite3_column_text(statement_, column));
    case SQLITE_BLOB: return Value::blob(bytes(sqlite3_column_blob(statement_, column)));
    default: return {};
  }
}

Error Statement::failure(int code) const {
  sqlite3* handle = sqlite3_db_handle(statement_);
  const char* file = sqlite3_db_filename(handle, "main");
  return error_of(code == bind_failure_ ? nullptr : handle, code, file ? file : "",
                  printable(sqlite3_sql(statement_), 120));
}

Database::Database(Path file, Mode mode, std::stop_token stop)
    : file_(std::move(file)), mode_(mode), stop_(std::move(stop)) {}

Database::~Database() {
  begin_ = {};
  commit_ = {};
  sqlite3_close_v2(handle_);
}

Result<std::unique_ptr<Database>> Database::open(const Path& file, Mode mode,
                                                 std::stop_token stop) {
  std::unique_ptr<Database> database(new Database(file, mode, std::move(stop)));
  const int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (mode == Mode::kBulk       ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                     : mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY
                                               : SQLITE_OPEN_READWRITE);
  const int code = sqlite3_open_v2(file.c_str(), &database->handle_, flags, nullptr);
  if (code != SQLITE_OK) return database->failure(code, "open");
  sqlite3_busy_handler(database->handle_, &Database::wait_for_lock, database.get());
  MILLRACE_RETURN_IF_ERROR(database->configure());
  return database;
}

Result<void> Database::configure() {
  switch (mode_) {
    case Mode::kLive:
      MILLRACE_RETURN_IF_ERROR(
          execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-32768; "
                  "PRAGMA temp_store=MEMORY"));
      break;
    case Mode::kBulk:
      MILLRACE_RETURN_IF_ERROR(execute(
          "PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; "
          "PRAGMA cache_size=-262144; PRAGMA temp_store=MEMORY"));
      break;
    case Mode::kReadOnly: break;
  }
  // Reading the schema is what tells a file that is no database, and opens what is beside it.
  MILLRACE_RETURN_IF_ERROR(number("SELECT count(*) FROM sqlite_schema"));
  wal_ = beside("-wal");
  wal_index_ = beside("-shm");
  MILLRACE_ASSIGN_OR_RETURN(begin_,
                            prepare(mode_ == Mode::kReadOnly ? "BEGIN" : "BEGIN IMMEDIATE"));
  MILLRACE_ASSIGN_OR_RETURN(commit_, prepare("COMMIT"));
  return {};
}

// SQLite's own back-off ends after a time and then fails; a view has nothing better to do than to
// wait, so this one goes on until it is told to stop, and says what it waits for.
int Database::wait_for_lock(void* self, int attempt) {
  const auto& database = *static_cast<const Database*>(self);
  if (database.stop_.stop_requested()) return 0;
  if (attempt > 0 && attempt % kAttemptsBetweenWarnings == 0)
    spdlog::warn("{}: waiting for a lock that another process holds", database.file_.string());
  std::this_thread::sleep_for(std::chrono::milliseconds(std::min(attempt + 1, 50)));
  return 1;
}

Result<void> Database::execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return failure(code, printable(sql, 120));
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  Statement statement;
  const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &statement.statement_, nullptr);
  if (code != SQLITE_OK) return failure(code, printable(sql, 120));
  return statement;
}

Result<std::int64_t> Database::number(std::string_view sql) {
  MILLRACE_ASSIGN_OR_RETURN(Statement statement, prepare(sql));
  MILLRACE_ASSIGN_OR_RETURN(const bool row, statement.step());
  return row ? statement.column(0).integer() : 0;
}

Result<void> Database::begin() {
  auto begun = begin_.run();
  if (!begun && begun.error().code() == ErrorCode::kLocked && stop_.stop_requested())
    return Error(ErrorCode::kCancelled, "stopped while waiting for the lock on " + file_.string());
  return begun;
}

Result<void> Database::commit() { return commit_.run(); }

void Database::rollback() noexcept {
  if (in_transaction()) sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

bool Database::in_transaction() const {
  return handle_ != nullptr && sqlite3_get_autocommit(handle_) == 0;
}

bool Database::is_in_place() const {
  int moved = 0;
  sqlite3_file_control(handle_, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
  // The same names are not enough: who opens a file whose WAL was removed makes another one.
  return moved == 0 && wal_ && wal_ == beside("-wal") && wal_index_ && wal_index_ == beside("-shm");
}

std::optional<Database::FileId> Database::beside(const char* ending) const {
  struct ::stat found {};
  if (::stat((Path(file_) += ending).c_str(), &found) != 0) return std::nullopt;
  return FileId{found.st_dev, found.st_ino};
}

std::int64_t Database::changes() const { return sqlite3_changes64(handle_); }
std::int64_t Database::last_insert_id() const { return sqlite3_last_insert_rowid(handle_); }

Error Database::failure(int code, std::string_view doing) const {
  return error_of(handle_, code, file_, doing);
}

}  // namespace millrace::projections::sqlite
