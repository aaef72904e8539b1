#include "projections/memory_view.h"

#include <algorithm>
#include <new>

#include "base/bytes.h"
#include "base/checksum.h"
#include "projections/sqlite/database.h"

// A snapshot is one sequence of bytes in parts, with its length and checksum; `shown` is how far
// the process that runs the view has shown it, which runs ahead of that.

namespace millrace::projections::internal {
namespace {

using sqlite::Database;
using sqlite::Statement;

constexpr std::size_t kPartBytes = 8 << 20;  // SQLite takes no value beyond a gigabyte
/// Of the time that has passed since the snapshot before, writing one takes at most a part of this.
constexpr int kCostShare = 10;

Error damaged(const Database& database, const std::string& how) {
  return Error(ErrorCode::kCorruption,
               database.file().string() + ": the snapshot of the view's state is damaged: " + how)
      .hint("It is a cache of the log: make it anew with `rebuild`.");
}

/// Nothing where none was written yet. In one statement, so that it is all of one commit.
Result<std::optional<std::string>> read_snapshot(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(
      Statement select,
      database.prepare("SELECT snapshot.bytes, checksum, part.bytes FROM millrace_memory AS "
                       "snapshot LEFT JOIN millrace_memory_part AS part ON true ORDER BY part"));
  MILLRACE_ASSIGN_OR_RETURN(bool row, select.step());
  if (!row) return damaged(database, "what tells of it is not there");
  if (select.column(0).is_null()) return std::optional<std::string>();
  const std::int64_t size = select.column(0).integer(), sum = select.column(1).integer();
  std::string bytes;
  while (row) {
    if (const Value part = select.column(2); !part.is_null()) bytes += part.text();
    MILLRACE_ASSIGN_OR_RETURN(row, select.step());
  }
  if (bytes.size() != static_cast<std::uint64_t>(size))
    return damaged(database, "it has " + std::to_string(bytes.size()) + " bytes in place of " +
                                 std::to_string(size));
  if (checksum(bytes) != static_cast<std::uint64_t>(sum))
    return damaged(database, "its checksum does not fit");
  return std::optional(std::move(bytes));
}

Result<void> write_snapshot(Database& database, std::string_view bytes) {
  MILLRACE_ASSIGN_OR_RETURN(
      Statement put,
      database.prepare("INSERT OR REPLACE INTO millrace_memory_part(part, bytes) VALUES(?1, ?2)"));
  std::int64_t part = 0;
  for (std::size_t at = 0; at < bytes.size(); at += kPartBytes) {
    put.bind(1, part++);
    put.bind(2, Value::blob(bytes.substr(at, kPartBytes)));
    MILLRACE_RETURN_IF_ERROR(put.run());
  }
  MILLRACE_ASSIGN_OR_RETURN(Statement cut,
                            database.prepare("DELETE FROM millrace_memory_part WHERE part >= ?1"));
  cut.bind(1, part);
  MILLRACE_RETURN_IF_ERROR(cut.run());
  MILLRACE_ASSIGN_OR_RETURN(
      Statement tell, database.prepare("UPDATE millrace_memory SET bytes = ?1, checksum = ?2"));
  tell.bind(1, static_cast<std::int64_t>(bytes.size()));
  tell.bind(2, static_cast<std::int64_t>(checksum(bytes)));
  return tell.run();
}

/// Functions of the state are the user's: they may throw.
template <typename Call>
auto call_state(std::string_view what, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kUnavailable, "there is not enough memory for the state's snapshot");
  } catch (const std::exception& thrown) {
    return Error(ErrorCode::kFailedPrecondition,
                 std::string(what) + " of the view's state threw: " + thrown.what());
  } catch (...) {
    return Error(ErrorCode::kFailedPrecondition,
                 std::string(what) + " of the view's state threw what is no std::exception");
  }
}

