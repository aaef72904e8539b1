#include "projections/cache_table.h"

#include <array>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "projections/sqlite/change_log.h"
#include "projections/sqlite/columns.h"
#include "projections/sqlite/database.h"
#include "projections/sqlite/row_buffer.h"

namespace millrace::projections {

using sqlite::Mask;

namespace {

enum class Verb : std::uint8_t { kPut, kAdd, kSubtract, kRaise, kUpdateAll, kMoveErased };
constexpr std::size_t kVerbs = 6;

bool makes_rows(Verb verb) {
  return verb == Verb::kPut || verb == Verb::kAdd || verb == Verb::kRaise;
}

/// Parameters of statements that make no rows: 1 the key, 2 the key that it had, 3 and on the
/// columns by their place.
constexpr int kKey = 1;
constexpr int kOldKey = 2;
constexpr int kFirstColumn = 3;

std::vector<std::string> names_of(const std::vector<Column>& columns) {
  std::vector<std::string> names;
  for (const auto& column : columns) names.push_back(column.name);
  return names;
}

std::vector<ColumnType> types_of(const std::vector<Column>& columns) {
  std::vector<ColumnType> types;
  for (const auto& column : columns) types.push_back(column.type);
  return types;
}

/// Writes the SQL of one verb for one set of columns.
class Sql {
 public:
  Sql(std::string_view table, std::string_view key, const std::vector<std::string>& columns)
      : table_(quote_identifier(table)), key_(quote_identifier(key)), columns_(columns) {}

  std::string of(Verb verb, const Mask& mask) const {
    switch (verb) {
      case Verb::kSubtract:
        return "UPDATE " + table_ + " SET " + assignments(mask, "coalesce($c, 0) - $p") +
               where_key("?1");
      case Verb::kUpdateAll: return "UPDATE " + table_ + " SET " + assignments(mask, "$p");
      case Verb::kMoveErased:
        return "UPDATE OR REPLACE " + table_ + " SET " + key_ + " = ?1" + (mask.any() ? ", " : "") +
               assignments(mask, "$p") + where_key("?2");
      default: return {};
    }
  }

  /// Of a verb that makes rows: so many at once, whose parameters are those of RowBuffer::bind().
  std::string of(Verb verb, const Mask& mask, std::size_t rows) const {
    switch (verb) {
      case Verb::kPut: return upsert(mask, rows, "$n");
      case Verb::kAdd: return upsert(mask, rows, "coalesce($c, 0) + $n");
      case Verb::kRaise:
        return upsert(mask, rows, "CASE WHEN $c IS NULL OR $n > $c THEN $n ELSE $c END");
      default: return {};
    }
  }

 private:
  std::string upsert(const Mask& mask, std::size_t rows, std::string_view to) const {
    std::string names = key_, row = "(?";
    for (std::size_t place = 0; place < columns_.size(); ++place) {
      if (!mask[place]) continue;
      names += ", " + quote_identifier(columns_[place]);
      row += ", ?";
    }
    row += ")";
    std::string values = row;
    for (std::size_t i = 1; i < rows; ++i) values += ", " + row;
    return "INSERT INTO " + table_ + "(" + names + ") VALUES" + values + " ON CONFLICT(" + key_ +
           ") DO " + (mask.any() ? "UPDATE SET " + assignments(mask, to) : "NOTHING");
  }

  /// "a = <to>, b = <to>" where $c in `to` is the column, $p its parameter and $n what an upsert
  /// would have inserted.
  std::string assignments(const Mask& mask, std::string_view to) const {
    std::string out;
    for (std::size_t place = 0; place < columns_.size(); ++place) {
      if (!mask[place]) continue;
      const std::string column = quote_identifier(columns_[place]);
      out += (out.empty() ? "" : ", ") + column + " = ";
      for (std::size_t i = 0; i < to.size(); ++i) {
        if (to[i] != '$') {
          out += to[i];
          continue;
        }
        switch (to[++i]) {
          case 'c': out += table_ + "." + column; break;
          case 'n': out += "excluded." + column; break;
          default: out += parameter(place);
        }
      }
    }
    return out;
  }

