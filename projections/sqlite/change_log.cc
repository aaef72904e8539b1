#include "projections/sqlite/change_log.h"

#include <algorithm>

#include "base/bytes.h"

namespace millrace::projections::sqlite {
namespace {

/// A commit that changes more rows is not taken down: comparing the whole view is as good then.
constexpr std::size_t kKeysMax = 1'000'000;
/// What is kept of the past. Larger: a sink that was away for longer, or lost more, is brought up
/// to date without comparing all of it; the view's file is larger.
constexpr std::size_t kBytesKept = 64 << 20;
constexpr std::size_t kCommitsKept = 100'000;
constexpr std::size_t kPruneAtOnce = 256;

constexpr std::uint64_t kSign = std::uint64_t{1} << 63;

void append_number(std::string& out, std::int64_t number) {
  append_be<std::uint64_t>(out, static_cast<std::uint64_t>(number) ^ kSign);
}

Result<bool> is_recorded(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::int64_t tables,
      database.number("SELECT count(*) FROM sqlite_schema WHERE name = 'millrace_sink'"));
  return tables != 0;
}

Result<void> take_keys(std::string_view bytes, ColumnType type, ChangedKeys& keys) {
  ByteReader in(bytes);
  while (in.remaining() > 0)
    keys.emplace_back(in.bytes(type == ColumnType::kInteger ? 8 : in.varint()));
  if (!in.failed()) return {};
  return Error(ErrorCode::kCorruption, "the view's record of changed rows is damaged")
      .hint("The view is a cache of the log: make it anew with `rebuild`.");
}

}  // namespace

Result<std::unique_ptr<ChangeLog>> ChangeLog::open(Database& database, ColumnType key) {
  std::unique_ptr<ChangeLog> log(new ChangeLog(database, key));
  MILLRACE_ASSIGN_OR_RETURN(const bool there, is_recorded(database));
  if (!there)
    MILLRACE_RETURN_IF_ERROR(database.execute(
        "SAVEPOINT make_sink;"
        "CREATE TABLE millrace_sink(lineage TEXT NOT NULL);"
        "INSERT INTO millrace_sink VALUES(lower(hex(randomblob(16))));"
        "CREATE TABLE millrace_sink_commits(number INTEGER PRIMARY KEY, \"offset\" INTEGER NOT "
        "NULL, keys BLOB);"
        "RELEASE make_sink"));
  MILLRACE_ASSIGN_OR_RETURN(
      log->insert_, database.prepare("INSERT INTO millrace_sink_commits VALUES(?1, ?2, ?3)"));
  MILLRACE_ASSIGN_OR_RETURN(
      log->prune_, database.prepare("DELETE FROM millrace_sink_commits WHERE number <= ?1"));
  MILLRACE_ASSIGN_OR_RETURN(
      Statement kept,
      database.prepare(
          "SELECT number, coalesce(length(keys), 0) FROM millrace_sink_commits ORDER BY number"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool more, kept.step());
    if (!more) break;
    log->commit_ = static_cast<std::uint64_t>(kept.column(0).integer());
    log->kept_.emplace_back(log->commit_, static_cast<std::size_t>(kept.column(1).integer()));
    log->kept_bytes_ += log->kept_.back().second;
  }
  return log;
}

Result<void> ChangeLog::remove(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, is_recorded(database));
  if (!there) return {};
  return database.execute(
      "SAVEPOINT drop_sink; DROP TABLE millrace_sink_commits; DROP TABLE millrace_sink; "
      "RELEASE drop_sink");
}

void ChangeLog::changed(const Value& key) {
  if (all_) return;
  if (key_ == ColumnType::kInteger)
    numbers_.push_back(key.integer());
  else if (texts_.emplace(key.text()).second)
    text_bytes_ += key.text().size();
  if (numbers_.size() + texts_.size() > kKeysMax || text_bytes_ > kBytesKept) all_changed();
}

void ChangeLog::all_changed() {
  all_ = true;
  numbers_.clear();
  texts_.clear();
  text_bytes_ = 0;
}