Result<void> write_rows(const StateType& type, Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const auto state, load_state(type, database));
  if (!type.has_rows) return {};
  MILLRACE_RETURN_IF_ERROR(
      database.execute("CREATE TEMP TABLE IF NOT EXISTS millrace_rows(key TEXT PRIMARY KEY, value "
                       "TEXT) WITHOUT ROWID; DELETE FROM millrace_rows"));
  MILLRACE_ASSIGN_OR_RETURN(Statement put,
                            database.prepare("INSERT INTO millrace_rows VALUES(?1, ?2)"));
  return call_state("rows()", [&] {
    return state->for_each_row([&](std::string_view key, std::string_view value) -> Result<void> {
      put.bind(1, key);
      put.bind(2, value);
      MILLRACE_ASSIGN_OR_RETURN(const bool is_new, put.run_unless_there());
      if (is_new) return {};
      return Error(ErrorCode::kFailedPrecondition,
                   "rows() of the view's state gives '" + printable(key) + "' twice");
    });
  });
}

}  // namespace

// --- the stage ---

const AnyState* Stage::enter() {
  const MutexLock lock(mutex_);
  while (changing_) changed_.wait(mutex_);
  ++readers_;
  return state_.get();
}

void Stage::leave() {
  const MutexLock lock(mutex_);
  if (--readers_ == 0) changed_.notify_all();
}

std::optional<Offset> Stage::offset() {
  const MutexLock lock(mutex_);
  while (changing_) changed_.wait(mutex_);
  return state_ ? std::optional(offset_) : std::nullopt;
}

void Stage::begin_change() {
  const MutexLock lock(mutex_);
  while (changing_) changed_.wait(mutex_);
  changing_ = true;
  while (readers_ > 0) changed_.wait(mutex_);
}

void Stage::end_change(std::shared_ptr<AnyState> state, Offset offset) {
  const MutexLock lock(mutex_);
  std::swap(state_, state);  // what was there is dropped without the lock
  offset_ = offset;
  changing_ = false;
  changed_.notify_all();
}

Offset Stage::last_shown() {
  const MutexLock lock(mutex_);
  return offset_;
}

// --- the writer ---

MemoryWriter::MemoryWriter(const StateType& type, const MemoryViewOptions& options,
                           std::shared_ptr<Stage> stage, Database& database)
    : type_(type),
      options_(options),
      stage_(std::move(stage)),
      database_(database),
      saved_(Steady::now()) {}

/// Readers that wait for a transaction of which the end does not come are told that there is
/// nothing.
MemoryWriter::~MemoryWriter() {
  if (holds_stage_) stage_->end_change(nullptr, stage_->last_shown());
}

Result<void> MemoryWriter::load() {
  MILLRACE_ASSIGN_OR_RETURN(state_, load_state(type_, database_));
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t shown,
                            database_.number("SELECT shown FROM millrace_memory"));
  shown_before_.value = static_cast<std::uint64_t>(shown);
  return {};
}

void MemoryWriter::tell_of_change() {
  told_ = changed_ = true;
  if (!on_stage_ || holds_stage_) return;
  stage_->begin_change();
  holds_stage_ = true;
}

void MemoryWriter::flush() {
  if (failed() || !changed_) return;
  const auto begin = Steady::now();
  if (auto saved = save(); !saved) return fail(std::move(saved).error());
  cost_ = Steady::now() - begin;
  changed_ = told_ = false;
  is_written_ = true;
}

Result<void> MemoryWriter::save() {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::string bytes,
      call_state("encode()", [&]() -> Result<std::string> { return state_->encode(); }));
  if (bytes.size() > options_.snapshot_bytes_max)
    return Error(ErrorCode::kFailedPrecondition,
                 "the state is encoded as " + std::to_string(bytes.size()) +
                     " bytes, more than snapshot_bytes_max of the view allows");
  return write_snapshot(database_, bytes);
}

Result<void> MemoryWriter::before_commit(Offset) {
  if (is_written_) {
    saved_ = Steady::now();
    events_ = 0;
  }
  is_written_ = false;
  return {};
}

/// Readers go on waiting where the state of the one before is of no use any more.
void MemoryWriter::take_over_from(ViewWriter& before) {
  auto& other = static_cast<MemoryWriter&>(before);
  holds_stage_ = std::exchange(other.holds_stage_, false);
  is_written_ = other.is_written_;
  cost_ = other.cost_;
  other.state_.reset();
}

