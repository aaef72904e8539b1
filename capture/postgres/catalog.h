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
  int locks_per_transaction = 0;  ///< max_locks_per_transaction: of all together, `locks_max`.
  std::int64_t locks_max = 0;
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
  std::uint32_t root_oid = 0;  ///< Of a partition: the table that it is a part of; else 0.
  ReplicaIdentity identity = ReplicaIdentity::kDefault;
  bool has_identity = false;  ///< Updates and deletes can be published.
  bool has_primary_key = false;
  bool owned = false;  ///< By a role that we are: may go into a publication that we make.
  bool readable = false;
  int indexes = 0;

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
  bool owned = false;  ///< By a role that we are: may be altered.
  /// Its members are tables, each with all rows and columns: no schema, not simply all tables.
  bool plain = true;
  std::string comment;
  bool inserts = true, updates = true, deletes = true;
  /// What it publishes and how, a sorted line each, for comparison and for people:
  /// "publish=insert,update", "public.orders (OID 16391, member 16402)". The OIDs tell what was
  /// dropped and made again in between.
  std::vector<std::string> definition;
  /// Tables that it has now, partitions under their root where it publishes via root.
  std::vector<std::uint32_t> table_oids;
  std::vector<std::string> table_names;  ///< Of the same, in their order: "public.orders".
};

/// A table that PostgreSQL does not replicate.
struct UnpublishableTable {
  std::string schema_name, table_name;
  std::string what;  ///< "unlogged", "a foreign table"
};

struct SlotInfo {
  std::string plugin, database, wal_status;
  bool active = false;
  int active_pid = 0;
  std::string active_application;
  std::string active_address;  ///< Of its client; empty on a Unix socket.
  std::optional<Lsn> confirmed_flush;
  std::optional<Lsn> restart;  ///< Where the server begins to read for it.
};

/// The source's catalog, through libpqxx. It connects when it is first needed and again after the
/// connection broke. Errors: kUnavailable (connection), else kFailedPrecondition with PostgreSQL's
/// words. Threads: one.
class Catalog final : public CatalogLookup {
 public:
  explicit Catalog(SourceAddress address);
  ~Catalog() override;

  Result<ServerInfo> server();
  /// Every permanent table that a user made, partitions and their roots too, sorted by name.
  Result<std::vector<SourceTable>> tables();
  /// Those that no publication can have.
  Result<std::vector<UnpublishableTable>> unpublishable_tables();
  /// The one with this OID, if it is there.
  Result<std::optional<SourceTable>> table(std::uint32_t oid);
  /// Columns that are replicated, in the table's order: no dropped, no generated ones; of a
  /// publication with a column list only those in it. And the row filter, if the publication has
  /// one for the table.
  struct TableShape {
    std::vector<SourceColumn> columns;
    std::string row_filter;
  };
  Result<TableShape> shape(const SourceTable& table, const std::string& publication);
  /// Which files on the server hold the tables' rows, and which columns they have, in one text.
  /// TRUNCATE and everything else that a snapshot taken before it would not see rightly puts new
  /// files in place; a query sees the columns as of now, the catalog of a snapshot those of before.
  Result<std::string> storage_of(const std::vector<SourceTable>& tables);
  /// Whether PostgreSQL takes `condition`, one that may be empty, on rows of `table`. Runs nothing.
  Result<void> check_condition(const SourceTable& table, const std::string& condition);
  Result<std::optional<PublicationInfo>> publication(const std::string& name);
  /// Types of all columns that it publishes, each once. One that a column list leaves out may be
  /// among them.
  Result<std::vector<std::uint32_t>> published_types(const std::string& publication);
  Result<std::optional<SlotInfo>> slot(const std::string& name);
  /// Whether `slot`, which nobody may be reading, holds a change of a published table that was
  /// committed behind `commit`. It looks at the first thousand changes; where that does not tell,
  /// true. PostgreSQL refuses it (kFailedPrecondition) for a slot that is gone, lost or in use.
  Result<bool> has_changes_behind(const std::string& slot, const std::string& publication,
                                  Lsn commit);
  /// Some that are running now, oldest first, for people: a slot waits for them to end.
  Result<std::vector<std::string>> running_transactions();
  /// Up to where the server's WAL is flushed. kUnavailable while it is in recovery.
  Result<Lsn> wal_end();
  /// Commits an empty marker and gives the WAL position up to which everything committed before is
  /// flushed.
  Result<Lsn> flushed_position();

  /// For statements that change the source: publications and slots. Waits at most 15 s for a lock.
  /// If the connection breaks (kUnavailable) it may have been carried out.
  Result<void> execute(const std::string& sql);

  Result<ColumnType> type(std::uint32_t oid, std::int32_t modifier) override;
  Result<std::optional<std::vector<std::string>>> primary_key(std::uint32_t relation_oid) override;

 private:
  struct Session;
  Result<std::vector<SourceTable>> tables_where(const std::string& condition);
  enum class Retry { kYes, kNo };
  template <typename Work>
  auto run(Work&& work, Retry retry = Retry::kYes)
      -> Result<decltype(work(std::declval<Session&>()))>;

  SourceAddress address_;
  std::unique_ptr<Session> session_;
  std::map<std::pair<std::uint32_t, std::int32_t>, ColumnType> types_;
};

/// "'it''s'", for a server with standard_conforming_strings, as capture's sessions are.
std::string quote_literal(std::string_view text);

/// What Catalog::shape() asks: a row for each column with name, type's OID, modifier, whether it is
/// part of the identity, and the row filter.
std::string table_shape_query(std::uint32_t table_oid, const std::string& publication,
                              int server_version);

}  // namespace millrace
