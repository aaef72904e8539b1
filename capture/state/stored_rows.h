#pragma once

#include <memory>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/stream_reader.h"
#include "schemas/row_state.h"

namespace millrace {

/// Below it is what the row was that moved to another key with the event at `moved`: right before
/// that event stands the deletion of the old key.
Offset before_move(Offset moved);

/// Looks up what the durable log of a store says of single rows of captured tables, by their keys.
/// For a table whose rows have keys of their own. Threads: one at a time. Errors: as LogReader.
class StoredRows {
 public:
  /// So many older events of a row are looked at to find its unchanged values, and so many keys
  /// that it had; what is not found by then stays unknown.
  static constexpr int kEventsMax = 10'000, kMovesMax = 64;

  static Result<std::unique_ptr<StoredRows>> open(const Path& store,
                                                  FileSystem& files = FileSystem::real());

  /// Where the table was last emptied by a TRUNCATE below `before`: behind that event; 0 if never.
  Result<Offset> truncated_end(std::string_view category, Offset before);
  /// The row as the events from `from` (see truncated_end) to below `before` tell it.
  Result<RowState> find(std::string_view category, std::string_view key, Offset from,
                        Offset before);

 private:
  explicit StoredRows(std::unique_ptr<StreamReader> reader) : reader_(std::move(reader)) {}

  std::unique_ptr<StreamReader> reader_;
};

}  // namespace millrace