/// What was seen once is never unseen: where the log is folded again, it is not shown before it is
/// as far as that.
Result<bool> MemoryWriter::show(Offset offset, bool is_all) {
  if (!on_stage_ && !is_all && offset < std::max(stage_->last_shown(), shown_before_)) return false;
  if (!holds_stage_) stage_->begin_change();
  stage_->end_change(state_, offset);
  on_stage_ = true;
  holds_stage_ = told_ = false;
  if (!tell_shown_) {
    MILLRACE_ASSIGN_OR_RETURN(auto update,
                              database_.prepare("UPDATE millrace_memory SET shown = ?1"));
    tell_shown_ = std::make_unique<Statement>(std::move(update));
  }
  tell_shown_->bind(1, static_cast<std::int64_t>(offset.value));
  MILLRACE_RETURN_IF_ERROR(tell_shown_->run());
  return true;
}

bool MemoryWriter::wants_commit() const {
  if (!changed_ || is_written_) return true;
  const auto age = Steady::now() - saved_;
  return (events_ >= options_.snapshot_events || age >= options_.snapshot_interval) &&
         age >= kCostShare * cost_;
}

// --- the file ---

Result<void> create_memory_tables(Database& database) {
  return database.execute(
      "CREATE TABLE millrace_memory(bytes INTEGER, checksum INTEGER, shown INTEGER NOT NULL);"
      "INSERT INTO millrace_memory VALUES(NULL, NULL, 0);"
      "CREATE TABLE millrace_memory_part(part INTEGER PRIMARY KEY, bytes BLOB NOT NULL)");
}

Result<std::unique_ptr<AnyState>> load_state(const StateType& type, Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const auto bytes, read_snapshot(database));
  auto state = call_state("decode()", [&]() -> Result<std::unique_ptr<AnyState>> {
    if (bytes) return type.decode(*bytes);
    return type.make();
  });
  if (state || state.error().code() == ErrorCode::kUnavailable) return state;
  return Error(ErrorCode::kFailedPrecondition,
               database.file().string() + ": the snapshot of the view's state can't be decoded: " +
                   state.error().message())
      .hint(
          "It is as it was written. Where encode() and decode() have changed, give the state "
          "another kFormat and run `rebuild`.");
}

Result<std::unique_ptr<AnyState>> load_state(const StateType& type, const Path& file) {
  MILLRACE_ASSIGN_OR_RETURN(const auto database, Database::open(file, sqlite::Mode::kReadOnly));
  return load_state(type, *database);
}

Result<std::optional<Offset>> read_shown(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::int64_t there,
      database.number("SELECT count(*) FROM sqlite_schema WHERE name = 'millrace_memory'"));
  if (there == 0) return std::optional<Offset>();
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t shown,
                            database.number("SELECT shown FROM millrace_memory"));
  return std::optional(Offset{static_cast<std::uint64_t>(shown)});
}

Result<void> take_over_shown(Database& from, Database& to) {
  MILLRACE_ASSIGN_OR_RETURN(const auto shown, read_shown(from));
  MILLRACE_ASSIGN_OR_RETURN(const auto there, read_shown(to));
  if (!shown || !there) return {};
  MILLRACE_ASSIGN_OR_RETURN(Statement raise,
                            to.prepare("UPDATE millrace_memory SET shown = max(shown, ?1)"));
  raise.bind(1, static_cast<std::int64_t>(shown->value));
  return raise.run();
}

std::vector<Comparison> compare_states(const StateType& type) {
  Comparison comparison{
      .what = "row", .setup = "", .sql = "SELECT key, value FROM temp.millrace_rows ORDER BY key"};
  if (!type.has_rows) {
    comparison.what = "state";
    comparison.sql = "SELECT 'all', bytes, checksum FROM millrace_memory";
  }
  comparison.prepare = [type](Database& database) { return write_rows(type, database); };
  return {comparison};
}

Error not_in_memory(const std::string& view) {
  return Error(ErrorCode::kUnavailable, "view " + view + " is not in memory")
      .hint("`run` of this program brings it there; wait_until_folded() tells when it has.");
}

}  // namespace millrace::projections::internal
