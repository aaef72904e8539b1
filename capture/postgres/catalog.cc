#include "capture/postgres/catalog.h"

#include <algorithm>
#include <pqxx/pqxx>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "capture/pgoutput/builtin_types.h"

namespace millrace {

struct Catalog::Session {
  pqxx::connection connection;
  explicit Session(const SourceAddress& address) : connection(address.connection_string()) {
    pqxx::nontransaction(connection)
        .exec(std::string(pin_session_settings()) +
              "; SET lock_timeout = '15s'");  // libpqxx can't be stopped while it waits
  }
  pqxx::result query(const std::string& sql) { return pqxx::nontransaction(connection).exec(sql); }
};

namespace {

/// Column list and row filter of a pg_publication_rel `r`: PostgreSQL 15 brought them.
std::string member_columns(int server_version) {
  if (server_version < 150'000) return "NULL::text AS attributes, NULL::text AS filter";
  return "r.prattrs::text AS attributes, pg_get_expr(r.prqual, r.prrelid) AS filter";
}

std::string without_newlines(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

template <typename T>
T get(const pqxx::row& row, const char* column) {
  return row[column].as<T>();
}

std::string text(const pqxx::row& row, const char* column) {
  return row[column].is_null() ? std::string() : row[column].as<std::string>();
}

/// The columns of an index `i` that make its key; what INCLUDE adds comes after them.
const std::string kKeyColumns = "(i.indkey::int2[])[0:i.indnkeyatts - 1]";

std::string literal(std::uint32_t number) { return std::to_string(number); }

std::optional<Lsn> lsn_or_none(const pqxx::row& row, const char* column) {
  if (row[column].is_null()) return std::nullopt;
  const auto lsn = parse_lsn(row[column].as<std::string>());
  return lsn ? std::optional(*lsn) : std::nullopt;
}

}  // namespace

std::string quote_literal(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += '\'';
    out += c;
  }
  return out += '\'';
}

std::string SourceTable::quoted() const {
  return quote_identifier(schema_name) + "." + quote_identifier(table_name);
}

Catalog::Catalog(SourceAddress address) : address_(std::move(address)) {}
Catalog::~Catalog() = default;

/// The one place where libpqxx's exceptions become errors. A session that failed is not used again.
template <typename Work>
auto Catalog::run(Work&& work, Retry retry) -> Result<decltype(work(std::declval<Session&>()))> {
  const bool fresh = session_ == nullptr;
  try {
    if (fresh) session_ = std::make_unique<Session>(address_);
    return work(*session_);
  } catch (const pqxx::broken_connection& e) {
    session_.reset();
    if (!fresh && retry == Retry::kYes)
      return run(std::forward<Work>(work));  // it had broken since its last use
    return Error(ErrorCode::kUnavailable,
                 "connect to " + address_.describe() + ": " + without_newlines(e.what()))
        .hint(address_.connect_hint(e.what()));
  } catch (const pqxx::sql_error& e) {
    session_.reset();
    const bool unavailable = e.sqlstate().starts_with("53") || e.sqlstate().starts_with("57");
    Error error(unavailable ? ErrorCode::kUnavailable : ErrorCode::kFailedPrecondition,
                "PostgreSQL: " + without_newlines(e.what()));
    if (e.sqlstate() == "55P03")
      return std::move(error).hint(
          "Another session holds the lock for long: see pg_locks and pg_stat_activity. Start again "
          "when it has ended.");
    return error;
  } catch (const std::exception& e) {
    session_.reset();
    return Error(ErrorCode::kUnavailable,
                 "query the catalog of " + address_.describe() + ": " + without_newlines(e.what()));
  }
}

Result<ServerInfo> Catalog::server() {
  return run([](Session& session) {
    const pqxx::result rows = session.query(R"(
      SELECT current_setting('server_version_num')::int AS version,
             current_setting('wal_level') AS wal_level,
             current_setting('max_replication_slots')::int AS slots_max,
             (SELECT count(*) FROM pg_replication_slots)::int AS slots_used,
             current_setting('max_wal_senders')::int AS senders_max,
             (SELECT count(*) FROM pg_stat_replication)::int AS senders_used,
             current_setting('max_locks_per_transaction')::int AS locks_per_transaction,
             current_setting('max_locks_per_transaction')::bigint
               * (current_setting('max_connections')::int + current_setting('max_wal_senders')::int
                  + current_setting('max_worker_processes')::int + current_setting('autovacuum_max_workers')::int
                  + current_setting('max_prepared_transactions')::int) AS locks_max,
             pg_is_in_recovery() AS in_recovery, current_user::text AS user_name,
             current_database()::text AS database_name, r.rolsuper AS superuser,
             r.rolreplication OR r.rolsuper AS may_replicate,
             has_database_privilege(current_database(), 'CREATE') AS may_create
      FROM pg_roles r WHERE r.rolname = current_user)");
    const pqxx::row row = rows.at(0);
    ServerInfo info;
    info.version = get<int>(row, "version");
    info.wal_level = text(row, "wal_level");
    info.replication_slots_max = get<int>(row, "slots_max");
    info.replication_slots_used = get<int>(row, "slots_used");
    info.wal_senders_max = get<int>(row, "senders_max");
    info.wal_senders_used = get<int>(row, "senders_used");
    info.locks_per_transaction = get<int>(row, "locks_per_transaction");
    info.locks_max = get<std::int64_t>(row, "locks_max");
    info.in_recovery = get<bool>(row, "in_recovery");
    info.user = text(row, "user_name");
    info.database = text(row, "database_name");
    info.superuser = get<bool>(row, "superuser");
    info.may_replicate = get<bool>(row, "may_replicate");
    info.may_create = get<bool>(row, "may_create");
    return info;
  });
}

Result<std::vector<SourceTable>> Catalog::tables() { return tables_where("true"); }

Result<std::vector<UnpublishableTable>> Catalog::unpublishable_tables() {
  return run([](Session& session) {
    std::vector<UnpublishableTable> tables;
    for (const pqxx::row& row :
         session.query("SELECT n.nspname AS schema_name, c.relname AS table_name,"
                       " CASE c.relkind WHEN 'f' THEN 'a foreign table' ELSE 'unlogged' END AS what"
                       " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                       " WHERE (c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 'u')"
                       " AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'"
                       " AND NOT c.relispartition ORDER BY n.nspname, c.relname"))
      tables.push_back({text(row, "schema_name"), text(row, "table_name"), text(row, "what")});
    return tables;
  });
}

Result<std::optional<SourceTable>> Catalog::table(std::uint32_t oid) {
  MILLRACE_ASSIGN_OR_RETURN(auto found, tables_where("c.oid = " + literal(oid)));
  if (found.empty()) return std::optional<SourceTable>();
  return std::optional(std::move(found.front()));
}

Result<std::vector<SourceTable>> Catalog::tables_where(const std::string& condition) {
  return run([&](Session& session) {
    const pqxx::result rows = session.query(R"(
      SELECT c.oid::bigint AS oid, n.nspname AS schema_name, c.relname AS table_name,
             c.relkind = 'p' AS partitioned, c.relreplident AS identity,
             CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid::bigint END AS root,
             CASE c.relreplident
               WHEN 'f' THEN true
               WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
                                                              AND i.indimmediate AND i.indisvalid)
               WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident
                                                              AND i.indimmediate AND i.indisvalid)
               ELSE false END AS has_identity,
             EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_primary_key,
             pg_has_role(c.relowner, 'USAGE') AS owned,
             has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable,
             (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)::int AS indexes
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
        AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
        AND )" + condition + R"(
      ORDER BY n.nspname, c.relname)");
    std::vector<SourceTable> tables;
    for (const pqxx::row& row : rows) {
      // Functions of the server see newer catalogs than the query that calls them: a table that is
      // dropped meanwhile has a row here, and no privileges.
      if (row["readable"].is_null()) continue;
      SourceTable& table = tables.emplace_back();
      table.oid = static_cast<std::uint32_t>(get<std::int64_t>(row, "oid"));
      table.schema_name = text(row, "schema_name");
      table.table_name = text(row, "table_name");
      table.partitioned = get<bool>(row, "partitioned");
      if (!row["root"].is_null())
        table.root_oid = static_cast<std::uint32_t>(get<std::int64_t>(row, "root"));
      table.identity = static_cast<ReplicaIdentity>(text(row, "identity").at(0));
      table.has_identity = get<bool>(row, "has_identity");
      table.has_primary_key = get<bool>(row, "has_primary_key");
      table.owned = get<bool>(row, "owned");
      table.readable = get<bool>(row, "readable");
      table.indexes = get<int>(row, "indexes");
    }
    return tables;
  });
}

