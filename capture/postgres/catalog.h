#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "capture/pipeline/catalog_lookup.h"
#include "capture/postgres/source_address.h"
#include "schemas/lsn.h"

namespace millrace {

struct ServerInfo {
  int version = 0;  ///< server_version_num: 150018
  std::string wal_level;
  int replication_slots_max = 0, replication_slots_used = 0;
  int wal_senders_max = 0, wal_senders_used = 0;
  bool in_recovery = false;
  std::string user, database;
  bool may_replicate = false;  ///< REPLICATION or superuser.
  bool may_create = false;     ///< CREATE on the database: needed to make a publication.
  bool superuser = false;
};

struct SourceTable {
  std::uint32_t oid = 0;
  std::string schema_name, table_name;
  bool partitioned = false;
  ReplicaIdentity identity = ReplicaIdentity::kDefault;
  bool has_identity = false;  ///< Updates and deletes can be published.
  bool owned = false;         ///< By a role that we are: may go into a publication that we make.
  bool readable = false;

  std::string name() const { return category_of(schema_name, table_name); }
  std::string quoted() const;  ///< For SQL: "public"."orders".
};

struct SourceColumn {
  std::string name;
  std::uint32_t type_oid = 0;
  std::int32_t type_modifier = -1;
  bool identity = false;  ///< Part of the replica identity.
};

struct PublicationInfo {
  bool all_tables = false;
  bool updates = true, deletes = true;
  /// What it publishes and how, a sorted line each, for comparison and for people: "public.orders", "publish=insert,update", ...
  std::vector<std::string> definition;
  /// Tables that it has now, partitions under their root where it publishes via root.
  std::vector<std::uint32_t> table_oids;
};

struct SlotInfo {
  std::string plugin, database, wal_status;
  bool active = false;
  int active_pid = 0;
  std::string active_application;
  std::optional<Lsn> confirmed_flush;
};

/// The source's catalog, through libpqxx. It connects when it is first needed and again after the connection broke.
/// Errors: kUnavailable (connection), else kFailedPrecondition with PostgreSQL's words. Threads: one.
class Catalog final : public CatalogLookup {
 public:
  explicit Catalog(SourceAddress address);
  ~Catalog() override;

  Result<ServerInfo> server();
  /// Every permanent table that a user made, partitions left out (their root stands for them), sorted by name.
  Result<std::vector<SourceTable>> tables();
  /// Columns that are replicated, in the table's order: no dropped, no generated ones; of a publication with
  /// a column list only those in it. And the row filter, if the publication has one for the table.
  struct TableShape {
    std::vector<SourceColumn> columns;
    std::string row_filter;
  };
  Result<TableShape> shape(const SourceTable& table, const std::string& publication);
  /// Which files on the server hold the tables' rows, in one text. TRUNCATE and everything else that a snapshot taken before it
  /// would not see rightly puts new files in place.
  Result<std::string> storage_of(const std::vector<SourceTable>& tables);
  Result<std::optional<PublicationInfo>> publication(const std::string& name);
  Result<std::optional<SlotInfo>> slot(const std::string& name);
  /// Transactions that are older than `seconds`, for people: a slot waits for them to end.
  Result<std::vector<std::string>> running_transactions();
  /// Commits an empty marker and gives the WAL position up to which everything committed before is flushed.
  Result<Lsn> flushed_position();
  Result<Lsn> current_position();

  /// For statements that change the source: publications and slots.
  Result<void> execute(const std::string& sql);

  Result<ColumnType> type(std::uint32_t oid, std::int32_t modifier) override;
  Result<std::vector<std::string>> primary_key(std::uint32_t relation_oid) override;

 private:
  struct Session;
  template <typename Work>
  auto run(Work&& work) -> Result<decltype(work(std::declval<Session&>()))>;

  SourceAddress address_;
  std::unique_ptr<Session> session_;
  std::map<std::pair<std::uint32_t, std::int32_t>, ColumnType> types_;
};

/// `name` in double quotes, for SQL.
std::string quote_identifier(std::string_view name);

}  // namespace millrace
