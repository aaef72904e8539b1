#include "projections/engine/sink_difference.h"

#include <charconv>

#include "base/bytes.h"
#include "base/sql_text.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Statement;

std::string selected(const SinkShape& shape) {
  std::string sql = "SELECT " + quote_identifier(shape.key.name);
  for (const Column& column : shape.columns) sql += ", " + quote_identifier(column.name);
  return sql + " FROM " + quote_identifier(shape.view);
}

std::string shown(const Sink::Texts& columns, const SinkShape& shape) {
  std::string text;
  for (std::size_t i = 0; i < columns.size() && i < shape.columns.size(); ++i)
    text += (i == 0 ? "" : ", ") + shape.columns[i].name + " = " +
            (columns[i] ? "'" + printable(*columns[i], 80) + "'" : "null");
  return text;
}

Value key_in(const SinkShape& shape, const std::string& text) {
  std::int64_t number = 0;
  if (shape.key.type != ColumnType::kInteger) return Value(text);
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number = failure == std::errc() && end == text.data() + text.size();
  return is_number ? Value(number) : Value(text);
}

bool is_same_row(const SinkShape& shape, const SinkRow& row, const Sink::Texts& there) {
  if (!row.columns || row.columns->size() != there.size()) return false;
  for (std::size_t i = 0; i < there.size(); ++i)
    if (!same_in_sink(shape.columns[i], sink_text((*row.columns)[i]), there[i])) return false;
  return true;
}

}  // namespace

Result<ViewRows> ViewRows::open(Database& view, const SinkShape& shape) {
  ViewRows rows;
  const std::string key = quote_identifier(shape.key.name);
  MILLRACE_ASSIGN_OR_RETURN(rows.find_, view.prepare(selected(shape) + " WHERE " + key + " = ?1"));
  MILLRACE_ASSIGN_OR_RETURN(rows.all_, view.prepare(selected(shape) + " ORDER BY " + key));
  rows.columns_.resize(shape.columns.size());
  return rows;
}

SinkRow ViewRows::row_of(const Statement& statement) {
  for (std::size_t i = 0; i < columns_.size(); ++i)
    columns_[i] = statement.column(static_cast<int>(i) + 1);
  return {statement.column(0), std::span<const Value>(columns_)};
}

Result<SinkRow> ViewRows::find(const Value& key) {
  find_.reset();
  find_.bind(1, key);
  MILLRACE_ASSIGN_OR_RETURN(const bool there, find_.step());
  return there ? row_of(find_) : SinkRow{key, std::nullopt};
}

Result<void> ViewRows::for_each(const std::function<Result<void>(const SinkRow&)>& visit) {
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool more, all_.step());
    if (!more) return {};
    if (auto visited = visit(row_of(all_)); !visited) {
      all_.reset();
      return visited;
    }
  }
}

Result<void> write_rows(Sink& sink, ViewRows& rows, ColumnType key,
                        const sqlite::ChangedKeys& keys) {
  for (const std::string& changed : keys) {
    MILLRACE_ASSIGN_OR_RETURN(const SinkRow row, rows.find(sqlite::key_of(key, changed)));
    MILLRACE_RETURN_IF_ERROR(sink.write(row));
  }
  return {};
}

Result<std::uint64_t> find_differences(Sink& sink, Database& view, const SinkShape& shape) {
  MILLRACE_RETURN_IF_ERROR(
      view.execute("DROP TABLE IF EXISTS temp.seen; DROP TABLE IF EXISTS temp.different;"
                   "CREATE TABLE temp.seen(key PRIMARY KEY) WITHOUT ROWID;"
                   "CREATE TABLE temp.different(key PRIMARY KEY, there TEXT) WITHOUT ROWID"));
  MILLRACE_ASSIGN_OR_RETURN(Statement seen,
                            view.prepare("INSERT OR IGNORE INTO temp.seen VALUES(?1)"));
  MILLRACE_ASSIGN_OR_RETURN(Statement different,
                            view.prepare("INSERT OR REPLACE INTO temp.different VALUES(?1, ?2)"));
  MILLRACE_ASSIGN_OR_RETURN(ViewRows rows, ViewRows::open(view, shape));
  std::uint64_t compared = 0;
  const auto compare = [&](const std::string& text, const Sink::Texts& there) -> Result<void> {
    ++compared;
    const Value key = key_in(shape, text);
    seen.bind(1, key);
    MILLRACE_RETURN_IF_ERROR(seen.run());
    MILLRACE_ASSIGN_OR_RETURN(const SinkRow row, rows.find(key));
    if (is_same_row(shape, row, there)) return {};
    const std::string has = shown(there, shape);
    different.bind(1, key);
    different.bind(2, has);
    return different.run();
  };
  MILLRACE_RETURN_IF_ERROR(sink.read(compare));
  const std::string key = quote_identifier(shape.key.name);
  MILLRACE_RETURN_IF_ERROR(view.execute("INSERT INTO temp.different SELECT " + key +
                                        ", NULL FROM " + quote_identifier(shape.view) + " WHERE " +
                                        key + " NOT IN (SELECT key FROM temp.seen)"));
  return compared;
}

}  // namespace millrace::projections
