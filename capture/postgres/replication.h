#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "capture/pgoutput/message.h"
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

/// Where the history of the server's `timeline` left `earlier`, one that it comes from: both have
/// the same WAL below it. Nothing where it does not come from it (TIMELINE_HISTORY).
Result<std::optional<Lsn>> end_of_timeline(PostgresConnection& connection, std::uint32_t timeline,
                                           std::uint32_t earlier);

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

/// The options for pgoutput of a server of `server_version`, as the SQL functions for slots take
/// them: "'proto_version', '2', ...". Whole transactions only.
std::string plugin_arguments(int server_version, const std::string& publication);

enum class InProgress : std::uint8_t {
  kHeldBack,  ///< The server keeps a transaction until it commits.
  /// Large ones are sent while they run, where the server can (PostgreSQL 14); it then neither
  /// keeps them on its disk nor sends all of them at once.
  kStreamed,
};
/// The command for a walsender that has standbys take `slot` over (PostgreSQL 17's failover slots,
/// https://www.postgresql.org/docs/17/logicaldecoding-explanation.html). Nothing for older servers:
/// there a promoted standby has no slot.
std::optional<std::string> failover_command(const std::string& slot, int server_version);
/// Sends it where the server knows it. A server that refuses (a standby does) leaves the slot as it
/// was made, which is logged.
void enable_failover(PostgresConnection& walsender, const std::string& slot);

/// How values come. An older server knows text only, and is asked for it.
enum class ValueForm : std::uint8_t { kText, kBinary };

inline constexpr int kBinaryServerMin = 140'000;

/// Enters streaming of `slot` from `from` on.
Result<void> start_replication(PostgresConnection& connection, const std::string& slot, Lsn from,
                               const std::string& publication,
                               InProgress in_progress = InProgress::kHeldBack,
                               ValueForm form = ValueForm::kText);

/// Opens a reading of `tables` as of `slot`'s snapshot on `connection`: until it ends its
/// transaction the tables are locked against TRUNCATE and ALTER TABLE (not against reading and
/// writing), as pg_dump does.
Result<void> begin_snapshot(PostgresConnection& connection, const std::vector<SourceTable>& tables,
                            const NewSlot& slot);

/// kInvalidArgument unless `name` is what PostgreSQL takes as a slot's name: 1 to 63 of a-z, 0-9,
/// '_'.
Result<void> require_slot_name(std::string_view name);

}  // namespace millrace
