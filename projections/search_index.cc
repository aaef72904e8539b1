#include "projections/search_index.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "projections/sqlite/columns.h"
#include "projections/sqlite/database.h"

// An index is an FTS5 table whose first column is the key, not searched. With integer keys the key
// is the document's number. With text keys a second table, <name>_key, gives each key a document
// number.
//
// FTS5 has no upsert, and INSERT OR REPLACE looks for an old document each time. What the change
// says about itself is a good guess instead: an insert is tried as INSERT and becomes an UPDATE
// where the document is there, an update the other way round. Either way the outcome is the same.

namespace millrace::projections {

using sqlite::Mask;

namespace {

/// Parameters: 1 the document's number, 2 the key, 3 and on the columns by their place.
constexpr int kDocument = 1;
constexpr int kKey = 2;
constexpr int kFirstColumn = 3;

std::vector<std::string> names_of(const SearchIndexOptions& options) {
  std::vector<std::string> names = options.text;
  names.insert(names.end(), options.stored.begin(), options.stored.end());
  return names;
}

std::string key_table(const std::string& name) { return quote_identifier(name + "_key"); }

std::string parameter(std::size_t place) {
  return "?" + std::to_string(kFirstColumn + static_cast<int>(place));
}

}  // namespace

// --- the view ---

SearchIndex::SearchIndex(std::string name, Version version, SearchIndexOptions options)
    : ViewBuilder(std::move(name), version), options_(std::move(options)) {}

Result<void> SearchIndex::check_shape() const {
  if (options_.text.empty()) return Error(ErrorCode::kInvalidArgument, "it has no text to search");
  if (options_.key.type != ColumnType::kInteger && options_.key.type != ColumnType::kText)
    return Error(ErrorCode::kInvalidArgument, "its key must be an integer(...) or a text(...)");
  // Columns that FTS5 itself adds.
  std::vector<std::string> names = {"rank", "rowid", name(), options_.key.name};
  for (auto& column : names_of(options_)) names.push_back(std::move(column));
  MILLRACE_RETURN_IF_ERROR(sqlite::check_names(names));
  MILLRACE_ASSIGN_OR_RETURN(const auto scratch,
                            sqlite::Database::open(":memory:", sqlite::Mode::kBulk));
  if (auto made = scratch->execute(create_statement()); !made)
    return Error(ErrorCode::kInvalidArgument, "SQLite can't make its index with tokenizer '" +
                                                  printable(options_.tokenizer) +
                                                  "': " + made.error().message())
        .hint("https://sqlite.org/fts5.html#tokenizers tells which there are, and their options.");
  return {};
}

void SearchIndex::describe(std::string& shape) const {
  shape += "search index, tokenizer " + options_.tokenizer + "\n";
  shape += "key " + quote_identifier(options_.key.name) + " " +
           std::string(sqlite::type_name(options_.key.type)) + "\n";
  for (const auto& column : options_.text) shape += "text " + quote_identifier(column) + "\n";
  for (const auto& column : options_.stored) shape += "stored " + quote_identifier(column) + "\n";
}

std::string SearchIndex::create_statement() const {
  std::string sql = "CREATE VIRTUAL TABLE " + quote_identifier(name()) + " USING fts5(" +
                    quote_identifier(options_.key.name) + " UNINDEXED";
  for (const auto& column : options_.text) sql += ", " + quote_identifier(column);
  for (const auto& column : options_.stored) sql += ", " + quote_identifier(column) + " UNINDEXED";
  return sql + ", tokenize = " + quote_identifier(options_.tokenizer) + ")";
}

Result<void> SearchIndex::create(sqlite::Database& database) const {
  if (options_.key.type == ColumnType::kText)
    MILLRACE_RETURN_IF_ERROR(
        database.execute("CREATE TABLE " + key_table(name()) +
                         "(document INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)"));
  return database.execute(create_statement());
}

Result<void> SearchIndex::begin_bulk(sqlite::Database& database) const {
  const std::string table = quote_identifier(name());
  return database.execute("INSERT INTO " + table + "(" + table + ", rank) VALUES('automerge', 0)");
}

Result<void> SearchIndex::end_bulk(sqlite::Database& database) const {
  const std::string table = quote_identifier(name());
  return database.execute("INSERT INTO " + table + "(" + table + ", rank) VALUES('automerge', 4)");
}

std::vector<internal::Comparison> SearchIndex::comparisons() const {
  std::string columns = "f." + quote_identifier(options_.key.name);
  for (const auto& column : names_of(options_)) columns += ", f." + quote_identifier(column);
  const bool by_number = options_.key.type == ColumnType::kInteger;
  // The second one is the inverted index itself: how often each word stands in each column. It
  // comes in order.
  return {{"document", "",
           "SELECT " + columns + " FROM " +
               (by_number ? quote_identifier(name()) + " f ORDER BY f.rowid"
                          : key_table(name()) + " k JOIN " + quote_identifier(name()) +
                                " f ON f.rowid = k.document ORDER BY k.key")},
          {"word",
           "CREATE VIRTUAL TABLE temp.millrace_words USING fts5vocab(main, " +
               quote_identifier(name()) + ", 'col')",
           "SELECT term, col, doc, cnt FROM temp.millrace_words"}};
}

std::string SearchIndex::count_query() const {
  return "SELECT count(*) FROM " + quote_identifier(name() + "_docsize");
}

// --- its writer ---

class SearchIndex::Writer::Statements {
 public:
  Statements(sqlite::Database& to, const SearchIndex& index)
      : database(to),
        table(quote_identifier(index.name())),
        key_column(quote_identifier(index.options_.key.name)),
        key_type(index.options_.key.type),
        by_number(key_type == ColumnType::kInteger),
        columns(names_of(index.options_)),
        create(index.create_statement()),
        clear_keys("DELETE FROM " + key_table(index.name())) {}