  std::string where_key(std::string_view is) const {
    return " WHERE " + key_ + " = " + std::string(is);
  }
  static std::string parameter(std::size_t place) {
    return "?" + std::to_string(kFirstColumn + static_cast<int>(place));
  }

  std::string table_, key_;
  const std::vector<std::string>& columns_;
};

}  // namespace

// --- the view ---

CacheTable::CacheTable(std::string name, Version version, CacheTableOptions options)
    : ViewBuilder(std::move(name), version), options_(std::move(options)) {}

Result<void> CacheTable::check_shape() const {
  std::vector<std::string> names = names_of(options_.columns);
  for (const auto& index : options_.indexes) {
    if (index.empty()) return Error(ErrorCode::kInvalidArgument, "an index has no columns");
    for (const auto& column : index)
      if (std::find(names.begin(), names.end(), column) == names.end() &&
          column != options_.key.name)
        return Error(ErrorCode::kInvalidArgument,
                     "an index is on '" + column + "', which is no column");
  }
  if (options_.key.type != ColumnType::kInteger && options_.key.type != ColumnType::kText)
    return Error(ErrorCode::kInvalidArgument, "its key must be an integer(...) or a text(...)");
  names.push_back(options_.key.name);
  MILLRACE_RETURN_IF_ERROR(sqlite::check_names(names));
  return options_.sink ? options_.sink->check(sink_shape()) : Result<void>{};
}

void CacheTable::describe(std::string& shape) const {
  shape += "cache table\n";
  const auto add = [&](std::string_view what, const Column& column) {
    shape += std::string(what) + " " + quote_identifier(column.name) + " " +
             std::string(sqlite::type_name(column.type)) + (column.counter ? " counter\n" : "\n");
  };
  add("key", options_.key);
  for (const auto& column : options_.columns) add("column", column);
  for (const auto& index : options_.indexes) {
    shape += "index";
    for (const auto& column : index) shape += " " + quote_identifier(column);
    shape += "\n";
  }
}

Result<void> CacheTable::create(sqlite::Database& database) const {
  const bool by_number = options_.key.type == ColumnType::kInteger;
  std::string sql = "CREATE TABLE " + quote_identifier(name()) + "(" +
                    quote_identifier(options_.key.name) +
                    (by_number ? " INTEGER PRIMARY KEY" : " TEXT NOT NULL PRIMARY KEY");
  for (const auto& column : options_.columns)
    sql += ", " + quote_identifier(column.name) + " " +
           std::string(sqlite::type_name(column.type)) +
           (column.counter ? " NOT NULL DEFAULT 0" : "");
  return database.execute(sql + (by_number ? ")" : ") WITHOUT ROWID"));
}

Result<void> CacheTable::begin_bulk(sqlite::Database&) const { return {}; }

Result<void> CacheTable::end_bulk(sqlite::Database& database) const {
  int number = 0;
  for (const auto& index : options_.indexes) {
    std::string columns;
    for (const auto& column : index)
      columns += (columns.empty() ? "" : ", ") + quote_identifier(column);
    MILLRACE_RETURN_IF_ERROR(database.execute(
        "CREATE INDEX " + quote_identifier(name() + "_index_" + std::to_string(++number)) + " ON " +
        quote_identifier(name()) + "(" + columns + ")"));
  }
  return {};
}

std::vector<internal::Comparison> CacheTable::comparisons() const {
  return {{"row", "",
           "SELECT * FROM " + quote_identifier(name()) + " ORDER BY " +
               quote_identifier(options_.key.name)}};
}

SinkShape CacheTable::sink_shape() const {
  const SinkShape whole{name(), options_.key, options_.columns, options_.indexes};
  return options_.sink ? options_.sink->kept(whole) : whole;
}

std::string CacheTable::count_query() const {
  return "SELECT count(*) FROM " + quote_identifier(name());
}

// --- its writer ---

class CacheTable::Writer::Statements {
 public:
  Statements(sqlite::Database& to, const std::string& table, const CacheTableOptions& options)
      : database(to),
        key_type(options.key.type),
        types(types_of(options.columns)),
        columns(names_of(options.columns)),
        sql(table, options.key.name, columns.all()) {}

