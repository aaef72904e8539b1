#include "projections/relational/state.h"

#include <algorithm>
#include <vector>

#include "base/sql_text.h"

namespace millrace::projections::internal {
namespace {

constexpr std::size_t kEntryBytes = 64;  // of an entry in memory beside its text

/// SQLite appends fastest what comes in the order of its tree.
template <typename T>
std::vector<const typename StringMap<T>::value_type*> in_order(const StringMap<T>& map) {
  std::vector<const typename StringMap<T>::value_type*> entries;
  entries.reserve(map.size());
  for (const auto& entry : map) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(),
            [](const auto* left, const auto* right) { return left->first < right->first; });
  return entries;
}

template <typename T>
T or_throw(Result<T> result) {
  if (!result) throw StateFailure(std::move(result).error());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

Result<bool> has_rows(sqlite::Database& database, const std::string& table) {
  MILLRACE_ASSIGN_OR_RETURN(const std::int64_t any,
                            database.number("SELECT EXISTS(SELECT 1 FROM " + table + ")"));
  return any != 0;
}

}  // namespace

Result<void> StateTable::create(sqlite::Database& database, std::string_view name) {
  return database.execute("CREATE TABLE " + quote_identifier(name) +
                          "(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID");
}

Result<void> StateTable::open(sqlite::Database& database, std::string_view name) {
  const std::string table = quote_identifier(name);
  MILLRACE_ASSIGN_OR_RETURN(find_,
                            database.prepare("SELECT value FROM " + table + " WHERE key = ?1"));
  MILLRACE_ASSIGN_OR_RETURN(
      put_, database.prepare("INSERT OR REPLACE INTO " + table + "(key, value) VALUES(?1, ?2)"));
  MILLRACE_ASSIGN_OR_RETURN(erase_, database.prepare("DELETE FROM " + table + " WHERE key = ?1"));
  MILLRACE_ASSIGN_OR_RETURN(all_, database.prepare("SELECT key, value FROM " + table));
  MILLRACE_ASSIGN_OR_RETURN(has_stored_rows_, has_rows(database, table));
  return {};
}

std::optional<std::string_view> StateTable::find(std::string_view key) {
  if (const auto* written = written_.find(key)) return written->value();
  if (!has_stored_rows_) return std::nullopt;
  find_.reset();
  find_.bind(1, Value::blob(key));
  if (!or_throw(find_.step())) return std::nullopt;
  return find_.column(0).text();
}

void StateTable::put(std::string_view key, std::string_view value) { written_.put(key, value); }
void StateTable::erase(std::string_view key) { written_.put(key, std::nullopt); }

void StateTable::for_each(
    const std::function<void(std::string_view key, std::string_view value)>& visit) {
  for (const auto* written : written_.entries())
    if (const auto value = written->value()) visit(written->key(), *value);
  if (!has_stored_rows_) return;
  all_.reset();
  while (or_throw(all_.step()))
    if (written_.find(all_.column(0).text()) == nullptr)
      visit(all_.column(0).text(), all_.column(1).text());
}

Result<void> StateTable::flush() {
  find_.reset();
  const bool had_rows = has_stored_rows_;
  for (const auto* written : written_.in_order()) {
    const auto value = written->value();
    if (!value && !had_rows) continue;
    sqlite::Statement& statement = value ? put_ : erase_;
    statement.bind(1, Value::blob(written->key()));
    if (value) statement.bind(2, Value::blob(*value));
    MILLRACE_RETURN_IF_ERROR(statement.run());
    has_stored_rows_ = true;
  }
  written_.clear();
  return {};
}

Result<void> StateIndex::create(sqlite::Database& database, std::string_view name) {
  return database.execute("CREATE TABLE " + quote_identifier(name) +
                          "(key BLOB NOT NULL, member BLOB NOT NULL, times INTEGER NOT NULL,"
                          " PRIMARY KEY(key, member)) WITHOUT ROWID");
}

Result<void> StateIndex::open(sqlite::Database& database, std::string_view name) {
  const std::string table = quote_identifier(name);
  const std::string select =
      "SELECT member, times FROM " + table + " WHERE key = ?1 ORDER BY member";
  MILLRACE_ASSIGN_OR_RETURN(forwards_, database.prepare(select));
  MILLRACE_ASSIGN_OR_RETURN(backwards_, database.prepare(select + " DESC"));
  MILLRACE_ASSIGN_OR_RETURN(
      times_, database.prepare("SELECT times FROM " + table + " WHERE key = ?1 AND member = ?2"));
  MILLRACE_ASSIGN_OR_RETURN(
      add_, database.prepare("INSERT INTO " + table +
                             "(key, member, times) VALUES(?1, ?2, ?3)"
                             " ON CONFLICT DO UPDATE SET times = times + excluded.times"));
  MILLRACE_ASSIGN_OR_RETURN(
      erase_,
      database.prepare("DELETE FROM " + table + " WHERE key = ?1 AND member = ?2 AND times = 0"));
  MILLRACE_ASSIGN_OR_RETURN(has_stored_rows_, has_rows(database, table));
  return {};
}

void StateIndex::add(std::string_view key, std::string_view member, std::int64_t times) {
  auto members = added_.find(key);
  if (members == added_.end()) {
    members = added_.emplace(std::string(key), Members()).first;
    bytes_ += key.size() + kEntryBytes;
  }
  auto there = members->second.find(member);
  if (there == members->second.end()) {
    there = members->second.emplace(std::string(member), 0).first;
    bytes_ += member.size() + kEntryBytes;
  }
  there->second += times;
  if (there->second != 0) return;
  members->second.erase(there);  // as it was
  bytes_ -= member.size() + kEntryBytes;
  if (!members->second.empty()) return;
  added_.erase(members);
  bytes_ -= key.size() + kEntryBytes;
}

std::int64_t StateIndex::times(std::string_view key, std::string_view member) {
  std::int64_t times = 0;
  if (const auto members = added_.find(key); members != added_.end())
    if (const auto more = members->second.find(member); more != members->second.end())
      times = more->second;
  if (!has_stored_rows_) return times;
  times_.bind(1, Value::blob(key));
  times_.bind(2, Value::blob(member));
  if (or_throw(times_.step())) times += times_.column(0).integer();
  times_.reset();
  return times;
}

/// Stored members and added ones, both in order, merged.
void StateIndex::walk(std::string_view key,
                      const std::function<bool(std::string_view, std::int64_t)>& visit,
                      bool forwards) {
  const auto members = added_.find(key);
  static const Members none;
  const Members& added = members == added_.end() ? none : members->second;
  auto up = added.begin();
  auto down = added.rbegin();
  const auto next_added = [&]() -> const Members::value_type* {
    if (forwards) return up == added.end() ? nullptr : &*up;
    return down == added.rend() ? nullptr : &*down;
  };
  const auto comes_first = [&](std::string_view left, std::string_view right) {
    return forwards ? left < right : right < left;
  };
  sqlite::Statement& stored = forwards ? forwards_ : backwards_;
  stored.reset();
  if (has_stored_rows_) stored.bind(1, Value::blob(key));
  bool has_stored = has_stored_rows_ && or_throw(stored.step());
  for (;;) {
    const Members::value_type* more = next_added();
    if (!has_stored && more == nullptr) return;
    const std::string_view here = has_stored ? stored.column(0).text() : std::string_view();
    const bool take_stored = has_stored && (more == nullptr || !comes_first(more->first, here));
    const bool take_added = more != nullptr && (!take_stored || more->first == here);
    const std::int64_t times =
        (take_stored ? stored.column(1).integer() : 0) + (take_added ? more->second : 0);
    if (times != 0 && !visit(take_stored ? here : std::string_view(more->first), times)) break;
    if (take_stored) has_stored = or_throw(stored.step());
    if (take_added && forwards) ++up;
    if (take_added && !forwards) ++down;
  }
  stored.reset();
}

Result<void> StateIndex::flush() {
  for (const auto* entry : in_order<Members>(added_)) {
    for (const auto& [member, times] : entry->second) {
      add_.bind(1, Value::blob(entry->first));
      add_.bind(2, Value::blob(member));
      add_.bind(3, times);
      MILLRACE_RETURN_IF_ERROR(add_.run());
      if (times > 0) continue;
      erase_.bind(1, Value::blob(entry->first));
      erase_.bind(2, Value::blob(member));
      MILLRACE_RETURN_IF_ERROR(erase_.run());
    }
    has_stored_rows_ = true;
  }
  added_.clear();
  bytes_ = 0;
  return {};
}

}  // namespace millrace::projections::internal
