#include "sinks/postgres_table.h"

#include <charconv>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "sinks/open_socket.h"
#include "sinks/postgres/session.h"

namespace millrace::projections {
namespace {

using postgres::Parameters;
using postgres::ServerAddress;
using postgres::Session;

/// One statement writes this many rows, or this many bytes if they are sooner there.
constexpr std::size_t kRowsPerStatement = 2'000;
constexpr std::size_t kBytesPerStatement = 1 << 20;
constexpr int kRowsPerFetch = 5'000;

/// A table as its own schema and name.
struct TableName {
  std::string schema = "public", table;

  static TableName of(const std::string& given, const std::string& view) {
    const std::size_t dot = given.find('.');
    if (given.empty()) return {"public", view};
    if (dot == given.npos) return {"public", given};
    return {given.substr(0, dot), given.substr(dot + 1)};
  }
  std::string in_schema(const std::string& name) const {
    return quote_identifier(schema) + "." + quote_identifier(name);
  }
  std::string quoted() const { return in_schema(table); }
  std::string shown() const { return printable(schema + "." + table); }
};

std::string usual_type(const Column& column) {
  switch (column.type) {
    case ColumnType::kInteger: return "bigint";
    case ColumnType::kReal: return "double precision";
    case ColumnType::kText: return "text";
    case ColumnType::kBlob: return "bytea";
    case ColumnType::kNumeric: return "numeric";
  }
  return "";
}

/// The table that a shape makes, in SQL, part by part.
class Layout {
 public:
  Layout(SinkShape shape, const PostgresTableOptions& options)
      : shape_(std::move(shape)), table_(TableName::of(options.table, shape_.view)) {
    add(shape_.key, options);
    for (const Column& column : shape_.columns) add(column, options);
  }

  const SinkShape& shape() const { return shape_; }
  const TableName& table() const { return table_; }
  std::string views() const { return table_.in_schema("millrace_views"); }
  /// The key, then the columns.
  const std::vector<Column>& columns() const { return columns_; }

  std::string create(const std::string& table) const {
    std::string sql = "CREATE TABLE " + table + "(";
    for (std::size_t i = 0; i < columns_.size(); ++i)
      sql += (i == 0 ? "" : ", ") + quote_identifier(columns_[i].name) + " " + types_[i] +
             (i == 0                ? " PRIMARY KEY"
              : columns_[i].counter ? " NOT NULL DEFAULT 0"
                                    : "");
    return sql + ")";
  }
  std::vector<std::string> create_indexes(const std::string& table) const {
    std::vector<std::string> statements;
    for (const auto& index : shape_.indexes) {
      std::string columns;
      for (const auto& name : index)
        columns += (columns.empty() ? "" : ", ") + quote_identifier(name);
      statements.push_back("CREATE INDEX ON " + table + "(" + columns + ")");
    }
    return statements;
  }
  /// Another one is written to a new table.
  std::string as_text() const {
    std::string text = create("");
    for (const std::string& index : create_indexes("")) text += "; " + index;
    return text;
  }
  /// One array a column.
  std::string upsert(const std::string& table) const {
    std::string names, arrays, updates;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string name = quote_identifier(columns_[i].name);
      names += (i == 0 ? "" : ", ") + name;
      arrays += (i == 0 ? "$" : ", $") + std::to_string(i + 1) + "::" + types_[i] + "[]";
      if (i > 0) updates += (i == 1 ? "" : ", ") + name + " = EXCLUDED." + name;
    }
    return "INSERT INTO " + table + "(" + names + ") SELECT * FROM unnest(" + arrays +
           ") ON CONFLICT (" + quote_identifier(columns_[0].name) + ") DO " +
           (updates.empty() ? "NOTHING" : "UPDATE SET " + updates);
  }
  std::string erase(const std::string& table) const {
    return "DELETE FROM " + table + " WHERE " + quote_identifier(columns_[0].name) +
           " = ANY($1::" + types_[0] + "[])";
  }
  std::string select() const {
    std::string names;
    for (const Column& column : columns_)
      names += (names.empty() ? "" : ", ") + quote_identifier(column.name) + "::text";
    return "SELECT " + names + " FROM " + table_.quoted();
  }
  /// Places in columns() of those whose type was given, which may round values or spell them
  /// otherwise.
  const std::vector<std::size_t>& given() const { return given_; }
  /// Values of those as select() would give them. One array a column.
  std::string select_given() const {
    std::string names, texts, arrays;
    for (std::size_t i = 0; i < given_.size(); ++i) {
      const std::string comma = i == 0 ? "" : ", ", name = "c" + std::to_string(i);
      names += comma + name;
      texts += comma + name + "::text";
      arrays += comma + "$" + std::to_string(i + 1) + "::" + types_[given_[i]] + "[]";
    }
    return "SELECT " + texts + " FROM unnest(" + arrays + ") WITH ORDINALITY AS given(" + names +
           ", place) ORDER BY place";
  }