  static Result<std::unique_ptr<Statements>> make(sqlite::Database& database,
                                                  const SearchIndex& index) {
    auto made = std::make_unique<Statements>(database, index);
    const std::string& table = made->table;
    MILLRACE_ASSIGN_OR_RETURN(made->erase,
                              database.prepare("DELETE FROM " + table + " WHERE rowid = ?1"));
    MILLRACE_ASSIGN_OR_RETURN(made->find,
                              database.prepare("SELECT * FROM " + table + " WHERE rowid = ?1"));
    MILLRACE_ASSIGN_OR_RETURN(made->renumber,
                              database.prepare("UPDATE " + table + " SET rowid = ?1, " +
                                               made->key_column + " = ?2 WHERE rowid = ?3"));
    // Where the key is the document's number, what is there is only known by looking.
    if (made->by_number) {
      MILLRACE_ASSIGN_OR_RETURN(
          made->look_up, database.prepare("SELECT rowid FROM " + table + " WHERE rowid = ?1"));
      return made;
    }
    const std::string keys = key_table(index.name());
    MILLRACE_ASSIGN_OR_RETURN(made->look_up,
                              database.prepare("SELECT document FROM " + keys + " WHERE key = ?1"));
    MILLRACE_ASSIGN_OR_RETURN(made->add_key,
                              database.prepare("INSERT INTO " + keys + "(key) VALUES(?1)"));
    MILLRACE_ASSIGN_OR_RETURN(made->erase_key,
                              database.prepare("DELETE FROM " + keys + " WHERE document = ?1"));
    MILLRACE_ASSIGN_OR_RETURN(
        made->rename_key, database.prepare("UPDATE " + keys + " SET key = ?1 WHERE document = ?2"));
    return made;
  }