void ChangeLog::take_over_from(ChangeLog& before) {
  numbers_ = std::move(before.numbers_);
  texts_ = std::move(before.texts_);
  text_bytes_ = before.text_bytes_;
  all_ = before.all_;
}

Result<void> ChangeLog::commit(Offset offset) {
  std::string keys;
  std::sort(numbers_.begin(), numbers_.end());
  numbers_.erase(std::unique(numbers_.begin(), numbers_.end()), numbers_.end());
  for (const std::int64_t number : numbers_) append_number(keys, number);
  for (const std::string& text : texts_) {
    append_varint(keys, text.size());
    keys += text;
  }
  insert_.bind(1, Value());  // the next number: another process may have written some
  insert_.bind(2, static_cast<std::int64_t>(offset.value));
  insert_.bind(3, all_ ? Value() : Value::blob(keys));
  MILLRACE_RETURN_IF_ERROR(insert_.run());
  commit_ = static_cast<std::uint64_t>(database_.last_insert_id());
  numbers_.clear();
  texts_.clear();
  text_bytes_ = 0;
  all_ = false;
  kept_.emplace_back(commit_, keys.size());
  kept_bytes_ += keys.size();
  return prune();
}

Result<void> ChangeLog::prune() {
  const auto is_much = [&](std::size_t slack) {
    return kept_.size() > kCommitsKept + slack || kept_bytes_ > kBytesKept * (1 + slack / 1024.0);
  };
  if (!is_much(kPruneAtOnce)) return {};
  while (kept_.size() > 1 && is_much(0)) {
    prune_.bind(1, static_cast<std::int64_t>(kept_.front().first));
    kept_bytes_ -= kept_.front().second;
    kept_.pop_front();
  }
  return prune_.run();
}

Result<std::optional<ChangeLogHead>> read_change_log_head(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, is_recorded(database));
  if (!there) return std::optional<ChangeLogHead>();
  MILLRACE_ASSIGN_OR_RETURN(
      Statement head, database.prepare("SELECT lineage, (SELECT coalesce(max(number), 0) FROM "
                                       "millrace_sink_commits) FROM millrace_sink"));
  MILLRACE_ASSIGN_OR_RETURN(const bool row, head.step());
  if (!row) return std::optional<ChangeLogHead>();
  return std::optional(ChangeLogHead{std::string(head.column(0).text()),
                                     static_cast<std::uint64_t>(head.column(1).integer())});
}

Result<std::optional<ChangedKeys>> changed_since(Database& database, ColumnType key,
                                                 std::uint64_t commit, Offset offset) {
  MILLRACE_ASSIGN_OR_RETURN(
      Statement commits,
      database.prepare("SELECT number, \"offset\", keys FROM millrace_sink_commits WHERE number "
                       ">= ?1 ORDER BY number"));
  commits.bind(1, static_cast<std::int64_t>(commit));
  ChangedKeys keys;
  std::uint64_t next = commit;
  for (;; ++next) {
    MILLRACE_ASSIGN_OR_RETURN(const bool more, commits.step());
    if (!more) break;
    if (commit == 0 && next == 0) ++next;  // what the file began with was no commit
    const auto number = static_cast<std::uint64_t>(commits.column(0).integer());
    const bool is_known =
        number == next && (number != commit ||
                           commits.column(1).integer() == static_cast<std::int64_t>(offset.value));
    if (!is_known || (number != commit && commits.column(2).is_null()))
      return std::optional<ChangedKeys>();
    if (number != commit) MILLRACE_RETURN_IF_ERROR(take_keys(commits.column(2).text(), key, keys));
  }
  if (next == commit && commit != 0) return std::optional<ChangedKeys>();
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return std::optional(std::move(keys));
}

Value key_of(ColumnType type, const std::string& key) {
  if (type != ColumnType::kInteger) return Value(key);
  return Value(static_cast<std::int64_t>(ByteReader(key).u64_be() ^ kSign));
}

}  // namespace millrace::projections::sqlite