 private:
  void add(const Column& column, const PostgresTableOptions& options) {
    const auto given = options.types.find(column.name);
    if (given != options.types.end()) given_.push_back(columns_.size());
    columns_.push_back(column);
    types_.push_back(given == options.types.end() ? usual_type(column) : given->second);
  }

  SinkShape shape_;
  TableName table_;
  std::vector<Column> columns_;
  std::vector<std::string> types_;
  std::vector<std::size_t> given_;
};

/// Values of one column on their way into an array's text.
/// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
class ArrayText {
 public:
  void add(const Value& value, bool is_bytes) {
    text_ += text_.empty() ? '{' : ',';
    switch (value.kind()) {
      case Value::Kind::kText:
      case Value::Kind::kBlob:
        add_quoted(is_bytes ? "\\x" + to_hex(value.text()) : std::string(value.text()));
        break;
      case Value::Kind::kInteger:
      case Value::Kind::kReal: text_ += *sink_text(value); break;
      default: text_ += "NULL";
    }
  }
  std::size_t size() const { return text_.size(); }
  std::string take() {
    std::string text = text_.empty() ? "{}" : std::move(text_) + "}";
    text_.clear();
    return text;
  }

 private:
  void add_quoted(std::string_view text) {
    text_ += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
  }

  std::string text_;
};

constexpr const char* kHoldsNul = "holds a NUL, which PostgreSQL's text can't";

bool has_nul(const Column& column, const Value& value) {
  const bool is_text = value.kind() == Value::Kind::kText || value.kind() == Value::Kind::kBlob;
  return is_text && column.type != ColumnType::kBlob &&
         value.text().find('\0') != std::string_view::npos;
}

/// Why a value can't be in a column; empty if it can. What SQLite lets into any column, PostgreSQL
/// does not.
std::string mismatch(const Column& column, const Value& value) {
  const Value::Kind kind = value.kind();
  const bool is_number = kind == Value::Kind::kInteger || kind == Value::Kind::kReal;
  const bool is_text = kind == Value::Kind::kText || kind == Value::Kind::kBlob;
  if (value.is_null()) return "";
  if (has_nul(column, value)) return kHoldsNul;
  switch (column.type) {
    case ColumnType::kInteger: return kind == Value::Kind::kInteger ? "" : "holds no integer";
    case ColumnType::kReal: return is_number ? "" : "holds no number";
    case ColumnType::kBlob: return is_text ? "" : "holds a number, not bytes";
    default: return "";
  }
}

class PostgresSink final : public Sink {
 public:
  PostgresSink(SinkShape shape, const PostgresTableOptions& options)
      : layout_(std::move(shape), options), server_(options.server) {}

  Result<std::optional<SinkCheckpoint>> open(const SinkWriter& writer) override {
    writer_ = writer.name;
    MILLRACE_RETURN_IF_ERROR(connect());
    std::optional<SinkCheckpoint> shown;
    std::optional<Error> refusal;
    bool fenced = false;
    MILLRACE_RETURN_IF_ERROR(session_->run([&] {
      session_->begin();
      make_views_table();
      const auto before = recorded("");
      fenced = writer.again && !before.empty() && before[0]["writer"].as<std::string>() != writer_;
      if (fenced) return;
      refusal = why_not(before, writer.store_id);
      if (refusal) return;
      end_predecessor();
      shown = take_over();
      session_->commit();
    }));
    if (fenced) return fenced_off(where_);
    if (refusal) return *std::move(refusal);
    is_new_ = !shown;
    target_ = is_new_ ? layout_.table().in_schema("millrace_new_" + layout_.table().table)
                      : layout_.table().quoted();
    return shown;
  }

  Result<void> begin() override {
    for (auto& column : rows_) column.take();
    rows_.resize(layout_.columns().size());
    return session_->run([&] {
      session_->begin();
      if (!is_new_) return;
      session_->exec("DROP TABLE IF EXISTS " + target_);
      session_->exec(layout_.create(target_));
    });
  }