  Result<void> put(const Value& given, Assignments assignments, const internal::RawChange& change) {
    MILLRACE_ASSIGN_OR_RETURN(const Value key, sqlite::key_as(key_type, given, key_text));
    MILLRACE_RETURN_IF_ERROR(resolved.assign(columns, assignments));
    if (resolved.any_unchanged && pending.is_first_half_of(change)) {
      pending.reset();
      MILLRACE_RETURN_IF_ERROR(move(pending.key(), key));
    }
    MILLRACE_RETURN_IF_ERROR(flush());
    const bool likely_new = change.op == Op::kInsert || change.op == Op::kRead;
    if (likely_new && !resolved.any_unchanged) {
      MILLRACE_ASSIGN_OR_RETURN(const bool inserted, insert(key));
      if (!inserted) MILLRACE_RETURN_IF_ERROR(update(key));
      return {};
    }
    MILLRACE_ASSIGN_OR_RETURN(const bool updated, update(key));
    if (!updated) MILLRACE_RETURN_IF_ERROR(insert(key));
    return {};
  }

  Result<void> move(const Value& given_from, const Value& given_to) {
    MILLRACE_ASSIGN_OR_RETURN(const Value from,
                              sqlite::key_as(key_type, given_from, other_key_text));
    // Where put() moves a row on, its key is in key_text already, and this leaves it there.
    MILLRACE_ASSIGN_OR_RETURN(const Value to, sqlite::key_as(key_type, given_to, key_text));
    MILLRACE_ASSIGN_OR_RETURN(const auto document, existing_document_of(from));
    if (!document) return {};
    MILLRACE_ASSIGN_OR_RETURN(const auto replaced, existing_document_of(to));
    if (replaced == document) return {};
    if (replaced) MILLRACE_RETURN_IF_ERROR(remove(*replaced));
    if (!by_number) {
      rename_key.bind(1, to);
      rename_key.bind(2, *document);
      MILLRACE_RETURN_IF_ERROR(rename_key.run());
    }
    // With integer keys the document's number is the key itself.
    renumber.bind(1, by_number ? to : Value(*document));
    renumber.bind(2, to);
    renumber.bind(3, *document);
    return renumber.run();
  }

  Result<void> flush() {
    if (!pending.is_set()) return {};
    pending.reset();
    MILLRACE_ASSIGN_OR_RETURN(const auto document, document_of(pending.key()));
    return document ? remove(*document) : Result<void>{};
  }

  // Keys from here on are as key_as() gives them.

  /// The number of the document with this key. With integer keys it need not exist.
  Result<std::optional<std::int64_t>> document_of(const Value& key) {
    if (by_number) return std::optional(key.integer());
    return existing_document_of(key);
  }

  /// The number of the document with this key, if there is one.
  Result<std::optional<std::int64_t>> existing_document_of(const Value& key) {
    look_up.bind(1, key);
    MILLRACE_ASSIGN_OR_RETURN(const bool there, look_up.step());
    if (!there) return std::optional<std::int64_t>();
    const std::int64_t number = look_up.column(0).integer();
    look_up.reset();
    return std::optional(number);
  }

  Result<void> clear() {
    pending.reset();
    // FTS5 would take a DELETE without WHERE as one deletion after the other.
    MILLRACE_RETURN_IF_ERROR(database.execute("DROP TABLE " + table));
    MILLRACE_RETURN_IF_ERROR(database.execute(create));
    return by_number ? Result<void>{} : database.execute(clear_keys);
  }

  sqlite::Database& database;
  const std::string table, key_column;
  const ColumnType key_type;
  const bool by_number;
  const sqlite::ColumnNames columns;
  const std::string create, clear_keys;
  sqlite::StatementsByMask inserts, updates;
  sqlite::Statement erase, find, renumber, look_up, add_key, erase_key, rename_key;
  sqlite::PendingErase pending;
  sqlite::Resolved resolved;             // reused
  std::string key_text, other_key_text;  // reused

 private:
  /// False if the document is there already.
  Result<bool> insert(const Value& key) {
    std::int64_t document = key.integer();
    if (!by_number) {
      add_key.bind(1, key);
      MILLRACE_ASSIGN_OR_RETURN(const bool added, add_key.run_unless_there());
      if (!added) return false;
      document = database.last_insert_id();
    }
    MILLRACE_ASSIGN_OR_RETURN(
        sqlite::Statement * statement, inserts.get(database, resolved.mask, [&](const Mask& mask) {
          std::string names = "rowid, " + key_column, values = "?1, ?2";
          for (std::size_t place = 0; place < columns.all().size(); ++place) {
            if (!mask[place]) continue;
            names += ", " + quote_identifier(columns.all()[place]);
            values += ", " + parameter(place);
          }
          return "INSERT INTO " + table + "(" + names + ") VALUES(" + values + ")";
        }));
    statement->bind(kDocument, document);
    statement->bind(kKey, key);
    bind_columns(*statement);
    return statement->run_unless_there();
  }