std::string table_shape_query(std::uint32_t table_oid, const std::string& publication,
                              int server_version) {
  const std::string oid = literal(table_oid);
  return "WITH listed AS (SELECT " + member_columns(server_version) +
         "                FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
         "                WHERE p.pubname = " +
         quote_literal(publication) + "                  AND r.prrelid = " + oid +
         ")"
         " SELECT a.attname AS name, a.atttypid::bigint AS type_oid, a.atttypmod AS modifier,"
         "   CASE c.relreplident"
         "     WHEN 'f' THEN true"
         "     WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND "
         "i.indisprimary"
         "                                                    AND i.indimmediate AND a.attnum = "
         "ANY "
         "(" +
         kKeyColumns +
         "))"
         "     WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND "
         "i.indisreplident"
         "                                                    AND a.attnum = ANY (" +
         kKeyColumns +
         "))"
         "     ELSE false END AS identity,"
         "   (SELECT filter FROM listed) AS filter"
         " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
         " WHERE a.attrelid = " +
         oid +
         " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
         "   AND NOT EXISTS (SELECT FROM listed WHERE attributes IS NOT NULL"
         "                     AND a.attnum::text <> ALL (string_to_array(attributes, ' ')))"
         " ORDER BY a.attnum";
}

Result<Catalog::TableShape> Catalog::shape(const SourceTable& table,
                                           const std::string& publication) {
  return run([&](Session& session) {
    const pqxx::result rows = session.query(
        table_shape_query(table.oid, publication, session.connection.server_version()));
    TableShape shape;
    for (const pqxx::row& row : rows) {
      shape.columns.push_back(
          {.name = text(row, "name"),
           .type_oid = static_cast<std::uint32_t>(get<std::int64_t>(row, "type_oid")),
           .type_modifier = get<std::int32_t>(row, "modifier"),
           .identity = get<bool>(row, "identity")});
      shape.row_filter = text(row, "filter");
    }
    return shape;
  });
}