  Result<void> write(const SinkRow& row) override {
    const auto& columns = layout_.columns();
    if (!row.columns) {
      if (!mismatch(columns[0], row.key).empty()) return {};  // such a key can't be there
      erased_.add(row.key, false);
      if (++erased_count_ >= kRowsPerStatement) return flush();
      return {};
    }
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const Value& value = i == 0 ? row.key : (*row.columns)[i - 1];
      if (const std::string why = mismatch(columns[i], value); !why.empty()) [[unlikely]]
        return refusal(columns[i], "the row '" + printable(*sink_text(row.key)) + "'", why);
      rows_[i].add(value, columns[i].type == ColumnType::kBlob);
      bytes += rows_[i].size();
    }
    return ++row_count_ >= kRowsPerStatement || bytes >= kBytesPerStatement ? flush()
                                                                            : Result<void>{};
  }

  Result<void> checkpoint(const SinkCheckpoint& checkpoint) override {
    MILLRACE_RETURN_IF_ERROR(flush());
    bool mine = false;
    MILLRACE_RETURN_IF_ERROR(session_->run([&] {
      if (is_new_) put_in_place();
      mine = session_
                 ->exec("UPDATE " + layout_.views() +
                            " SET store_id = $3, lineage = $4, commit_number = $5, log_offset = "
                            "$6, shape = $7, shown_since = now() WHERE table_name = $1 AND writer "
                            "= $2",
                        {layout_.table().table, writer_, checkpoint.store_id, checkpoint.lineage,
                         std::to_string(checkpoint.commit), std::to_string(checkpoint.offset.value),
                         layout_.as_text()})
                 .affected_rows() == 1;
    }));
    return mine ? Result<void>{} : fenced_off(where_);
  }

  Result<void> commit() override {
    MILLRACE_RETURN_IF_ERROR(session_->run([&] { session_->commit(); }));
    is_new_ = false;
    target_ = layout_.table().quoted();
    return {};
  }

  Result<std::optional<SinkCheckpoint>> position() override {
    MILLRACE_RETURN_IF_ERROR(connect());
    std::optional<SinkCheckpoint> shown;
    MILLRACE_RETURN_IF_ERROR(session_->run([&] {
      session_->begin();
      if (exists(layout_.views()) && exists(layout_.table().quoted())) {
        const auto rows = recorded("");
        if (!rows.empty()) shown = checkpoint_in(rows[0]);
      }
      session_->rollback();
    }));
    return shown;
  }

  Result<void> read(const Visit& visit) override {
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(session_->run([&] {
      session_->begin();
      session_->exec("DECLARE millrace_rows NO SCROLL CURSOR FOR " + layout_.select());
    }));
    Result<void> visited;
    for (bool more = true; more && visited;) {
      pqxx::result rows;
      MILLRACE_RETURN_IF_ERROR(session_->run([&] {
        rows = session_->exec("FETCH " + std::to_string(kRowsPerFetch) + " FROM millrace_rows");
      }));
      more = !rows.empty();
      for (std::size_t i = 0; i < static_cast<std::size_t>(rows.size()) && visited; ++i)
        visited = visit_row(rows[static_cast<pqxx::result::size_type>(i)], visit);
    }
    session_->rollback();
    return visited;
  }