  static Result<std::unique_ptr<Statements>> make(sqlite::Database& database,
                                                  const std::string& table,
                                                  const CacheTableOptions& options) {
    auto made = std::make_unique<Statements>(database, table, options);
    const std::string key = quote_identifier(options.key.name);
    MILLRACE_ASSIGN_OR_RETURN(
        made->erase,
        database.prepare("DELETE FROM " + quote_identifier(table) + " WHERE " + key + " = ?1"));
    MILLRACE_ASSIGN_OR_RETURN(made->clear,
                              database.prepare("DELETE FROM " + quote_identifier(table)));
    MILLRACE_ASSIGN_OR_RETURN(
        made->move, database.prepare("UPDATE OR REPLACE " + quote_identifier(table) + " SET " +
                                     key + " = ?1 WHERE " + key + " = ?2"));
    MILLRACE_ASSIGN_OR_RETURN(
        made->find,
        database.prepare("SELECT * FROM " + quote_identifier(table) + " WHERE " + key + " = ?1"));
    return made;
  }

  /// Runs `verb` with the values in `resolved`.
  Result<void> run(Verb verb, const Value& key, const Value& old_key) {
    MILLRACE_ASSIGN_OR_RETURN(
        sqlite::Statement * statement,
        by_verb[static_cast<std::size_t>(verb)].get(
            database, resolved.mask, [&](const Mask& mask) { return sql.of(verb, mask); }));
    if (verb != Verb::kUpdateAll) statement->bind(kKey, key);
    if (verb == Verb::kMoveErased) statement->bind(kOldKey, old_key);
    for (const auto& [place, value] : resolved.values)
      statement->bind(kFirstColumn + static_cast<int>(place), value);
    if (log) note(verb, key, old_key);
    return statement->run();
  }

  void note(Verb verb, const Value& key, const Value& old_key) {
    if (verb == Verb::kUpdateAll) return log->all_changed();
    log->changed(key);
    if (verb == Verb::kMoveErased) log->changed(old_key);
  }

  Result<void> write(Verb verb, const Value& given, Assignments assignments,
                     const internal::RawChange& change) {
    Value key;
    if (verb != Verb::kUpdateAll) {
      MILLRACE_ASSIGN_OR_RETURN(key, sqlite::key_as(key_type, given, key_text));
    }
    MILLRACE_RETURN_IF_ERROR(resolved.assign(columns, assignments));
    if (verb != Verb::kPut) MILLRACE_RETURN_IF_ERROR(check_numbers(verb));
    if (verb == Verb::kPut && resolved.any_unchanged && pending.is_first_half_of(change)) {
      pending.reset();
      MILLRACE_RETURN_IF_ERROR(run(Verb::kMoveErased, key, pending.key()));
      if (database.changes() > 0) return {};
    }
    MILLRACE_RETURN_IF_ERROR(flush_erase());
    if (makes_rows(verb)) return make_row(verb, key);
    MILLRACE_RETURN_IF_ERROR(write_rows());
    return resolved.mask.none() ? Result<void>{} : run(verb, key, {});
  }

  /// SQLite would make a real of the text of a decimal, or compare it as text.
  Result<void> check_numbers(Verb verb) const {
    const bool adds = verb == Verb::kAdd || verb == Verb::kSubtract;
    for (const auto& [place, value] : resolved.values) {
      const bool orders = verb == Verb::kRaise && types[place] != ColumnType::kText;
      if (value.kind() != Value::Kind::kText || !(adds || orders)) continue;
      return Error(ErrorCode::kInvalidArgument,
                   "the text '" + printable(value.text(), 40) + "' can't be " +
                       (adds ? "added to or taken from" : "compared with") + " column '" +
                       columns.all()[place] + "' as a number")
          .hint(
              "Declare the view: its sum(), min() and max() take exact decimals. Or give an "
              "integer, as scaled(number, 2) makes of 19.90.");
    }
    return {};
  }