Result<std::string> Catalog::storage_of(const std::vector<SourceTable>& tables) {
  std::string oids;
  for (const SourceTable& table : tables) oids += (oids.empty() ? "" : ",") + literal(table.oid);
  return run([&](Session& session) {
    return text(
        session
            .query("SELECT string_agg(p.relid::oid || ':' || "
                   "coalesce(pg_relation_filenode(p.relid), 0) || ':' || coalesce((SELECT "
                   "md5(string_agg(a.attname || ' ' || a.atttypid, ',' ORDER BY a.attnum)) FROM "
                   "pg_attribute a WHERE a.attrelid = p.relid AND a.attnum > 0), ''),"
                   " ' ' ORDER BY p.relid::oid) AS files"
                   " FROM unnest('{" +
                   oids +
                   "}'::oid[]) AS t(oid),"
                   " LATERAL (SELECT relid FROM pg_partition_tree(t.oid) UNION SELECT t.oid) AS "
                   "p(relid)")
            .at(0),
        "files");
  });
}

Result<void> Catalog::check_condition(const SourceTable& table, const std::string& condition) {
  if (condition.empty()) return {};
  auto checked = run([&](Session& session) {
    // To prepare is to parse and to look everything up; and it takes one statement only. libpqxx 6
    // does it when the statement is first used, if it is not told; libpqxx 7 does it at once.
    session.connection.prepare("millrace_condition",
                               "SELECT FROM " + table.quoted() + " WHERE (" + condition + ")");
    [](auto& connection) {
      if constexpr (requires { connection.prepare_now("millrace_condition"); })
        connection.prepare_now("millrace_condition");
    }(session.connection);
    session.connection.unprepare("millrace_condition");
    return true;
  });
  if (!checked) return std::move(checked).error();
  return {};
}

