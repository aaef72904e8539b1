#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "capture/pgoutput/message.h"
#include "capture/pipeline/copy_binary.h"
#include "capture/pipeline/copy_row.h"
#include "capture/pipeline/snapshot_progress.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"

namespace millrace {

/// The relation as pgoutput would announce it, so that copied and streamed rows share one shape.
/// Views into the arguments.
pgoutput::Relation relation_of(const SourceTable& table, const std::vector<SourceColumn>& columns);
/// COPY of a table, or of a query where the publication filters rows or the rows are in partitions.
std::string copy_statement(const SourceTable& table, const Catalog::TableShape& shape);

/// What holds rows of a table: the table itself, or one of its partitions.
struct TablePart {
  std::uint32_t oid = 0;
  std::string quoted;      ///< For SQL.
  std::uint32_t file = 0;  ///< Of its rows, on the server: another one after TRUNCATE and rewrites.
  std::uint32_t pages = 0;       ///< Of that file; rows that are visible now lie in none beyond.
  std::uint64_t page_bytes = 0;  ///< Of its rows by the page, large values included.
  std::uint64_t rows = 0;        ///< As the planner guesses.
};

/// Rows of one part of a table: those that lie from `from` to before `to`.
struct RowSelection {
  RowPlace from = {}, to = {~std::uint64_t{0}};
  std::string condition = {};  ///< SQL; empty for every row.
};

/// Reads rows of a table as they are replicated: the publication's columns, the rows that its
/// filter lets through. The one place that knows COPY's formats. Threads: one.
class TableReader {
 public:
  /// `binary`: every column is exact in binary (binary_is_exact()), which costs server and reader
  /// less than text.
  TableReader(SourceTable table, Catalog::TableShape shape, bool binary)
      : table_(std::move(table)), shape_(std::move(shape)), binary_(binary) {}

  const SourceTable& table() const { return table_; }
  const Catalog::TableShape& shape() const { return shape_; }
  /// As pgoutput would announce it, so that copied and streamed rows share one shape. Views into
  /// this object.
  pgoutput::Relation relation() const;

  /// Fails as reading would, but reads nothing.
  Result<void> check(PostgresConnection& connection, const TablePart& part) const;
  /// A row as PostgreSQL writes it, and its fields; both live until the call returns.
  using OnRow = std::function<Result<void>(std::string_view row, const pgoutput::Tuple& fields)>;
  /// An error of `on_row` ends it. Errors: kCorruption, those of the connection.
  Result<void> copy(PostgresConnection& connection, const TablePart& part, const RowSelection& rows,
                    const OnRow& on_row);
  /// The fields of a row that copy() gave, valid until the next call and as long as `row`. Errors:
  /// kCorruption.
  Result<const pgoutput::Tuple*> parse(std::string_view row);

  /// A condition for the rows with these keys, as ChangeEncoder writes them. Not for hashed keys.
  std::string condition_of(const std::vector<std::string>& keys) const;

 private:
  std::string select(const TablePart& part, const RowSelection& rows) const;
  Result<void> copy_binary(PostgresConnection& connection, const std::string& statement,
                           const OnRow& on_row);

  SourceTable table_;
  Catalog::TableShape shape_;
  bool binary_;
  CopyRowParser text_;
  CopyBinaryParser binary_rows_;
};

// Both on the connection that is going to read: it may have the table locked already, and whoever
// asked on another one would wait behind an ALTER TABLE that waits for that lock.

/// Sorted by OID; without foreign tables, whose changes are not published.
Result<std::vector<TablePart>> read_parts(PostgresConnection& connection, const SourceTable& table);
/// As Catalog::shape().
Result<Catalog::TableShape> read_shape(PostgresConnection& connection, const SourceTable& table,
                                       const std::string& publication);

}  // namespace millrace