  Result<void> as_kept(std::vector<Texts>& rows) override {
    const auto& given = layout_.given();
    if (given.empty() || rows.empty()) return {};
    Parameters arrays;
    for (const std::size_t place : given) {
      const Column& column = layout_.columns()[place];
      ArrayText array;
      for (const Texts& row : rows) {
        const auto& text = row[place - 1];
        const Value value = text ? Value(*text) : Value();
        array.add(has_nul(column, value) ? Value() : value, column.type == ColumnType::kBlob);
      }
      arrays.push_back(array.take());
    }
    pqxx::result kept;
    MILLRACE_RETURN_IF_ERROR(connect());
    MILLRACE_RETURN_IF_ERROR(session_->run([&] {
      const bool alone = !session_->in_transaction();
      if (alone) session_->begin();
      kept = session_->exec(layout_.select_given(), arrays);
      if (alone) session_->rollback();
    }));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto row = kept[static_cast<pqxx::result::size_type>(i)];
      for (std::size_t j = 0; j < given.size(); ++j) {
        const Column& column = layout_.columns()[given[j]];
        auto& text = rows[i][given[j] - 1];
        if (text && has_nul(column, Value(*text))) continue;  // which it can't keep at all
        MILLRACE_ASSIGN_OR_RETURN(text, text_in(row[static_cast<pqxx::row::size_type>(j)], column));
      }
    }
    return {};
  }

  void interrupt() override { socket_.shut_down(); }

 private:
  Result<void> connect() {
    if (session_) return {};
    MILLRACE_ASSIGN_OR_RETURN(const auto address, ServerAddress::parse(server_));
    where_ = "table " + layout_.table().shown() + " of " + address.describe();
    MILLRACE_ASSIGN_OR_RETURN(session_, Session::open(address));
    socket_.is(session_->socket());
    return session_->set_up();
  }

  Error refusal(const Column& column, const std::string& row, const std::string& why) const {
    return Error(ErrorCode::kFailedPrecondition, layout_.table().shown() + ": column " +
                                                     printable(column.name) + " of " + row + " " +
                                                     why)
        .hint(why == kHoldsNul ? "Have the view write it without, or declare a column of bytes: "
                                 "blob(\"...\") may hold a NUL."
                               : "Declare the column with the type of what it is to hold.");
  }

  bool exists(const std::string& table) {
    return !session_->exec("SELECT to_regclass($1)", {table})[0][0].is_null();
  }

  void make_views_table() {
    if (exists(layout_.views())) return;
    // Two that come at once: one waits for the other.
    session_->exec("SELECT pg_advisory_xact_lock(7811883231)");
    session_->exec("CREATE TABLE IF NOT EXISTS " + layout_.views() +
                   "(table_name text PRIMARY KEY, view text NOT NULL, writer text NOT NULL, "
                   "backend integer NOT NULL, backend_start timestamptz, store_id text, "
                   "lineage text, commit_number bigint, log_offset bigint, shape text, "
                   "shown_since timestamptz)");
  }

  /// What is known of the table, or nothing.
  pqxx::result recorded(const std::string& lock) {
    return session_->exec("SELECT * FROM " + layout_.views() + " WHERE table_name = $1" + lock,
                          {layout_.table().table});
  }

  std::optional<Error> why_not(const pqxx::result& before, const std::string& store_id) {
    const std::string table = "table " + layout_.table().shown();
    const auto refused = [&](const std::string& why) {
      return Error(ErrorCode::kFailedPrecondition, why)
          .hint(
              "Drop it if it is not needed any more, or give .table another name. To let go of a "
              "view's place: DROP TABLE " +
              layout_.table().quoted() + "; DELETE FROM " + layout_.views() +
              " WHERE table_name = '" + layout_.table().table + "'");
    };
    if (before.empty()) {
      if (!exists(layout_.table().quoted())) return std::nullopt;
      return refused(table + " is there already, and no view of millrace has written it");
    }
    if (before[0]["view"].as<std::string>() != layout_.shape().view)
      return refused(table + " is where view " + before[0]["view"].as<std::string>() + " is kept");
    if (before[0]["store_id"].is_null() || before[0]["store_id"].as<std::string>() == store_id)
      return std::nullopt;
    return of_another_store(where_, before[0]["store_id"].as<std::string>(), store_id);
  }

  /// A session that took no notice of its end would hold the rows that it has written for as long
  /// as it likes.
  void end_predecessor() {
    session_->exec("SELECT pg_terminate_backend(a.pid) FROM " + layout_.views() +
                       " v JOIN pg_stat_activity a ON a.pid = v.backend AND a.backend_start = "
                       "v.backend_start WHERE v.table_name = $1 AND a.usename = current_user AND "
                       "a.application_name = current_setting('application_name') AND a.pid <> "
                       "pg_backend_pid()",
                   {layout_.table().table});
  }

  std::optional<SinkCheckpoint> take_over() {
    const auto before = recorded(" FOR UPDATE");
    std::optional<SinkCheckpoint> shown;
    if (!before.empty() && exists(layout_.table().quoted())) shown = checkpoint_in(before[0]);
    session_->exec("INSERT INTO " + layout_.views() +
                       "(table_name, view, writer, backend, backend_start) SELECT $1, $2, $3, pid, "
                       "backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid() ON "
                       "CONFLICT (table_name) DO UPDATE SET writer = EXCLUDED.writer, backend = "
                       "EXCLUDED.backend, backend_start = EXCLUDED.backend_start",
                   {layout_.table().table, layout_.shape().view, writer_});
    return shown;
  }

  /// Nothing if what is there is of another shape, or was never finished.
  std::optional<SinkCheckpoint> checkpoint_in(const pqxx::row& row) const {
    if (row["lineage"].is_null() || row["shape"].as<std::string>() != layout_.as_text())
      return std::nullopt;
    return SinkCheckpoint{row["store_id"].as<std::string>(), row["lineage"].as<std::string>(),
                          row["commit_number"].as<std::uint64_t>(),
                          Offset{row["log_offset"].as<std::uint64_t>()}};
  }

  void put_in_place() {
    for (const std::string& statement : layout_.create_indexes(target_)) session_->exec(statement);
    session_->exec("DROP TABLE IF EXISTS " + layout_.table().quoted());
    session_->exec("ALTER TABLE " + target_ + " RENAME TO " +
                   quote_identifier(layout_.table().table));
  }

  Result<void> flush() {
    return session_->run([&] {
      if (row_count_ > 0) {
        Parameters arrays;
        for (ArrayText& column : rows_) arrays.push_back(column.take());
        session_->exec(layout_.upsert(target_), arrays);
      }
      if (erased_count_ > 0) session_->exec(layout_.erase(target_), {erased_.take()});
      row_count_ = erased_count_ = 0;
    });
  }

  Result<void> visit_row(const pqxx::row& row, const Visit& visit) {
    const auto& columns = layout_.columns();
    texts_.assign(columns.size() - 1, std::nullopt);
    for (std::size_t i = 1; i < columns.size(); ++i) {
      const auto field = row[static_cast<pqxx::row::size_type>(i)];
      MILLRACE_ASSIGN_OR_RETURN(texts_[i - 1], text_in(field, columns[i]));
    }
    return visit(row[0].as<std::string>(), texts_);
  }

  /// As sink_text() has it.
  static Result<std::optional<std::string>> text_in(const pqxx::field& field,
                                                    const Column& column) {
    if (field.is_null()) return std::optional<std::string>();
    const std::string text = field.as<std::string>();
    if (column.type == ColumnType::kBlob && text.starts_with("\\x")) {
      MILLRACE_ASSIGN_OR_RETURN(std::string bytes, from_hex(std::string_view(text).substr(2)));
      return std::optional(std::move(bytes));
    }
    if (column.type == ColumnType::kReal) {
      double number = 0;
      std::from_chars(text.data(), text.data() + text.size(), number);
      return sink_text(number);
    }
    return std::optional(text);
  }

  const Layout layout_;
  const std::string server_;
  std::string where_;
  std::string writer_;
  std::unique_ptr<Session> session_;
  OpenSocket socket_;    // goes before the session
  bool is_new_ = false;  ///< All of it is written to another table, which then takes its place.
  std::string target_;
  std::vector<ArrayText> rows_;
  ArrayText erased_;
  std::size_t row_count_ = 0, erased_count_ = 0;
  Texts texts_;  // reused
};