Result<std::optional<PublicationInfo>> Catalog::publication(const std::string& name) {
  return run([&](Session& session) -> std::optional<PublicationInfo> {
    const std::string quoted = session.connection.quote(name);
    const pqxx::result found = session.query(
        "SELECT oid::bigint AS oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,"
        " coalesce((to_jsonb(p)->>'pubviaroot')::boolean, false) AS via_root,"
        " obj_description(p.oid, 'pg_publication') AS comment,"
        " pg_has_role(p.pubowner, 'USAGE') AS owned"
        " FROM pg_publication p WHERE pubname = " +
        quoted);
    if (found.empty()) return std::nullopt;
    const pqxx::row row = found.at(0);
    PublicationInfo info;
    info.all_tables = get<bool>(row, "puballtables");
    info.owned = get<bool>(row, "owned");
    info.comment = text(row, "comment");
    info.inserts = get<bool>(row, "pubinsert");
    info.updates = get<bool>(row, "pubupdate");
    info.deletes = get<bool>(row, "pubdelete");
    std::string publishes = "publish=";
    for (const char* operation : {"insert", "update", "delete", "truncate"})
      if (get<bool>(row, (std::string("pub") + operation).c_str()))
        publishes += (publishes.back() == '=' ? "" : ",") + std::string(operation);
    info.definition.push_back(publishes);
    info.definition.push_back("OID " + text(row, "oid"));
    if (get<bool>(row, "via_root")) info.definition.emplace_back("publish_via_partition_root");
    if (info.all_tables) info.definition.emplace_back("ALL TABLES");
    info.plain = !info.all_tables;

    const std::string oid = std::to_string(get<std::int64_t>(row, "oid"));
    for (const pqxx::row& member : session.query(
             "SELECT n.nspname AS schema_name, c.relname AS table_name, c.oid::bigint AS table_oid,"
             " r.oid::bigint AS member_oid, " +
             member_columns(session.connection.server_version()) +
             " FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid"
             " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = " +
             oid)) {
      std::string line = category_of(text(member, "schema_name"), text(member, "table_name")) +
                         " (OID " + text(member, "table_oid") + ", member " +
                         text(member, "member_oid") + ")";
      if (!member["attributes"].is_null()) line += " (columns " + text(member, "attributes") + ")";
      if (!member["filter"].is_null()) line += " WHERE " + text(member, "filter");
      info.plain = info.plain && member["attributes"].is_null() && member["filter"].is_null();
      info.definition.push_back(std::move(line));
    }
    if (session.connection.server_version() >= 150000)
      for (const pqxx::row& member :
           session.query("SELECT n.nspname AS name FROM pg_publication_namespace m"
                         " JOIN pg_namespace n ON n.oid = m.pnnspid WHERE m.pnpubid = " +
                         oid)) {
        info.definition.push_back("TABLES IN SCHEMA " + text(member, "name"));
        info.plain = false;
      }
    // Kept as JSON and compared later: names must be valid UTF-8 in a database of any encoding.
    for (std::string& line : info.definition) line = printable(line, line.size());
    std::sort(info.definition.begin(), info.definition.end());

    for (const pqxx::row& member :
         session.query("SELECT c.oid::bigint AS oid, t.schemaname, t.tablename"
                       " FROM pg_publication_tables t"
                       " JOIN pg_namespace n ON n.nspname = t.schemaname"
                       " JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename"
                       " WHERE t.pubname = " +
                       quoted + " ORDER BY t.schemaname, t.tablename")) {
      info.table_oids.push_back(static_cast<std::uint32_t>(get<std::int64_t>(member, "oid")));
      info.table_names.push_back(
          category_of(text(member, "schemaname"), text(member, "tablename")));
    }
    return info;
  });
}

