#pragma once

#include <map>
#include <memory>
#include <string>

#include "projections/sink.h"

namespace millrace::projections {

struct PostgresTableOptions {
  /// A URI (postgresql://user@host/database) or key=value pairs, as libpq takes them. A password is
  /// better kept in ~/.pgpass, PGPASSWORD or the environment than in a program.
  std::string server{};
  /// "table" or "schema.table"; the view's name in schema public if it is empty.
  std::string table{};
  /// SQL types of columns that are not to have the usual one: {{"spent", "numeric(12,2)"}}. Usual
  /// are bigint, double precision, text, bytea and numeric.
  std::map<std::string, std::string> types{};
};

/// Keeps a cache table in a table of a PostgreSQL server (12 or newer) as well:
///
///     .into(cache_table{.sink = postgres_table({.server = "postgresql://db/reports"})})
///
/// Rows and checkpoint commit in one transaction there; the checkpoint is a row of the table
/// millrace_views in the same schema. The table is the view's: what somebody else writes to it is
/// not noticed before the next comparison. A view of another shape replaces the table in one
/// transaction, and with it what was granted on it.
std::shared_ptr<const SinkKind> postgres_table(PostgresTableOptions options);

}  // namespace millrace::projections
