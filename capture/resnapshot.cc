#include "capture/resnapshot.h"

#include <algorithm>

#include "base/bytes.h"
#include "capture/daemon/source_guard.h"
#include "capture/daemon/table_snapshots.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/replication.h"
#include "capture/postgres/table_reader.h"
#include "capture/snapshot_requests.h"
#include "capture/source_state.h"
#include "capture/table_patterns.h"

namespace millrace {
namespace {

/// The publication's tables that are meant. A pattern without '*' and '?' must match one.
Result<std::vector<SourceTable>> chosen(Catalog& catalog, const SourceState& state,
                                        const TablePatterns& patterns) {
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog.publication(state.publication));
  if (!publication)
    return halted("PUBLICATION_MISSING",
                  "publication " + printable(state.publication) + " is gone from the server",
                  "`millrace capture run` says more.");
  if (!publication->updates)
    return Error(ErrorCode::kFailedPrecondition,
                 "publication " + printable(state.publication) + " does not publish updates")
        .hint("Rows can be read beside the stream only if it tells of every change of them.");
  MILLRACE_ASSIGN_OR_RETURN(std::vector<SourceTable> tables, catalog.tables());
  const auto captured = [&](const SourceTable& table) {
    if (is_named(state.outbox, table.name())) return false;
    return std::find(publication->table_oids.begin(), publication->table_oids.end(), table.oid) !=
           publication->table_oids.end();
  };
  for (const std::string& name : patterns.plain_names()) {
    const auto named = std::find_if(tables.begin(), tables.end(), [&](const SourceTable& table) {
      return table.schema_name + "." + table.table_name == name;
    });
    if (named == tables.end() || !captured(*named))
      return Error(ErrorCode::kInvalidArgument,
                   "table " + printable(name) +
                       (named == tables.end() ? " does not exist" : " is not captured"))
          .hint("Captured are the tables of publication " + printable(state.publication) +
                ": see pg_publication_tables.");
  }
  std::erase_if(tables, [&](const SourceTable& table) {
    return !captured(table) || !patterns.match(table.schema_name, table.table_name);
  });
  if (tables.empty())
    return Error(ErrorCode::kInvalidArgument, "no captured table matches --tables")
        .hint("Captured are the tables of publication " + printable(state.publication) + ".");
  return tables;
}

Result<void> check_table(Catalog& catalog, const SourceTable& table, const std::string& where) {
  if (!table.has_identity)
    return Error(ErrorCode::kFailedPrecondition,
                 "table " + printable(table.name()) +
                     " has no replica identity: its rows can't be told from those in the log")
        .hint("Leave it out, or give it a primary key.");
  if (!table.readable)
    return Error(ErrorCode::kFailedPrecondition,
                 "table " + printable(table.name()) + " may not be read")
        .hint("GRANT SELECT ON " + table.quoted() + " TO capture's role.");
  if (auto checked = catalog.check_condition(table, where); !checked)
    return std::move(checked).error().context("--where on table " + printable(table.name()));
  return {};
}

}  // namespace

Result<std::vector<std::string>> request_resnapshot(const ResnapshotOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(options.tables));
  if (!patterns.given())
    return Error(ErrorCode::kInvalidArgument, "--tables must say which tables are to be read");
  MILLRACE_ASSIGN_OR_RETURN(const auto state, load_source_state(options.store, *options.files));
  if (!state)
    return Error(ErrorCode::kFailedPrecondition,
                 "store " + options.store.string() + " was never captured into")
        .hint("Check --store; `millrace capture run` begins with a snapshot by itself.");
  MILLRACE_ASSIGN_OR_RETURN(const auto connection,
                            PostgresConnection::open(address, true, std::stop_token()));
  MILLRACE_ASSIGN_OR_RETURN(const SystemIdentity system, identify_system(*connection));
  if (system.system_id != state->system_id || system.database != state->database)
    return Error(ErrorCode::kFailedPrecondition,
                 "store " + options.store.string() + " is fed from database " + state->database +
                     " of server " + state->system_id + ", not from " + system.database + " of " +
                     system.system_id)
        .hint("Check --source and --store.");
  if (connection->server_version() < kWatermarksSince)
    return Error(ErrorCode::kFailedPrecondition,
                 "the server is too old: rows can be read beside the stream from PostgreSQL 14 on")
        .hint("A new --store begins with all rows.");

  Catalog catalog(address);
  MILLRACE_ASSIGN_OR_RETURN(const auto tables, chosen(catalog, *state, patterns));
  SnapshotRequest request{.id = {}, .tables = {}, .where = options.where};
  std::vector<std::string> names;
  for (const SourceTable& table : tables) {
    MILLRACE_RETURN_IF_ERROR(check_table(catalog, table, options.where));
    request.tables.push_back({.oid = table.oid, .category = table.name()});
    names.push_back(table.name());
  }
  MILLRACE_RETURN_IF_ERROR(
      save_snapshot_request(options.store, std::move(request), *options.files));
  return names;
}

}  // namespace millrace
