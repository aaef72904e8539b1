#pragma once

#include <string_view>

#include "base/result.h"
#include "schemas/row_state.h"
#include "schemas/table_schema.h"

namespace millrace {

/// What the events that were handed on so far say of single rows: what the source does not send of
/// a changed row is taken from here. Threads: one.
class RowHistory {
 public:
  virtual ~RowHistory() = default;
  /// Whether changed rows of the table shall be made whole.
  virtual bool wants(const TableSchema& table) = 0;
  /// The row of that key as it is now, with the open transaction's changes. One that was never told
  /// of, is gone, or can't be looked up does not exist.
  virtual Result<RowState> latest(std::string_view category, std::string_view key) = 0;
};

}  // namespace millrace
