#include "projections/engine/quarantine.h"

#include "base/bytes.h"
#include "base/counted.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Statement;

/// Their payloads are in the view's file: beyond this a view stops.
constexpr std::uint64_t kEventsMax = 100'000;

constexpr const char* kEventColumns =
    "\"offset\", category, key, moved_from, reason, attempts, first_failed, last_failed, type, "
    "payload, metadata, flags, stream_version, source_epoch, source_commit, source_end, xid, "
    "commit_time, snapshot";

std::int64_t number(std::uint64_t value) { return static_cast<std::int64_t>(value); }

Value optional_text(const std::optional<std::string>& text) {
  return text ? Value(*text) : Value();
}

std::optional<std::string> optional_text(const Value& value) {
  return value.is_null() ? std::nullopt : std::optional(std::string(value.text()));
}

std::uint64_t unsigned_number(const Value& value) {
  return static_cast<std::uint64_t>(value.integer());
}

Result<bool> has_tables(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::int64_t tables,
      database.number("SELECT count(*) FROM sqlite_schema WHERE name = 'millrace_quarantine'"));
  return tables != 0;
}

Result<void> create_tables(Database& database) {
  return database.execute(
      "CREATE TABLE IF NOT EXISTS millrace_quarantine(\"offset\" INTEGER PRIMARY KEY, category "
      "TEXT NOT NULL, key TEXT NOT NULL, moved_from TEXT, reason TEXT, attempts INTEGER NOT NULL, "
      "first_failed INTEGER NOT NULL, last_failed INTEGER NOT NULL, type TEXT NOT NULL, payload "
      "BLOB NOT NULL, metadata BLOB NOT NULL, flags INTEGER NOT NULL, stream_version INTEGER, "
      "source_epoch INTEGER NOT NULL, source_commit INTEGER NOT NULL, source_end INTEGER NOT NULL, "
      "xid INTEGER NOT NULL, commit_time INTEGER NOT NULL, snapshot INTEGER NOT NULL);"
      "CREATE TABLE IF NOT EXISTS millrace_quarantine_audit(id INTEGER PRIMARY KEY, at INTEGER NOT "
      "NULL, action TEXT NOT NULL, \"by\" TEXT NOT NULL, note TEXT NOT NULL, \"offset\" INTEGER "
      "NOT NULL, category TEXT NOT NULL, key TEXT NOT NULL, reason TEXT)");
}

SetAsideEvent event_of(const Statement& row) {
  SetAsideEvent event;
  event.offset.value = unsigned_number(row.column(0));
  event.category = row.column(1).text();
  event.key = row.column(2).text();
  event.moved_from = optional_text(row.column(3));
  event.reason = optional_text(row.column(4));
  event.attempts = static_cast<std::uint32_t>(row.column(5).integer());
  event.first_failed.value = row.column(6).integer();
  event.last_failed.value = row.column(7).integer();
  event.type = row.column(8).text();
  event.payload = row.column(9).text();
  event.metadata = row.column(10).text();
  event.flags = static_cast<EventFlags>(row.column(11).integer());
  if (const Value version = row.column(12); !version.is_null())
    event.version = unsigned_number(version);
  event.transaction.source.epoch = static_cast<std::uint32_t>(row.column(13).integer());
  event.transaction.source.commit = unsigned_number(row.column(14));
  event.transaction.source.end = unsigned_number(row.column(15));
  event.transaction.source_xid = static_cast<std::uint32_t>(row.column(16).integer());
  event.transaction.commit_time.value = row.column(17).integer();
  event.transaction.snapshot = row.column(18).integer() != 0;
  return event;
}

SetAsideEvent copy_of(const EventView& event, const internal::RawChange& change) {
  SetAsideEvent copy;
  copy.offset = event.offset;
  copy.category = event.category;
  copy.key = event.key;
  copy.type = event.type;
  copy.payload = event.payload;
  copy.metadata = event.metadata;
  copy.flags = event.flags;
  copy.version = event.version;
  copy.transaction = *change.transaction;
  if (change.moved_from) copy.moved_from = *change.moved_from;
  return copy;
}

}  // namespace

bool is_fault_of_event(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kConflict:
    case ErrorCode::kFailedPrecondition:
    case ErrorCode::kUnsupported:
    case ErrorCode::kGone: return true;
    default: return false;
  }
}

