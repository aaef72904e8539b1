#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// How a row of a table and what the store's events say of it differ.
enum class RowDifferenceKind : std::uint8_t {
  kMissing,     ///< In the table, not in the store.
  kGone,        ///< In the store, not in the table.
  kDifferent,   ///< In both, with other values.
  kIncomplete,  ///< Equal as far as the store knows it; it lacks values that nobody has told.
};
/// "missing in the store", ...
std::string_view name_of(RowDifferenceKind kind);

struct TableCounts {
  std::uint64_t live = 0;    ///< Rows of the table.
  std::uint64_t stored = 0;  ///< Rows that the store's events add up to.
  std::uint64_t equal = 0, incomplete = 0, different = 0, missing = 0, gone = 0;

  std::uint64_t differences() const { return different + missing + gone; }
};

/// One row that differs.
struct TableDifference {
  std::string category;
  RowDifferenceKind kind = RowDifferenceKind::kDifferent;
  std::string key;                   ///< As in its events; empty where the table has no key.
  std::vector<std::string> columns;  ///< That differ, or lack a value.
  std::uint64_t times = 1;           ///< So many equal rows; above 1 only without a key.
};

struct TableReport {
  std::string category;
  bool counts_equal_rows = false;  ///< The table has no key: equal rows are counted.
  TableCounts counts;
};

}  // namespace millrace
