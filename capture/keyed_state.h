#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"
#include "schemas/registry.h"
#include "schemas/row_state.h"

namespace millrace {

/// A row of a captured table as the log tells it.
struct KeyedRow {
  std::string_view key;  ///< As in its events.
  const RowState& state;
  Offset offset;            ///< Of the last event of it.
  std::uint64_t count = 1;  ///< So many rows like it; above 1 only where equal rows are counted.
};

/// The rows of captured tables to which the events of a store add up: of each key the latest row,
/// with the values that a change left alone (TOAST) taken from the changes before.
///
/// The log is read once, front to back, whatever the number of tables; what does not fit into
/// memory is sorted on disk. Threads: one. Errors: as LogReader; kCorruption (an event that is no
/// change of a row), kNoSpace and kIo of the temporary file, kCancelled.
class KeyedState {
 public:
  struct Table {
    std::string category;
    /// Its rows have no keys of their own: equal rows are counted, written as rows of this schema.
    SchemaRegistry::Schema rows_are_keys = nullptr;
  };
  struct Options {
    Path store;
    std::vector<Table> tables;
    /// Events of other transactions are passed over. They must be the last ones of each row.
    std::function<bool(const TransactionInfo&)> includes = {};
    /// For what does not fit into memory: about as much as the tables' rows are large.
    Path spill_folder;
    std::size_t memory_bytes = 32 << 20;
    FileSystem* files = &FileSystem::real();
    std::stop_token stop = {};
  };

  /// Reads what is durable now.
  static Result<std::unique_ptr<KeyedState>> read(Options options);
  virtual ~KeyedState() = default;

  /// The next row of the table with this number in Options::tables, by key as bytes (equal rows: in
  /// no order that means anything); nullptr behind the last. Valid until the next call. Tables are
  /// asked for in their order; what was left of the one before is passed over.
  virtual Result<const KeyedRow*> next(std::size_t table) = 0;
  virtual std::uint64_t events() const = 0;  ///< Of these tables, that were read.
};

/// The key under which KeyedState gives a row of a table whose rows have none: of equal bytes of
/// row_of_columns(), equal ones.
std::string key_of_row(std::string_view row);

}  // namespace millrace
