#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/copy_row.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"
#include "capture/state/spill_sorter.h"

namespace millrace {

/// A row of a table as it is in PostgreSQL.
struct LiveRow {
  std::string_view key;  ///< To find it by, as KeyedState gives it.
  std::string_view event_key;
  std::string_view row;
};

/// The rows of captured tables, as capture would encode them, sorted by key. It reads them on a
/// connection on which a snapshot is open. Threads: one. Errors: those of the connection, the
/// encoder, and of temporary files.
class LiveRows {
 public:
  /// A table with its present schema.
  struct Table {
    SourceTable source;
    Catalog::TableShape shape;
    SchemaRegistry::Schema schema;
    /// Its rows have no keys of their own: equal rows are counted.
    bool rows_are_keys = false;
  };

  LiveRows(PostgresConnection& connection, Catalog& catalog, SchemaRegistry& schemas,
           Path spill_folder, std::size_t memory_bytes);

  /// Looks up what `table` is now, and makes it a schema version as of `lsn` if it is a new one.
  Result<Table> learn(const SourceTable& table, const std::string& publication, Lsn lsn);
  /// Reads the rows of `table`; gives their number.
  Result<std::uint64_t> read(const Table& table);
  /// The next one by key; nullptr behind the last. Valid until the next call.
  Result<const LiveRow*> next();

 private:
  /// Takes the encoder's events as they come.
  class Catcher final : public EventOut {
   public:
    Result<void> begin(const TransactionInfo&) override { return {}; }
    Result<void> add(const NewEvent& event) override;
    Result<void> commit(std::uint64_t) override { return {}; }
    Result<void> rollback() override { return {}; }

    SpillSorter* sorter = nullptr;
    const Table* table = nullptr;
    std::uint64_t rows = 0;

   private:
    std::string buffer_;
  };

  PostgresConnection& connection_;
  Catalog& catalog_;
  SchemaRegistry& schemas_;
  SpillSorter sorter_;
  Catcher catcher_;
  ChangeEncoder encoder_;
  CopyRowParser parser_;
  bool rows_are_keys_ = false;
  LiveRow row_;
};

}  // namespace millrace
