#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "schemas/table_schema.h"

// The way back: from the row message of an event to PostgreSQL's own text of each value, which its
// input functions take for the same value again. For comparing the store with the table, and for
// writing rows into a PostgreSQL.
//
// The text is byte for byte what a session writes that is pinned as capture's are: DateStyle ISO,
// IntervalStyle postgres, extra_float_digits 3, bytea_output hex, TimeZone UTC, lc_monetary C,
// client_encoding UTF8, search_path pg_catalog. Who hands it to a session should pin the same
// there; of them lc_monetary, search_path, and xmloption content matter to what is read.
namespace millrace {

/// The values of a row as text. Its buffers are there for the next row. Threads: one.
class RowText {
 public:
  /// `row`: `before` or `after` of a millrace.v1.Change, written in `schema`'s version;
  /// `unchanged`: its packed list of that name (with `after` only). Errors: kCorruption (no such
  /// row). Nothing can be asked after an error.
  Result<void> read(const TableSchema& schema, std::string_view row,
                    std::string_view unchanged = {});

  std::size_t size() const { return values_.size(); }  ///< The schema's columns.
  /// Of the column at `index`, valid until the next read(); nullopt where it is null or unchanged.
  std::optional<std::string_view> value(std::size_t index) const;
  /// PostgreSQL did not send it, since the change left it alone: its value is that of the row's
  /// event before.
  bool unchanged(std::size_t index) const { return values_[index].unchanged; }

 private:
  static constexpr std::size_t kNull = ~std::size_t{0};
  struct Value {
    std::size_t start = kNull, size = 0;
    bool unchanged = false;
  };
  Result<void> fill(const TableSchema& schema, std::string_view row, std::string_view unchanged);

  std::vector<Value> values_;
  std::string text_;
};

/// Appends the text of one value; `field` is its field of a row message, tag included. Errors:
/// kCorruption (no value of `column`'s kind); `out` is then as before.
Result<void> append_value_text(const ColumnSchema& column, std::string_view field,
                               std::string& out);

/// Appends an element of an array as array_out writes it: in quotes where it must be.
void append_array_element(std::string_view text, std::string& out);

/// Appends a literal for SQL, NULL for nothing: 'it''s', E'a\\b'. Right with any setting of
/// standard_conforming_strings. Errors: kInvalidArgument (a NUL, or bytes that are no UTF-8, which
/// a server would read in another way than they were quoted); a parameter takes the latter, where
/// the database does.
Result<void> append_sql_literal(std::optional<std::string_view> text, std::string& out);

/// Appends a field of a line of COPY's text format, \N for nothing. The caller adds the tabs.
void append_copy_field(std::optional<std::string_view> text, std::string& out);

}  // namespace millrace
