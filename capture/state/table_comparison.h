#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>

#include "base/result.h"
#include "capture/keyed_state.h"
#include "capture/state/live_rows.h"
#include "capture/table_difference.h"
#include "schemas/registry.h"

namespace millrace {

/// What one comparison found, with both rows; views live until the call returns.
struct FoundDifference {
  RowDifferenceKind kind = RowDifferenceKind::kDifferent;
  std::string_view key;                    ///< As in events.
  const RowState* stored = nullptr;        ///< Not of kMissing.
  const LiveRow* live = nullptr;           ///< Not of kGone.
  const RowDifference* columns = nullptr;  ///< Of kDifferent and kIncomplete.
  std::uint64_t times = 1;                 ///< Above 1 only where equal rows are counted.
};
using OnDifference = std::function<Result<void>(const FoundDifference&)>;

/// Compares table `number` of `state` with `live`, which has read the same table: both come by key,
/// and only one row of each is in memory. kCancelled on `stop`.
Result<TableCounts> compare_table(KeyedState& state, std::size_t number, LiveRows& live,
                                  const LiveRows::Table& table, SchemaRegistry& schemas,
                                  const OnDifference& on_difference, const std::stop_token& stop);

}  // namespace millrace