class PostgresTable final : public SinkKind {
 public:
  explicit PostgresTable(PostgresTableOptions options) : options_(std::move(options)) {}

  Result<void> check(const SinkShape& shape) const override {
    MILLRACE_RETURN_IF_ERROR(ServerAddress::parse(options_.server));
    if (options_.types.contains(shape.key.name))
      return Error(ErrorCode::kInvalidArgument,
                   "its sink gives another type for the key '" + printable(shape.key.name) +
                       "': keys that are two here must not be one there");
    for (const auto& [name, type] : options_.types) {
      const auto is_it = [&](const Column& column) { return column.name == name; };
      if (std::none_of(shape.columns.begin(), shape.columns.end(), is_it))
        return Error(ErrorCode::kInvalidArgument,
                     "its sink gives a type for '" + printable(name) + "', which is no column");
    }
    const TableName table = TableName::of(options_.table, shape.view);
    if (table.schema.empty() || table.table.empty() || table.table == "millrace_views")
      return Error(ErrorCode::kInvalidArgument,
                   "its sink's table can't be called '" + printable(options_.table) + "'");
    return {};
  }

  std::string describe(const SinkShape& shape) const override {
    const auto address = ServerAddress::parse(options_.server);
    return "table " + TableName::of(options_.table, shape.view).shown() + " of " +
           (address ? address->describe() : "no server");
  }

  std::unique_ptr<Sink> make(const SinkShape& shape) const override {
    return std::make_unique<PostgresSink>(shape, options_);
  }

 private:
  const PostgresTableOptions options_;
};

}  // namespace

std::shared_ptr<const SinkKind> postgres_table(PostgresTableOptions options) {
  return std::make_shared<PostgresTable>(std::move(options));
}

}  // namespace millrace::projections