EventView SetAsideEvent::view() const {
  return {offset, category, key, type, payload, metadata, flags, version};
}

std::string_view name_of(AuditAction action) {
  switch (action) {
    case AuditAction::kRetried: return "retried";
    case AuditAction::kSkipped: return "skipped";
    case AuditAction::kTruncated: return "truncated";
  }
  return "";
}

// --- the tables ---

Result<QuarantineCounts> count_set_aside(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, has_tables(database));
  QuarantineCounts counts;
  if (!there) return counts;
  MILLRACE_ASSIGN_OR_RETURN(
      Statement select,
      database.prepare("SELECT (SELECT count(*) FROM (SELECT DISTINCT category, key FROM "
                       "millrace_quarantine)), (SELECT count(*) FROM millrace_quarantine), (SELECT "
                       "count(*) FROM millrace_quarantine_audit WHERE action = 'skipped')"));
  MILLRACE_RETURN_IF_ERROR(select.step());
  counts.keys = unsigned_number(select.column(0));
  counts.events = unsigned_number(select.column(1));
  counts.skipped = unsigned_number(select.column(2));
  return counts;
}

Result<std::vector<SetAsideEvent>> read_set_aside(Database& database) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, has_tables(database));
  std::vector<SetAsideEvent> events;
  if (!there) return events;
  MILLRACE_ASSIGN_OR_RETURN(Statement select,
                            database.prepare(std::string("SELECT ") + kEventColumns +
                                             " FROM millrace_quarantine ORDER BY \"offset\""));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool row, select.step());
    if (!row) return events;
    events.push_back(event_of(select));
  }
}

Result<void> copy_audit(Database& from, Database& to, Offset begin) {
  MILLRACE_ASSIGN_OR_RETURN(const bool there, has_tables(from));
  if (!there) return {};
  MILLRACE_RETURN_IF_ERROR(create_tables(to));
  MILLRACE_ASSIGN_OR_RETURN(
      Statement select,
      from.prepare(
          "SELECT at, action, \"by\", note, \"offset\", category, key, reason FROM "
          "millrace_quarantine_audit WHERE action <> 'truncated' AND \"offset\" >= ?1 ORDER "
          "BY id"));
  select.bind(1, number(begin.value));
  MILLRACE_ASSIGN_OR_RETURN(
      Statement insert,
      to.prepare("INSERT INTO millrace_quarantine_audit(at, action, \"by\", note, \"offset\", "
                 "category, key, reason) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE NOT EXISTS "
                 "(SELECT 1 FROM millrace_quarantine_audit WHERE at = ?1 AND action = ?2 AND "
                 "\"offset\" = ?5)"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool row, select.step());
    if (!row) return {};
    for (int i = 0; i < select.column_count(); ++i) insert.bind(i + 1, select.column(i));
    MILLRACE_RETURN_IF_ERROR(insert.run());
  }
}

Result<void> Quarantine::load() {
  waiting_.clear();
  events_ = 0;
  news_.resize(news_kept_);
  put_off_.clear();
  put_off_bytes_ = 0;
  has_written_ = false;
  left_out_ = left_out_here_;
  decisions_ = 0;
  if (!look_) {
    MILLRACE_ASSIGN_OR_RETURN(look_, database_.prepare("PRAGMA data_version"));
  }
  MILLRACE_RETURN_IF_ERROR(look_.step());
  data_version_ = look_.column(0).integer();
  look_.reset();
  MILLRACE_ASSIGN_OR_RETURN(const bool there, has_tables(database_));
  if (!there) return {};
  MILLRACE_ASSIGN_OR_RETURN(
      Statement keys, database_.prepare("SELECT category, key, count(*) FROM millrace_quarantine "
                                        "GROUP BY category, key"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool row, keys.step());
    if (!row) break;
    const std::uint64_t count = unsigned_number(keys.column(2));
    waiting_.emplace(Key(keys.column(0).text(), keys.column(1).text()), count);
    events_ += count;
  }
  MILLRACE_ASSIGN_OR_RETURN(decisions_,
                            database_.number("SELECT max(id) FROM millrace_quarantine_audit"));
  MILLRACE_ASSIGN_OR_RETURN(
      Statement skipped, database_.prepare("SELECT \"offset\" FROM millrace_quarantine_audit WHERE "
                                           "action = 'skipped'"));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool row, skipped.step());
    if (!row) return {};
    left_out_.insert(Offset{unsigned_number(skipped.column(0))});
  }
}