  /// Now or, with others of its kind, by write_rows().
  Result<void> make_row(Verb verb, const Value& key) {
    if (log) log->changed(key);
    if (verb != rows_verb || resolved.mask != rows_mask) {
      MILLRACE_RETURN_IF_ERROR(write_rows());
      rows_verb = verb;
      rows_mask = resolved.mask;
    }
    if (!rows.add(key, resolved.values)) {
      MILLRACE_RETURN_IF_ERROR(write_rows());
      if (!rows.add(key, resolved.values)) return write_large_row(key);
    }
    return rows.is_full() || at_once ? write_rows() : Result<void>{};
  }

  /// Changes nothing of what put-off erasures are to the changes that follow them.
  Result<void> write_rows() {
    if (rows.is_empty()) return {};
    const std::size_t step = rows.is_full() ? rows.rows() : 1;
    MILLRACE_ASSIGN_OR_RETURN(sqlite::Statement * statement, upsert_of(step));
    for (std::size_t row = 0; row < rows.rows(); row += step) {
      rows.bind(*statement, row, step);
      if (auto written = statement->run(); !written) {
        failed_late = !at_once;
        return written;
      }
    }
    rows.clear();
    return {};
  }

  Result<void> write_large_row(const Value& key) {
    MILLRACE_ASSIGN_OR_RETURN(sqlite::Statement * statement, upsert_of(1));
    int parameter = 0;
    statement->bind(++parameter, key);
    for (const auto& [place, value] : resolved.values) statement->bind(++parameter, value);
    return statement->run();
  }

  Result<sqlite::Statement*> upsert_of(std::size_t count) {
    auto& statements = count == 1 ? by_verb : of_many;
    return statements[static_cast<std::size_t>(rows_verb)].get(
        database, rows_mask, [&](const Mask& mask) { return sql.of(rows_verb, mask, count); });
  }

  Result<void> flush() {
    MILLRACE_RETURN_IF_ERROR(flush_erase());
    return write_rows();
  }

  /// There are no rows to be written where it is set.
  Result<void> flush_erase() {
    if (!pending.is_set()) return {};
    pending.reset();
    erase.bind(1, pending.key());
    if (log) log->changed(pending.key());
    return erase.run();
  }

  Result<void> put_off_erase(const Value& given, Offset offset) {
    MILLRACE_RETURN_IF_ERROR(flush());
    MILLRACE_ASSIGN_OR_RETURN(const Value key, sqlite::key_as(key_type, given, key_text));
    pending.set(key, offset);
    return {};
  }

  Result<void> move_key(const Value& given_from, const Value& given_to) {
    MILLRACE_RETURN_IF_ERROR(flush());
    MILLRACE_ASSIGN_OR_RETURN(const Value to, sqlite::key_as(key_type, given_to, key_text));
    MILLRACE_ASSIGN_OR_RETURN(const Value from,
                              sqlite::key_as(key_type, given_from, other_key_text));
    move.bind(kKey, to);
    move.bind(kOldKey, from);
    if (log) {
      log->changed(from);
      log->changed(to);
    }
    return move.run();
  }

