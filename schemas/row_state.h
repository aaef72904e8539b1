#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "schemas/table_schema.h"

// What the changes of a row say of it together, and how that compares with the row as it is. Pure.
namespace millrace {

/// A millrace.v1.Change of a row, taken apart: views into its payload.
struct RowChange {
  char op = 0;  ///< As docs/events.md has it: c u d r t m.
  std::uint32_t schema = 0;
  std::optional<std::string_view> before, after;
  bool before_is_key = false;
  std::vector<std::uint32_t> unchanged;  ///< Fields of `after` that were not sent.
  std::optional<std::string_view> moved_from;
};
/// Errors: kCorruption (no such message).
Result<RowChange> read_row_change(std::string_view payload);

/// A row as far as it is known.
struct RowState {
  bool exists = false;
  std::uint32_t schema = 0;            ///< Version of its table's schema that `row` is written in.
  std::string row = {};                ///< The row message.
  std::vector<std::uint32_t> unknown;  ///< Fields that no change has told: they are not in `row`.

  bool is_complete() const { return exists && unknown.empty(); }
  /// Takes in the row's next change. `moved`: what the row was under the key that it had before
  /// this change, if it changed; its unchanged values come from there. Errors: kCorruption.
  Result<void> apply(const RowChange& change, const RowState* moved = nullptr);
};

/// The bytes of `field` in `row`, with its tag; empty if it is not there. Errors: kCorruption.
Result<std::string_view> field_in_row(std::string_view row, std::uint32_t field);

/// What `schema` has columns (or key columns) for in `row`, by ascending field number: equal rows
/// are then equal bytes. Errors: kCorruption.
Result<std::string> row_of_columns(std::string_view row, const TableSchema& schema, bool keys_only);

/// Where a row that was told of differs from the row as it is.
struct RowDifference {
  std::vector<const ColumnSchema*> different;
  /// Columns that have a value, which nobody has told: unchanged ones that were never sent, and
  /// those that came, or changed name or type, after the row was last written (PostgreSQL sends
  /// nothing for that).
  std::vector<const ColumnSchema*> untold;

  bool is_equal() const { return different.empty() && untold.empty(); }
};
/// Compares `told`, written in `its_schema`, with the complete row `live`, written in `schema`:
/// two versions of one table's schema, in which a column keeps its field number. The columns of the
/// result are `schema`'s. Errors: kCorruption.
Result<void> compare_rows(const RowState& told, const TableSchema& its_schema,
                          std::string_view live, const TableSchema& schema, RowDifference& into);

}  // namespace millrace