Result<std::vector<std::uint32_t>> Catalog::published_types(const std::string& publication) {
  return run([&](Session& session) {
    std::vector<std::uint32_t> oids;
    for (const pqxx::row& row :
         session.query("SELECT DISTINCT a.atttypid::bigint AS oid FROM pg_publication_tables t"
                       " JOIN pg_namespace n ON n.nspname = t.schemaname"
                       " JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename"
                       " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
                       " WHERE NOT a.attisdropped AND a.attgenerated = '' AND t.pubname = " +
                       session.connection.quote(publication)))
      oids.push_back(static_cast<std::uint32_t>(get<std::int64_t>(row, "oid")));
    return oids;
  });
}

Result<std::optional<SlotInfo>> Catalog::slot(const std::string& name) {
  return run([&](Session& session) -> std::optional<SlotInfo> {
    const pqxx::result found = session.query(
        "SELECT s.plugin::text, s.database::text, s.active, s.active_pid, "
        "s.confirmed_flush_lsn::text AS confirmed, s.restart_lsn::text AS restart,"
        " to_jsonb(s)->>'wal_status' AS wal_status, a.application_name AS application, "
        "host(a.client_addr) AS address"
        " FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid"
        " WHERE s.slot_name = " +
        session.connection.quote(name));
    if (found.empty()) return std::nullopt;
    const pqxx::row row = found.at(0);
    SlotInfo info;
    info.plugin = text(row, "plugin");
    info.database = text(row, "database");
    info.wal_status = text(row, "wal_status");
    info.active = get<bool>(row, "active");
    info.active_pid = row["active_pid"].is_null() ? 0 : get<int>(row, "active_pid");
    info.active_application = text(row, "application");
    info.active_address = text(row, "address");
    info.confirmed_flush = lsn_or_none(row, "confirmed");
    info.restart = lsn_or_none(row, "restart");
    return info;
  });
}

Result<std::vector<std::string>> Catalog::running_transactions() {
  return run([](Session& session) {
    std::vector<std::string> lines;
    for (const pqxx::row& row :
         session.query("SELECT pid, usename::text AS user_name, application_name AS application,"
                       " coalesce(' since ' || extract(epoch FROM now() - xact_start)::int || ' "
                       "s', '') AS since"
                       " FROM pg_stat_activity"
                       " WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY "
                       "xact_start LIMIT 5"))
      lines.push_back("pid " + text(row, "pid") + " (" + text(row, "user_name") + ", " +
                      text(row, "application") + ")" + text(row, "since"));
    return lines;
  });
}

Result<bool> Catalog::has_changes_behind(const std::string& slot, const std::string& publication,
                                         Lsn commit) {
  constexpr int kLook = 1000;
  return run([&](Session& session) {
    // The first byte of a message is its kind; a Begin has its transaction's commit position next.
    const pqxx::result transactions = session.query(
        "SELECT count(*) AS messages, bool_or(get_byte(data, 0) IN (68, 73, 84, 85)) AS changes,"
        " max(encode(substring(data FROM 2 FOR 8), 'hex')) FILTER (WHERE get_byte(data, 0) = 66) "
        "AS "
        "commit"
        " FROM pg_logical_slot_peek_binary_changes(" +
        session.connection.quote(slot) + ", NULL, " + std::to_string(kLook) +
        ", 'proto_version', '1', 'publication_names', " +
        session.connection.quote(quote_identifier(publication)) + ") GROUP BY xid");
    std::int64_t messages = 0;
    for (const pqxx::row& row : transactions) {
      messages += get<std::int64_t>(row, "messages");
      if (get<bool>(row, "changes") && std::stoull(text(row, "commit"), nullptr, 16) > commit.value)
        return true;
    }
    return messages >= kLook;
  });
}