Result<Quarantine::Changes> Quarantine::load_if_changed() {
  MILLRACE_RETURN_IF_ERROR(look_.step());
  const bool changed = look_.column(0).integer() != data_version_;
  look_.reset();
  if (!changed) return Changes{};
  const std::int64_t known = decisions_;
  MILLRACE_RETURN_IF_ERROR(load());
  return Changes{.any = true, .decided = decisions_ != known};
}

void Quarantine::leave_out(const std::vector<SetAsideEvent>& events) {
  for (const SetAsideEvent& event : events) left_out_here_.insert(event.offset);
  left_out_.insert(left_out_here_.begin(), left_out_here_.end());
}

Result<void> Quarantine::add(const SetAsideEvent& event) {
  const Key key(event.category, event.key);
  if ((waiting_.find(key) == waiting_.end() && waiting_.size() >= keys_max_) ||
      events_ >= kEventsMax)
    return Error(ErrorCode::kFailedPrecondition,
                 "set aside already: " + counted(waiting_.size(), "key") + " with " +
                     counted(events_, "event") + ", and this one can't be folded either: " +
                     event.reason.value_or("it waits behind another one"))
        .hint(
            "So many are hardly the events' fault: mend the function, start again, then "
            "`quarantine "
            "retry`. set_aside_at_most() of the view sets the limit.");
  ++waiting_[key];
  ++events_;
  if (event.reason)
    news_.push_back("event at offset " + std::to_string(event.offset.value) + " of " +
                    printable(event.category) + " is set aside, and key '" + printable(event.key) +
                    "' waits: " + *event.reason);
  if (event.reason || !puts_off_) return write(event);
  put_off_bytes_ += event.payload.size() + event.metadata.size() + sizeof event;
  put_off_.push_back(event);
  return {};
}

Result<void> Quarantine::write_put_off() {
  for (const SetAsideEvent& event : put_off_) MILLRACE_RETURN_IF_ERROR(write(event));
  put_off_.clear();
  put_off_bytes_ = 0;
  return {};
}

Result<void> Quarantine::write(const SetAsideEvent& event) {
  has_written_ = true;
  MILLRACE_RETURN_IF_ERROR(create_tables(database_));
  MILLRACE_ASSIGN_OR_RETURN(
      Statement insert,
      database_.prepare(std::string("INSERT INTO millrace_quarantine(") + kEventColumns +
                        ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, "
                        "?15, ?16, ?17, ?18, ?19)"));
  const std::int64_t now = event.reason ? Clock::system().wall().value : 0;
  insert.bind(1, number(event.offset.value));
  insert.bind(2, event.category);
  insert.bind(3, event.key);
  insert.bind(4, optional_text(event.moved_from));
  insert.bind(5, optional_text(event.reason));
  insert.bind(6, event.reason ? 1 : 0);
  insert.bind(7, now);
  insert.bind(8, now);
  insert.bind(9, event.type);
  insert.bind(10, Value::blob(event.payload));
  insert.bind(11, Value::blob(event.metadata));
  insert.bind(12, static_cast<int>(event.flags));
  insert.bind(13, event.version ? Value(number(*event.version)) : Value());
  insert.bind(14, event.transaction.source.epoch);
  insert.bind(15, number(event.transaction.source.commit));
  insert.bind(16, number(event.transaction.source.end));
  insert.bind(17, event.transaction.source_xid);
  insert.bind(18, event.transaction.commit_time.value);
  insert.bind(19, event.transaction.snapshot ? 1 : 0);
  return insert.run();
}

Result<void> Quarantine::leave_quarantine(const SetAsideEvent& event, AuditAction action,
                                          const AuditNote& note) {
  has_written_ = true;
  MILLRACE_ASSIGN_OR_RETURN(
      Statement remove, database_.prepare("DELETE FROM millrace_quarantine WHERE \"offset\" = ?1"));
  remove.bind(1, number(event.offset.value));
  MILLRACE_RETURN_IF_ERROR(remove.run());
  MILLRACE_ASSIGN_OR_RETURN(
      Statement insert,
      database_.prepare("INSERT INTO millrace_quarantine_audit(at, action, \"by\", note, "
                        "\"offset\", category, key, reason) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, "
                        "?8)"));
  insert.bind(1, Clock::system().wall().value);
  insert.bind(2, name_of(action));
  insert.bind(3, note.by);
  insert.bind(4, note.note);
  insert.bind(5, number(event.offset.value));
  insert.bind(6, event.category);
  insert.bind(7, event.key);
  insert.bind(8, optional_text(event.reason));
  return insert.run();
}