  /// False if there is no such document.
  Result<bool> update(const Value& key) {
    MILLRACE_ASSIGN_OR_RETURN(const auto document, document_of(key));
    if (!document) return false;
    MILLRACE_ASSIGN_OR_RETURN(
        sqlite::Statement * statement, updates.get(database, resolved.mask, [&](const Mask& mask) {
          std::string set;
          for (std::size_t place = 0; place < columns.all().size(); ++place)
            if (mask[place])
              set += (set.empty() ? "" : ", ") + quote_identifier(columns.all()[place]) + " = " +
                     parameter(place);
          if (set.empty()) set = key_column + " = " + key_column;
          return "UPDATE " + table + " SET " + set + " WHERE rowid = ?1";
        }));
    statement->bind(kDocument, *document);
    bind_columns(*statement);
    MILLRACE_RETURN_IF_ERROR(statement->run());
    return database.changes() > 0;
  }

  Result<void> remove(std::int64_t document) {
    if (!by_number) {
      erase_key.bind(1, document);
      MILLRACE_RETURN_IF_ERROR(erase_key.run());
    }
    erase.bind(1, document);
    return erase.run();
  }

  void bind_columns(sqlite::Statement& statement) {
    for (const auto& [place, value] : resolved.values)
      statement.bind(kFirstColumn + static_cast<int>(place), value);
  }
};

Result<std::unique_ptr<internal::ViewWriter>> SearchIndex::make_writer(
    sqlite::Database& database) const {
  MILLRACE_ASSIGN_OR_RETURN(auto statements, Writer::Statements::make(database, *this));
  return std::unique_ptr<internal::ViewWriter>(new Writer(std::move(statements)));
}

SearchIndex::Writer::Writer(std::unique_ptr<Statements> statements)
    : statements_(std::move(statements)) {}
SearchIndex::Writer::~Writer() = default;

void SearchIndex::Writer::put(Value key, Assignments columns) {
  if (failed()) return;
  if (auto done = statements_->put(key, columns, *change_); !done) fail(std::move(done).error());
}

void SearchIndex::Writer::erase(Value key) {
  flush();
  if (failed()) return;
  auto named = sqlite::key_as(statements_->key_type, key, statements_->key_text);
  if (!named) return fail(std::move(named).error());
  statements_->pending.set(*named, change_->offset);
}

void SearchIndex::Writer::move(Value from, Value to) {
  flush();
  if (failed()) return;
  if (auto done = statements_->move(from, to); !done) fail(std::move(done).error());
}

void SearchIndex::Writer::clear() {
  if (failed()) return;
  if (auto done = statements_->clear(); !done) fail(std::move(done).error());
}

std::optional<StoredRow> SearchIndex::Writer::find(Value key) {
  flush();
  if (failed()) throw internal::WriterFailed();
  if (key.is_null()) return std::nullopt;
  auto named = sqlite::key_as(statements_->key_type, key, statements_->key_text);
  if (!named) fail_and_throw(std::move(named).error());
  auto document = statements_->document_of(*named);
  if (!document) fail_and_throw(std::move(document).error());
  if (!*document) return std::nullopt;
  sqlite::Statement& find = statements_->find;
  find.bind(1, **document);
  auto there = find.step();
  if (!there) fail_and_throw(std::move(there).error());
  if (!*there) return std::nullopt;
  StoredRow row;
  for (int column = 0; column < find.column_count(); ++column)
    row.add(find.column_name(column), find.column(column));
  find.reset();
  return row;
}

void SearchIndex::Writer::flush() {
  if (failed()) return;
  if (auto done = statements_->flush(); !done) fail(std::move(done).error());
}

}  // namespace millrace::projections
