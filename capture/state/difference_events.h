#pragma once

#include <string>

#include "base/result.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/state/live_rows.h"
#include "capture/state/table_comparison.h"
#include "schemas/registry.h"

namespace millrace {

/// Turns what a comparison found into the events that make the store what the table is, and adds
/// them to the transaction that is open. They look as capture's own of such a change would: the old
/// row is there where the table's replica identity is FULL. Threads: one.
class DifferenceEvents {
 public:
  DifferenceEvents(EventOut& out, SchemaRegistry& schemas, const LiveRows::Table& table);

  Result<void> append(const FoundDifference& found);
  /// The table has no key at all and rows of it are gone: no event can name them. Nothing but
  /// append_all() then makes the store right.
  bool must_start_anew() const { return must_start_anew_; }
  /// A truncation, and all rows of the table, which `live` reads again.
  Result<void> append_all(LiveRows& live);

 private:
  Result<void> append_row(std::string_view key, std::string_view row);
  Result<void> append_update(const FoundDifference& found);
  Result<void> append_delete(const FoundDifference& found);

  EventOut& out_;
  SchemaRegistry& schemas_;
  const LiveRows::Table& table_;
  bool has_key_ = false;
  bool must_start_anew_ = false;
};

}  // namespace millrace
