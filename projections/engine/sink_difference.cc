#include "projections/engine/sink_difference.h"

#include <charconv>
#include <utility>
#include <vector>

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

/// Compares rows of the view with what a sink has of them, and keeps those that differ.
class Differences {
 public:
  Differences(Sink& sink, const SinkShape& shape, Statement keep)
      : sink_(sink), shape_(shape), keep_(std::move(keep)) {}

  Result<void> compare(const std::string& key, const SinkRow& row, const Sink::Texts& there) {
    if (!row.columns || row.columns->size() != there.size()) return add(key, there);
    Sink::Texts here = texts_of(row);
    if (is_same(here, there)) return {};
    for (const auto& text : here) bytes_ += text ? text->size() : 0;
    keys_.push_back(key);
    here_.push_back(std::move(here));
    there_.push_back(there);
    return keys_.size() >= kRowsTogether || bytes_ >= kBytesTogether ? settle() : Result<void>{};
  }

  /// What differs here, but not once the sink has said what it makes of it, is the same. Many are
  /// asked for at once: it may have to ask its server.
  Result<void> settle() {
    MILLRACE_RETURN_IF_ERROR(sink_.as_kept(here_));
    for (std::size_t i = 0; i < keys_.size(); ++i)
      if (!is_same(here_[i], there_[i])) MILLRACE_RETURN_IF_ERROR(add(keys_[i], there_[i]));
    keys_.clear();
    here_.clear();
    there_.clear();
    bytes_ = 0;
    return {};
  }

 private:
  static constexpr std::size_t kRowsTogether = 1'000, kBytesTogether = 1 << 20;

  static Sink::Texts texts_of(const SinkRow& row) {
    Sink::Texts texts;
    texts.reserve(row.columns->size());
    for (const Value& value : *row.columns) texts.push_back(sink_text(value));
    return texts;
  }

  bool is_same(const Sink::Texts& here, const Sink::Texts& there) const {
    for (std::size_t i = 0; i < there.size(); ++i)
      if (!same_in_sink(shape_.columns[i], here[i], there[i])) return false;
    return true;
  }

  Result<void> add(const std::string& key, const Sink::Texts& there) {
    const std::string has = shown(there, shape_);
    keep_.bind(1, key_in(shape_, key));
    keep_.bind(2, has);
    return keep_.run();
  }

  Sink& sink_;
  const SinkShape& shape_;
  Statement keep_;
  std::vector<std::string> keys_;
  std::vector<Sink::Texts> here_, there_;  // of keys_
  std::size_t bytes_ = 0;
};

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
  MILLRACE_ASSIGN_OR_RETURN(Statement keep,
                            view.prepare("INSERT OR REPLACE INTO temp.different VALUES(?1, ?2)"));
  Differences differences(sink, shape, std::move(keep));
  MILLRACE_ASSIGN_OR_RETURN(ViewRows rows, ViewRows::open(view, shape));
  std::uint64_t compared = 0;
  const auto compare = [&](const std::string& text, const Sink::Texts& there) -> Result<void> {
    ++compared;
    const Value key = key_in(shape, text);
    seen.bind(1, key);
    MILLRACE_RETURN_IF_ERROR(seen.run());
    MILLRACE_ASSIGN_OR_RETURN(const SinkRow row, rows.find(key));
    return differences.compare(text, row, there);
  };
  MILLRACE_RETURN_IF_ERROR(sink.read(compare));
  MILLRACE_RETURN_IF_ERROR(differences.settle());
  const std::string key = quote_identifier(shape.key.name);
  MILLRACE_RETURN_IF_ERROR(view.execute("INSERT INTO temp.different SELECT " + key +
                                        ", NULL FROM " + quote_identifier(shape.view) + " WHERE " +
                                        key + " NOT IN (SELECT key FROM temp.seen)"));
  return compared;
}

}  // namespace millrace::projections