Result<void> Quarantine::failed_again(Offset offset, const std::string& reason) {
  MILLRACE_ASSIGN_OR_RETURN(
      Statement update,
      database_.prepare("UPDATE millrace_quarantine SET reason = ?1, attempts = attempts + 1, "
                        "last_failed = ?2, first_failed = CASE WHEN attempts = 0 THEN ?2 ELSE "
                        "first_failed END WHERE \"offset\" = ?3"));
  update.bind(1, reason);
  update.bind(2, Clock::system().wall().value);
  update.bind(3, number(offset.value));
  return update.run();
}

Result<void> Quarantine::skip(const SetAsideEvent& event, const AuditNote& note) {
  MILLRACE_RETURN_IF_ERROR(leave());
  return leave_quarantine(event, AuditAction::kSkipped, note);
}

/// What waits is of rows that are gone now. To fold it later would bring them back.
Result<void> Quarantine::drop_truncated(std::string_view category, Offset by) {
  const auto first = waiting_.lower_bound(Key(category, ""));
  if (first == waiting_.end() || first->first.first != category) return {};
  MILLRACE_RETURN_IF_ERROR(write_put_off());
  MILLRACE_ASSIGN_OR_RETURN(const auto events, read_set_aside(database_));
  const AuditNote note{"", "the table was truncated at offset " + std::to_string(by.value)};
  for (const SetAsideEvent& event : events)
    if (event.category == category)
      MILLRACE_RETURN_IF_ERROR(leave_quarantine(event, AuditAction::kTruncated, note));
  std::erase_if(waiting_, [&](const auto& key) {
    if (key.first.first != category) return false;
    events_ -= key.second;
    return true;
  });
  return {};
}

// --- an event ---

bool Quarantine::can_take(const Error& error) const {
  return keys_max_ > 0 && is_fault_of_event(error);
}

bool Quarantine::waits(std::string_view category, std::string_view key) const {
  return !waiting_.empty() &&
         waiting_.find(Key(std::string(category), std::string(key))) != waiting_.end();
}

/// It failed, or is the deletion before one that did, which may be its first half. All others have
/// been taken; a second half would lose what its first one has left in memory. Of a view that
/// gathers it may be any.
bool Quarantine::needs_care(const EventView& event, const Hands& hands) const {
  if (hands.gathers) return is_careful();
  return failed_.contains(event.offset) || (has(event.flags, EventFlags::kTombstone) &&
                                            failed_.contains(Offset{event.offset.value + 1}));
}

bool Quarantine::is_second_half(const internal::RawChange& change) const {
  return first_half_ && change.moved_from && first_half_->offset.value + 1 == change.offset.value &&
         first_half_->category == change.category && first_half_->key == *change.moved_from;
}

void Quarantine::note_failure(Offset offset, const Error& error) {
  if (can_take(error)) wants_care_ = offset;
}

Result<void> Quarantine::begin_again(bool with_care) {
  if (wants_care_) {
    careful_until_ = std::exchange(wants_care_, std::nullopt);
    failed_.insert(*careful_until_);
  }
  if (!with_care) careful_until_.reset();
  in_savepoint_ = false;
  first_half_.reset();
  return load();
}

Result<void> Quarantine::keep() {
  careful_until_.reset();
  news_kept_ = news_.size();
  return leave();
}

std::vector<std::string> Quarantine::committed(Offset end) {
  in_savepoint_ = false;
  first_half_.reset();
  news_kept_ = 0;
  has_written_ = false;
  failed_.erase(failed_.begin(), failed_.lower_bound(end));
  if (careful_until_ && end > *careful_until_) careful_until_.reset();
  return std::exchange(news_, {});
}

