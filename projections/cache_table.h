#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "projections/sink.h"
#include "projections/stored_row.h"
#include "projections/view.h"

namespace millrace::projections {

struct CacheTableOptions {
  /// What names a row. integer("id") is SQLite's own row number, the fastest; text("sku") anything
  /// else.
  Column key{};
  std::vector<Column> columns{};
  /// Lists of columns to look rows up by. Each makes writing slower; they are built last in a
  /// rebuild.
  std::vector<std::vector<std::string>> indexes{};
  /// Where the rows are kept as well, equal to the view's own: postgres_table() and redis_hashes()
  /// of sinks/, or your own.
  std::shared_ptr<const SinkKind> sink{};
};

/// A view that is one SQLite table: one row per key, ready to be read by anything that reads
/// SQLite.
///
///     CacheTable("customer_totals", Version{1},
///                {.key = integer("id"), .columns = {text("name"), counter("orders")}})
///         .on<Customers>("public.customers", [](const Change<Customers>& change,
///         CacheTable::Writer& totals) { ... })
class CacheTable final : public ViewBuilder<CacheTable> {
 public:
  class Writer;

  CacheTable(std::string name, Version version, CacheTableOptions options);

  Result<void> create(sqlite::Database& database) const override;
  Result<void> begin_bulk(sqlite::Database& database) const override;
  Result<void> end_bulk(sqlite::Database& database) const override;
  Result<std::unique_ptr<internal::ViewWriter>> make_writer(
      sqlite::Database& database) const override;
  std::vector<internal::Comparison> comparisons() const override;
  std::string count_query() const override;
  Result<void> check_shape() const override;
  void describe(std::string& shape) const override;
  const SinkKind* sink() const override { return options_.sink.get(); }
  SinkShape sink_shape() const override;

 private:
  CacheTableOptions options_;
};

/// Writes the rows of a cache table. Columns go by name; a column that is not named keeps its
/// value, and so does one whose Value is unchanged. A key may be given as a number or as text: 42
/// and "42" name the same row.
///
/// Nothing to check after a call: a failure sets the event aside that met it, or stops the view
/// before it.
class CacheTable::Writer final : public internal::ViewWriter {
 public:
  using Assignments = AssignmentList;

  /// Sets columns of a row; makes the row if it is not there.
  /// After an erase() by the first half of a change of key, unchanged columns are taken along from
  /// the erased row.
  void put(Value key, Assignments columns);
  /// Adds to numbers of a row; makes the row, from 0, if it is not there.
  void add(Value key, Assignments amounts);
  /// Takes from numbers of a row. Does nothing if it is not there: its key was erased together with
  /// what it had counted.
  void subtract(Value key, Assignments amounts);
  /// Sets columns that are null or smaller; makes the row if it is not there.
  void raise(Value key, Assignments columns);
  /// Sets columns of every row.
  void update_all(Assignments columns);
  void erase(Value key);
  /// Gives a row another key, replacing the row that has it. Does nothing if there is no `from`.
  void move(Value from, Value to);
  /// Erases every row.
  void clear();
  /// The row with all that was written so far, also in this event.
  std::optional<StoredRow> find(Value key);

  ~Writer() override;
  void flush() override;
  void write_at_once(bool at_once) override;
  bool failed_late() const override;
  Result<void> before_commit(Offset offset) override;
  void take_over_from(internal::ViewWriter& before) override;

 private:
  friend class CacheTable;
  class Statements;
  explicit Writer(std::unique_ptr<Statements> statements);

  std::unique_ptr<Statements> statements_;
};

}  // namespace millrace::projections
