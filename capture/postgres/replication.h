#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"

namespace millrace {

/// Who a server says it is (IDENTIFY_SYSTEM).
struct SystemIdentity {
  std::string system_id;
  std::uint32_t timeline = 0;
  Lsn flushed;
  std::string database;
};
Result<SystemIdentity> identify_system(PostgresConnection& connection);

struct NewSlot {
  std::string name;
  Lsn consistent_point;       ///< Changes of transactions that commit at or after it are sent.
  std::string snapshot_name;  ///< Of all that was committed before, if asked for; valid while this
                              ///< connection is idle.
};

/// Makes a slot for pgoutput that goes with its connection. PostgreSQL waits for every transaction
/// that is running now to end: they are logged.
Result<NewSlot> create_temporary_slot(PostgresConnection& connection, Catalog& catalog,
                                      const std::string& slot, bool export_snapshot);

/// Enters streaming of `slot` from `from` on.
Result<void> start_replication(PostgresConnection& connection, const std::string& slot, Lsn from,
                               const std::string& publication);

/// Opens a reading of `tables` as of `slot`'s snapshot on `connection`: until it ends its
/// transaction the tables are locked against TRUNCATE and ALTER TABLE (not against reading and
/// writing), as pg_dump does.
Result<void> begin_snapshot(PostgresConnection& connection, const std::vector<SourceTable>& tables,
                            const NewSlot& slot);

/// kInvalidArgument unless `name` is what PostgreSQL takes as a slot's name: 1 to 63 of a-z, 0-9,
/// '_'.
Result<void> require_slot_name(std::string_view name);

}  // namespace millrace