  sqlite::Database& database;
  const ColumnType key_type;
  const std::vector<ColumnType> types;
  const sqlite::ColumnNames columns;
  const Sql sql;
  std::array<sqlite::StatementsByMask, kVerbs> by_verb, of_many;
  sqlite::Statement erase, clear, move, find;
  sqlite::PendingErase pending;
  sqlite::RowBuffer rows;
  Verb rows_verb = Verb::kPut;  // of `rows`, as the next
  Mask rows_mask;
  bool at_once = false;
  bool failed_late = false;
  sqlite::Resolved resolved;               // reused
  std::string key_text, other_key_text;    // reused
  std::unique_ptr<sqlite::ChangeLog> log;  // for a sink
};

Result<std::unique_ptr<internal::ViewWriter>> CacheTable::make_writer(
    sqlite::Database& database) const {
  MILLRACE_ASSIGN_OR_RETURN(auto statements, Writer::Statements::make(database, name(), options_));
  if (options_.sink && database.mode() == sqlite::Mode::kLive) {
    MILLRACE_ASSIGN_OR_RETURN(statements->log,
                              sqlite::ChangeLog::open(database, options_.key.type));
  } else {
    MILLRACE_RETURN_IF_ERROR(sqlite::ChangeLog::remove(database));
  }
  return std::unique_ptr<internal::ViewWriter>(new Writer(std::move(statements)));
}

CacheTable::Writer::Writer(std::unique_ptr<Statements> statements)
    : statements_(std::move(statements)) {}
CacheTable::Writer::~Writer() = default;

void CacheTable::Writer::put(Value key, Assignments columns) {
  if (failed()) return;
  if (auto done = statements_->write(Verb::kPut, key, columns, *change_); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::add(Value key, Assignments amounts) {
  if (failed()) return;
  if (auto done = statements_->write(Verb::kAdd, key, amounts, *change_); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::subtract(Value key, Assignments amounts) {
  if (failed()) return;
  if (auto done = statements_->write(Verb::kSubtract, key, amounts, *change_); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::raise(Value key, Assignments columns) {
  if (failed()) return;
  if (auto done = statements_->write(Verb::kRaise, key, columns, *change_); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::update_all(Assignments columns) {
  if (failed()) return;
  if (auto done = statements_->write(Verb::kUpdateAll, {}, columns, *change_); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::erase(Value key) {
  if (failed()) return;
  if (auto done = statements_->put_off_erase(key, change_->offset); !done)
    fail(std::move(done).error());
}

void CacheTable::Writer::move(Value from, Value to) {
  if (failed()) return;
  if (auto done = statements_->move_key(from, to); !done) fail(std::move(done).error());
}

void CacheTable::Writer::clear() {
  if (failed()) return;
  statements_->pending.reset();
  statements_->rows.clear();
  if (statements_->log) statements_->log->all_changed();
  if (auto done = statements_->clear.run(); !done) fail(std::move(done).error());
}

std::optional<StoredRow> CacheTable::Writer::find(Value key) {
  flush();
  if (failed()) throw internal::WriterFailed();
  if (key.is_null()) return std::nullopt;
  auto named = sqlite::key_as(statements_->key_type, key, statements_->key_text);
  if (!named) fail_and_throw(std::move(named).error());
  sqlite::Statement& find = statements_->find;
  find.bind(1, *named);
  auto there = find.step();
  if (!there) fail_and_throw(std::move(there).error());
  if (!*there) return std::nullopt;
  StoredRow row;
  for (int column = 0; column < find.column_count(); ++column)
    row.add(find.column_name(column), find.column(column));
  find.reset();
  return row;
}

void CacheTable::Writer::flush() {
  if (failed()) return;
  if (auto done = statements_->flush(); !done) fail(std::move(done).error());
}

void CacheTable::Writer::write_at_once(bool at_once) { statements_->at_once = at_once; }
bool CacheTable::Writer::failed_late() const { return statements_->failed_late; }

/// Rows that were put back may be named too often; one that is not named would be missed.
void CacheTable::Writer::take_over_from(internal::ViewWriter& before) {
  if (statements_->log)
    statements_->log->take_over_from(*static_cast<Writer&>(before).statements_->log);
}

Result<void> CacheTable::Writer::before_commit(Offset offset) {
  return statements_->log ? statements_->log->commit(offset) : Result<void>{};
}

}  // namespace millrace::projections
