#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "schemas/rendering/wire.h"
#include "schemas/table_schema.h"

namespace millrace::rendering {

/// A row message taken apart: the field of each column of its schema, in the schema's order.
class Row {
 public:
  /// Views into `bytes`. Errors: kCorruption (no message, a field that the schema does not have,
  /// one twice).
  Result<void> read(const TableSchema& schema, std::string_view bytes);
  void clear() { fields_.clear(); }

  /// The field of the column at `index`, or nullptr where it is null or was not sent.
  const WireField* field(std::size_t index) const {
    return index < fields_.size() && fields_[index].number != 0 ? &fields_[index] : nullptr;
  }

 private:
  std::vector<WireField> fields_;
};

/// Appends the value of a column as docs/rows.md tells. Errors: kCorruption (not as the column's
/// kind is kept).
Result<void> append_value(const ColumnSchema& column, const WireField& field, std::string& out);

}  // namespace millrace::rendering