Result<Lsn> Catalog::flushed_position() {
  MILLRACE_RETURN_IF_ERROR(execute("SELECT pg_logical_emit_message(true, 'millrace', '')"));
  return wal_end();
}

Result<Lsn> Catalog::wal_end() {
  MILLRACE_ASSIGN_OR_RETURN(const std::string text, run([](Session& session) {
                              return session
                                  .query(
                                      "SELECT CASE WHEN pg_is_in_recovery() THEN '' "
                                      "ELSE pg_current_wal_flush_lsn()::text END")
                                  .at(0)
                                  .at(0)
                                  .as<std::string>();
                            }));
  if (text.empty())
    return Error(ErrorCode::kUnavailable, "the server is in recovery")
        .hint(
            "It is a standby, or was restored and is not ready yet. Connect to the primary (for "
            "several hosts add target_session_attrs=read-write).");
  return parse_lsn(text);
}

Result<void> Catalog::execute(const std::string& sql) {
  // Not again after the connection broke: it may have been carried out.
  MILLRACE_RETURN_IF_ERROR(
      server());  // a session that has broken in the meantime is made anew here
  auto done = run([&](Session& session) { return session.query(sql).size(); }, Retry::kNo);
  if (!done) return std::move(done).error();
  return {};
}

Result<ColumnType> Catalog::type(std::uint32_t oid, std::int32_t modifier) {
  const auto known = types_.find({oid, modifier});
  if (known != types_.end()) return known->second;
  auto found = run([&](Session& session) {
    // A domain counts as what it is based on, an array by its elements.
    const pqxx::result rows = session.query(
        "WITH RECURSIVE base AS ("
        "  SELECT t.* FROM pg_type t WHERE t.oid = " +
        literal(oid) +
        "  UNION ALL SELECT t.* FROM base b JOIN pg_type t ON b.typtype = 'd' AND t.oid = "
        "b.typbasetype)"
        " SELECT format_type(" +
        literal(oid) + ", " + std::to_string(modifier) +
        ") AS name,"
        "   b.oid::bigint AS base_oid, b.typtype AS base_kind, e.typtype AS element_kind,"
        "   b.typcategory = 'A' AND b.typlen = -1 AS true_array"
        " FROM base b LEFT JOIN pg_type e ON e.oid = b.typelem WHERE b.typtype <> 'd'");
    ColumnType type;
    if (rows.empty()) {
      type.name = "type " + literal(oid);
      return type;
    }
    const pqxx::row row = rows.at(0);
    type.name = text(row, "name");
    type.base_oid = static_cast<std::uint32_t>(get<std::int64_t>(row, "base_oid"));
    const auto builtin = pgoutput::builtin_type(type.base_oid);
    if (builtin) {
      type.kind = builtin->kind;
      type.array = builtin->array;
    } else if (text(row, "base_kind") == "e") {
      type.kind = ValueKind::kEnum;
    } else if (get<bool>(row, "true_array") && text(row, "element_kind") == "e") {
      type.kind = ValueKind::kEnum;
      type.array = true;
    }
    return type;
  });
  if (!found) return std::move(found).error().context("look up type " + literal(oid));
  types_[{oid, modifier}] = *found;
  return found;
}

Result<std::optional<std::vector<std::string>>> Catalog::primary_key(std::uint32_t relation_oid) {
  return run([&](Session& session) {
    std::optional<std::vector<std::string>> names;
    for (const pqxx::row& row :
         session.query("SELECT a.attname AS name FROM pg_class c"
                       " LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
                       " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (" +
                       kKeyColumns + ") WHERE c.oid = " + literal(relation_oid) +
                       " ORDER BY array_position(i.indkey::int2[], a.attnum)")) {
      if (!names) names.emplace();
      if (!row["name"].is_null()) names->push_back(text(row, "name"));
    }
    return names;
  });
}

}  // namespace millrace