Result<void> Quarantine::pass(const EventView& event, const internal::RawChange& change,
                              const Hands& hands) {
  const bool is_second = is_second_half(change);
  if (!is_second) MILLRACE_RETURN_IF_ERROR(leave());
  if (left_out_.contains(event.offset)) return {};
  if (change.op == Op::kTruncate) {
    if (is_careful()) MILLRACE_RETURN_IF_ERROR(hands.flush());
    MILLRACE_RETURN_IF_ERROR(drop_truncated(event.category, event.offset));
    return call_truncate(event, hands);
  }
  const bool from_waits = change.moved_from && waits(event.category, *change.moved_from);
  if (from_waits || waits(event.category, event.key)) {
    if (change.moved_from && !from_waits && !needs_care(event, hands)) {
      wants_care_ = event.offset;  // its first half is folded already
      return Error(ErrorCode::kInternal, "its key waits, but not the one that it had");
    }
    if (is_second) MILLRACE_RETURN_IF_ERROR(take_back(hands));
    return add(copy_of(event, change));
  }
  if (needs_care(event, hands)) return call_with_care(event, change, hands);
  auto done = hands.call();
  if (!done) note_failure(event.offset, done.error());
  return done;
}

/// Should it fail, it stops the view: all of the table's keys would have to wait for it.
Result<void> Quarantine::call_truncate(const EventView& event, const Hands& hands) {
  if (is_careful()) return hands.call_alone();
  auto done = hands.call();
  if (!done && hands.gathers) note_failure(event.offset, done.error());
  return done;
}

Result<void> Quarantine::call_with_care(const EventView& event, const internal::RawChange& change,
                                        const Hands& hands) {
  if (!is_second_half(change)) MILLRACE_RETURN_IF_ERROR(enter(hands));
  auto done = hands.call_alone();
  if (!done) {
    if (!can_take(done.error())) return done;
    MILLRACE_RETURN_IF_ERROR(take_back(hands));
    SetAsideEvent failed = copy_of(event, change);
    failed.reason = done.error().message();
    return add(failed);
  }
  if (change.op != Op::kDelete) return leave();
  first_half_ = copy_of(event, change);
  return {};
}

Result<std::optional<std::string>> Quarantine::try_again(const SetAsideEvent& event,
                                                         const internal::RawChange& change,
                                                         const AuditNote& note,
                                                         const Hands& hands) {
  if (!is_second_half(change)) {
    MILLRACE_RETURN_IF_ERROR(leave());
    MILLRACE_RETURN_IF_ERROR(enter(hands));
  }
  auto done = hands.call_alone();
  if (!done) {
    if (!is_fault_of_event(done.error())) return std::move(done).error();
    first_half_.reset();  // the file has it, and again once its savepoint is taken back
    MILLRACE_RETURN_IF_ERROR(take_back(hands));
    std::string reason = done.error().message();
    MILLRACE_RETURN_IF_ERROR(failed_again(event.offset, reason));
    return std::optional(std::move(reason));
  }
  MILLRACE_RETURN_IF_ERROR(leave_quarantine(event, AuditAction::kRetried, note));
  if (change.op == Op::kDelete)
    first_half_ = event;
  else
    MILLRACE_RETURN_IF_ERROR(leave());
  return std::optional<std::string>();
}

/// What the writer has put off is of events before, which stay whatever comes.
Result<void> Quarantine::enter(const Hands& hands) {
  MILLRACE_RETURN_IF_ERROR(hands.flush());
  MILLRACE_RETURN_IF_ERROR(database_.execute("SAVEPOINT millrace_event"));
  in_savepoint_ = true;
  return {};
}

Result<void> Quarantine::leave() {
  first_half_.reset();
  if (!in_savepoint_) return {};
  in_savepoint_ = false;
  return database_.execute("RELEASE millrace_event");
}

/// Back to before the event at hand and, where it is the second half of a change of key, before the
/// first one, which is set aside then.
Result<void> Quarantine::take_back(const Hands& hands) {
  MILLRACE_RETURN_IF_ERROR(database_.execute("ROLLBACK TO millrace_event; RELEASE millrace_event"));
  in_savepoint_ = false;
  MILLRACE_RETURN_IF_ERROR(hands.renew());
  if (!first_half_) return {};
  const SetAsideEvent first = *std::exchange(first_half_, std::nullopt);
  return add(first);
}

}  // namespace millrace::projections
