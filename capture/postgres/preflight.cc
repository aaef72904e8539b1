#include "capture/postgres/preflight.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/counted.h"
#include "base/sql_text.h"
#include "capture/pipeline/outbox.h"

namespace millrace {
namespace {

using Severity = Finding::Severity;

constexpr std::string_view kMark = "made by millrace capture", kMarkTables = "; tables: ";

class Findings {
 public:
  explicit Findings(std::vector<Finding>& list) : list_(list) {}
  void fine(std::string subject, std::string message) {
    list_.push_back({Severity::kFine, std::move(subject), std::move(message), {}});
  }
  void note(std::string subject, std::string message) {
    list_.push_back({Severity::kNote, std::move(subject), std::move(message), {}});
  }
  void warn(std::string subject, std::string message, std::string fix = {}) {
    list_.push_back({Severity::kWarning, std::move(subject), std::move(message), std::move(fix)});
  }
  void problem(std::string subject, std::string message, std::string fix) {
    list_.push_back({Severity::kProblem, std::move(subject), std::move(message), std::move(fix)});
  }

 private:
  std::vector<Finding>& list_;
};

std::string version_text(int version) {
  return std::to_string(version / 10'000) + "." + std::to_string(version % 10'000);
}

/// Releases below these lose or repeat changes in logical decoding by bugs of the server (release
/// notes of 2025-08-14: https://www.postgresql.org/docs/15/release-15-14.html and its neighbours).
constexpr std::array<int, 5> kSoundReleases{130'022, 140'019, 150'014, 160'010, 170'006};

void look_at_server(const ServerInfo& server, Findings& findings) {
  const std::string version = version_text(server.version);
  const auto sound = std::find_if(kSoundReleases.begin(), kSoundReleases.end(), [&](int release) {
    return release / 10'000 == server.version / 10'000;
  });
  if (server.version < 120'000)
    findings.problem("server version",
                     "PostgreSQL " + version + " is too old: millrace needs 12 or later.",
                     "-- upgrade the server");
  else if (sound != kSoundReleases.end() && server.version < *sound)
    findings.warn("server version",
                  "PostgreSQL " + version +
                      " has bugs that can lose changes in logical decoding; " +
                      version_text(*sound) + " mends them.",
                  "-- update the server to " + version_text(*sound) + " or later");
  else
    findings.fine("server version", "PostgreSQL " + version + ".");

  if (server.in_recovery && server.version < 160'000)
    findings.problem(
        "server role",
        "The server is a standby; before PostgreSQL 16 only a primary has logical slots.",
        "-- connect to the primary (for several hosts add target_session_attrs=read-write)");
  if (server.wal_level != "logical")
    findings.problem(
        "wal_level",
        "wal_level is " + server.wal_level + ", so the WAL holds too little to decode changes.",
        "ALTER SYSTEM SET wal_level = 'logical';  -- then restart PostgreSQL");
  else
    findings.fine("wal_level", "wal_level is logical.");

  if (!server.may_replicate)
    findings.problem("replication right",
                     "Role " + server.user + " may not read the replication stream.",
                     "ALTER ROLE " + quote_identifier(server.user) + " REPLICATION;");
  else
    findings.fine("replication right", "Role " + server.user + " may read the replication stream.");

  if (server.wal_senders_used >= server.wal_senders_max)
    findings.problem(
        "max_wal_senders",
        "All " + std::to_string(server.wal_senders_max) + " WAL senders are in use.",
        "ALTER SYSTEM SET max_wal_senders = " + std::to_string(server.wal_senders_max + 5) +
            ";  -- then restart PostgreSQL");
}

void look_at_slot(const Preflight& found, const PreflightQuestion& question, Findings& findings) {
  const ServerInfo& server = found.server;
  const std::string subject = "slot " + question.slot;
  if (!found.slot) {
    if (server.replication_slots_used >= server.replication_slots_max)
      findings.problem("max_replication_slots",
                       "No replication slot is free: all " +
                           std::to_string(server.replication_slots_max) + " are in use.",
                       "SELECT pg_drop_replication_slot('...');  -- one that nobody needs, see "
                       "pg_replication_slots; or ALTER "
                       "SYSTEM SET max_replication_slots = " +
                           std::to_string(server.replication_slots_max + 5) +
                           "; and restart PostgreSQL");
    else if (!question.temporary &&
             server.replication_slots_used + 1 >= server.replication_slots_max)
      findings.problem(
          "max_replication_slots",
          "Only one replication slot is free of " + std::to_string(server.replication_slots_max) +
              ": the first start needs two, one of them until its snapshot is whole.",
          "ALTER SYSTEM SET max_replication_slots = " +
              std::to_string(server.replication_slots_max + 5) + ";  -- then restart PostgreSQL");
    else
      findings.fine(subject, "A replication slot is free.");
    return;
  }
  const SlotInfo& slot = *found.slot;
  const std::string drop =
      "SELECT pg_drop_replication_slot('" + question.slot + "');  -- or use another --slot";
  if (slot.plugin != "pgoutput" || slot.database != server.database)
    findings.problem(subject,
                     "It exists with plugin " + (slot.plugin.empty() ? "none" : slot.plugin) +
                         " for database " + (slot.database.empty() ? "none" : slot.database) +
                         ": it is somebody else's.",
                     drop);
  else if (slot.wal_status == "lost")
    findings.problem(subject, "PostgreSQL has invalidated it: the WAL that it needs is gone.",
                     drop);
  else if (slot.active)
    findings.warn(subject, "It is in use by pid " + std::to_string(slot.active_pid) + " (" +
                               slot.active_application + ").");
  else
    findings.fine(subject,
                  "It exists, confirmed up to " +
                      (slot.confirmed_flush ? to_string(*slot.confirmed_flush) : "nothing") + ".");
}

std::string joined_names(const std::vector<SourceTable>& tables) {
  std::string list;
  for (const SourceTable& table : tables) list += (list.empty() ? "" : ", ") + table.quoted();
  return list;
}

/// Finds the tables that are named as outboxes, and whether the publication has them.
void look_for_outboxes(Preflight& found, const std::vector<SourceTable>& all,
                       const PreflightQuestion& question, Findings& findings) {
  for (const std::string& name : question.outbox) {
    const auto table = std::ranges::find(all, name, &SourceTable::name);
    const std::string subject = "outbox " + name;
    if (table == all.end()) {
      findings.problem(subject, "There is no such table, which --outbox names.",
                       "-- correct the name in --outbox, or make the table");
      continue;
    }
    found.outboxes.push_back(*table);
    if (table->root_oid != 0)
      findings.problem(subject, "It is a partition of another table.",
                       "-- name that table in --outbox");
    if (!found.publication) continue;
    const std::string alter = "ALTER PUBLICATION " + quote_identifier(question.publication);
    if (std::ranges::find(found.publication->table_oids, table->oid) ==
        found.publication->table_oids.end())
      findings.problem(subject, "Publication " + question.publication + " does not have it.",
                       alter + " ADD TABLE " + table->quoted() + ";");
    else if (!found.publication->inserts)
      findings.problem(subject,
                       "Publication " + question.publication + " does not publish inserts.",
                       alter + " SET (publish = 'insert, update, delete, truncate');");
  }
}

/// Whether the outboxes have the columns that make an event.
Result<void> look_at_outbox_columns(Catalog& catalog, const Preflight& found,
                                    const PreflightQuestion& question, Findings& findings) {
  for (const SourceTable& table : found.outboxes) {
    MILLRACE_ASSIGN_OR_RETURN(const auto shape, catalog.shape(table, question.publication));
    std::vector<ColumnSchema> columns;
    for (const SourceColumn& column : shape.columns) {
      MILLRACE_ASSIGN_OR_RETURN(ColumnType type,
                                catalog.type(column.type_oid, column.type_modifier));
      columns.push_back({.name = column.name,
                         .kind = type.kind,
                         .array = type.array,
                         .type_name = std::move(type.name)});
    }
    std::string message;
    for (const std::string& fault : outbox_faults(columns))
      message += (message.empty() ? "As an outbox it won't do: " : " ") + fault;
    if (message.empty())
      findings.fine("outbox " + table.name(), "Its rows become domain events.");
    else
      findings.problem(
          "outbox " + table.name(), message,
          "-- give it the columns id, aggregatetype, aggregateid, type and payload, or "
          "name another table in --outbox");
  }
  return {};
}

/// A table and its indexes stay locked until all are read: their rows are seen as of one moment.
void look_at_locks(const Preflight& found, const std::vector<SourceTable>& all,
                   const PreflightQuestion& question, Findings& findings) {
  if (found.slot || question.temporary || !question.reads_rows) return;
  std::set<std::uint32_t> roots;
  std::int64_t needed = 0;
  for (const SourceTable& table : found.tables) {
    needed += 1 + table.indexes;
    if (table.partitioned) roots.insert(table.oid);
  }
  for (const SourceTable& table : all)
    if (roots.contains(table.root_oid)) needed += 1 + table.indexes;
  const std::int64_t room = found.server.locks_max;
  if (needed <= room) return;
  findings.problem(
      "max_locks_per_transaction",
      "The initial snapshot takes about " + std::to_string(needed) +
          " locks, on all tables and their indexes, and the server has room for " +
          std::to_string(room) + " of everybody together.",
      "ALTER SYSTEM SET max_locks_per_transaction = " +
          std::to_string(found.server.locks_per_transaction * (2 * needed / room + 1)) +
          ";  -- then restart PostgreSQL; or leave tables out with --tables");
}

/// Tables that --tables means and a publication lacks, and those that it leaves out and are there.
struct PublicationDifference {
  std::vector<SourceTable> missing, beyond;
};

/// Whoever keeps a publication can't add what could then not be updated any more, what it may not
/// read, or what is another role's.
bool can_be_added(const SourceTable& table, const std::vector<SourceTable>& all) {
  return table.owned && table.readable && without_identity(table, all).empty();
}

/// Of a publication that the next run brings in step.
void tell_what_run_mends(const PublicationDifference& difference, const Preflight& found,
                         const std::vector<SourceTable>& all, const std::string& subject,
                         Findings& findings) {
  const std::optional<TablePatterns> kept = patterns_of(*found.publication);
  std::vector<SourceTable> come, stay_out, go, stay;
  for (const SourceTable& table : difference.missing)
    (can_be_added(table, all) ? come : stay_out).push_back(table);
  for (const SourceTable& table : difference.beyond)
    (kept && is_meant(table, all, *kept) ? go : stay).push_back(table);
  if (!come.empty())
    findings.note(subject, "It is without " + joined_names(come) +
                               ", which --tables names: `capture run` adds and reads them.");
  if (!stay_out.empty())
    findings.warn(subject,
                  "It is without " + joined_names(stay_out) +
                      ", which --tables names, and `capture run` can't add them: each needs a "
                      "replica identity, and role " +
                      found.server.user + " has to own it and may read it.");
  if (!go.empty())
    findings.note(subject, "It has " + joined_names(go) +
                               ", which --tables leaves out: `capture run` drops them from it.");
  if (!stay.empty())
    findings.note(subject, "It has " + joined_names(stay) +
                               ", which --tables leaves out and which somebody else has put into "
                               "it: they stay captured.");
}

/// A name that is no table's is told as such, and not as a pattern without a match besides.
void look_for_named_tables(bool any_match, const std::vector<SourceTable>& all,
                           const PreflightQuestion& question, Findings& findings) {
  bool misnamed = false;
  for (const std::string& name : question.patterns.plain_names()) {
    if (std::ranges::find(all, name, &SourceTable::name) != all.end()) continue;
    misnamed = true;
    findings.problem("tables", "There is no table " + name + ", which --tables names.",
                     "-- correct the name in --tables");
  }
  if (!any_match && !misnamed)
    findings.problem("tables", "No table matches.",
                     "-- see --tables; a pattern is schema.table, as in 'public.*'");
}

/// A publication that is there, beside the tables that are asked for.
void compare_publication(const PublicationDifference& difference, const Preflight& found,
                         const std::vector<SourceTable>& all, const PreflightQuestion& question,
                         Findings& findings) {
  const PublicationInfo& publication = *found.publication;
  const std::string subject = "publication " + question.publication;
  const std::string alter = "ALTER PUBLICATION " + quote_identifier(question.publication);
  const std::string missing = joined_names(difference.missing);
  const std::string beyond = joined_names(difference.beyond);
  const bool kept =
      made_by_capture(publication) && publication.owned && publication.plain && !question.temporary;
  const bool goes_on = question.brings_in_step || (question.tells_mended && found.slot);
  if (!beyond.empty() && !(kept && goes_on))
    findings.problem(subject, "It publishes tables that --tables leaves out: " + beyond + ".",
                     alter + " DROP TABLE " + beyond + ";  -- or use another --publication");
  if (!missing.empty() && !kept)
    findings.warn(subject, "Tables that match are not in it and are not captured: " + missing + ".",
                  alter + " ADD TABLE " + missing + ";");
  if (kept && question.tells_mended)
    tell_what_run_mends({.missing = difference.missing,
                         .beyond = goes_on ? difference.beyond : std::vector<SourceTable>()},
                        found, all, subject, findings);
  if (!publication.inserts || !publication.updates || !publication.deletes)
    findings.warn(
        subject,
        "It does not publish all of insert, update and delete: the views will differ from the "
        "tables.",
        alter + " SET (publish = 'insert, update, delete, truncate');");
  findings.fine(subject, "It exists with " + counted(found.tables.size(), "table") + ".");
}

/// Who is in the publication and who was asked for.
void look_at_publication(Preflight& found, const std::vector<SourceTable>& all,
                         const PreflightQuestion& question, Findings& findings) {
  const std::string subject = "publication " + question.publication;
  const std::string quoted = quote_identifier(question.publication);
  std::vector<SourceTable> matching;
  PublicationDifference difference;
  std::vector<std::uint32_t> members;
  if (found.publication) members = found.publication->table_oids;
  const auto is_member = [&](std::uint32_t oid) {
    return std::find(members.begin(), members.end(), oid) != members.end();
  };
  const auto with_oid = [&](std::uint32_t oid) {
    return std::find_if(all.begin(), all.end(),
                        [&](const SourceTable& table) { return table.oid == oid; });
  };
  bool any_match = !question.outbox.empty();
  for (const SourceTable& table : all) {
    if (is_named(question.outbox, table.name())) continue;
    const bool match = is_meant(table, all, question.patterns);
    const bool by_partitions = std::any_of(all.begin(), all.end(), [&](const SourceTable& other) {
      return other.root_oid == table.oid && is_member(other.oid);
    });
    any_match = any_match || match;
    if (match && table.root_oid == 0) matching.push_back(table);
    if (is_member(table.oid)) found.tables.push_back(table);
    if (!question.patterns.given()) continue;
    if (is_member(table.oid) && !match) difference.beyond.push_back(table);
    if (match && table.root_oid == 0 && !is_member(table.oid) && !by_partitions)
      difference.missing.push_back(table);
  }
  if (!any_match) difference.beyond.clear();  // no table matches: that is told below
  for (const std::uint32_t oid : members)
    if (with_oid(oid) == all.end())
      findings.problem(subject,
                       "It publishes the table with OID " + std::to_string(oid) +
                           ", which millrace can't read: it is in a "
                           "schema of the system, or has just vanished.",
                       "ALTER PUBLICATION " + quoted + " DROP TABLE ...;");
  if (!found.publication) {
    found.tables = matching;
    matching = found.published();
    std::vector<SourceTable> foreign;
    std::copy_if(matching.begin(), matching.end(), std::back_inserter(foreign),
                 [](const SourceTable& table) { return !table.owned; });
    // To be pasted: a table without identity in it would break the application's updates.
    std::vector<SourceTable> publishable;
    std::copy_if(matching.begin(), matching.end(), std::back_inserter(publishable),
                 [&](const SourceTable& table) { return without_identity(table, all).empty(); });
    std::string statement =
        create_publication_statement(question.publication, publishable, found.server.version) +
        ";  -- as the tables' owner";
    if (publishable.empty() || question.temporary)
      statement = "GRANT CREATE ON DATABASE " + quote_identifier(found.server.database) + " TO " +
                  quote_identifier(found.server.user) +
                  ";  -- and be the tables' owner, or a member of its role";
    if (!found.server.may_create)
      findings.problem(subject,
                       "It does not exist and role " + found.server.user + " may not create it.",
                       statement);
    else if (!foreign.empty() && !found.server.superuser)
      findings.problem(subject,
                       "It does not exist, and role " + found.server.user + " does not own " +
                           joined_names(foreign) + ", which only an owner can add.",
                       statement);
    else if (found.slot && !question.temporary)
      findings.warn(subject,
                    "It does not exist, though slot " + question.slot +
                        " does: a store that is fed from that slot halts.",
                    statement);
    else
      findings.fine(subject, question.temporary ? "It can be created."
                                                : "It does not exist; capture run creates it.");
  } else {
    compare_publication(difference, found, all, question, findings);
  }
  // Without --tables those of the publication are meant.
  any_match = any_match || (found.publication && !question.patterns.given());
  look_for_named_tables(any_match && !found.published().empty(), all, question, findings);
}

void look_at_tables(const Preflight& found, std::vector<SourceTable>& tables,
                    const std::vector<SourceTable>& all, const PreflightQuestion& question,
                    Findings& findings) {
  const bool updates =
      !found.publication || found.publication->updates || found.publication->deletes;
  std::vector<SourceTable> usable;
  for (const SourceTable& table : tables) {
    const std::string subject = "table " + table.name();
    const std::vector<SourceTable> lacking = without_identity(table, all);
    const bool identity_missing = updates && !lacking.empty();
    std::string fix;
    for (const SourceTable& part : lacking)
      fix += "ALTER TABLE " + part.quoted() + " REPLICA IDENTITY FULL; ";
    fix +=
        " -- or, better, give it a primary key (not a deferrable one); or leave it out with "
        "--tables '...,!" +
        table.schema_name + "." + table.table_name + "'";
    if (identity_missing && question.temporary)
      findings.warn(subject, "It has no replica identity and is left out.", fix);
    else if (identity_missing)
      findings.problem(subject,
                       "It has no primary key and no other replica identity: once published, "
                       "PostgreSQL would refuse "
                       "the application's updates and deletes of it.",
                       fix);
    if (!table.readable && !question.temporary)
      findings.problem(subject, "Role " + found.server.user + " may not read it.",
                       "GRANT USAGE ON SCHEMA " + quote_identifier(table.schema_name) + " TO " +
                           quote_identifier(found.server.user) + "; GRANT SELECT ON " +
                           table.quoted() + " TO " + quote_identifier(found.server.user) + ";");
    else if (!identity_missing && !weakness_of(table).empty())
      findings.warn(subject, std::string(weakness_of(table)),
                    "-- give it a primary key if it can have equal rows");
    else if (!identity_missing)
      findings.fine(subject, table.identity == ReplicaIdentity::kFull
                                 ? "Replica identity is FULL."
                                 : "It has a replica identity.");
    if (!(identity_missing && question.temporary)) usable.push_back(table);
  }
  tables = std::move(usable);
}

/// On one line of the log, and still to be pasted.
std::string on_one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  return text;
}

}  // namespace

bool is_meant(const SourceTable& table, const std::vector<SourceTable>& all,
              const TablePatterns& patterns) {
  if (patterns.match(table.schema_name, table.table_name)) return true;
  return table.root_oid != 0 && std::any_of(all.begin(), all.end(), [&](const SourceTable& root) {
           return root.oid == table.root_oid && patterns.match(root.schema_name, root.table_name);
         });
}

std::vector<SourceTable> without_identity(const SourceTable& table,
                                          const std::vector<SourceTable>& all) {
  std::vector<SourceTable> lacking;
  if (!table.partitioned) {
    if (!table.has_identity) lacking.push_back(table);
    return lacking;
  }
  for (const SourceTable& part : all)
    if (part.root_oid == table.oid && !part.partitioned && !part.has_identity)
      lacking.push_back(part);
  if (lacking.empty() && !table.has_identity) lacking.push_back(table);  // for partitions to come
  return lacking;
}

std::string_view weakness_of(const SourceTable& table) {
  if (table.identity != ReplicaIdentity::kFull || table.has_primary_key) return {};
  return "Replica identity is FULL and there is no primary key: rows that are equal in every "
         "column are one row to millrace, and go together when one of them is deleted.";
}

void Preflight::log_findings(bool problems_too) const {
  for (const Finding& finding : findings)
    if (finding.severity == Severity::kWarning ||
        (problems_too && finding.severity == Severity::kProblem))
      spdlog::warn("{}: {} {}", on_one_line(finding.subject), on_one_line(finding.message),
                   on_one_line(finding.fix));
}

std::vector<SourceTable> Preflight::published() const {
  std::vector<SourceTable> all = tables;
  all.insert(all.end(), outboxes.begin(), outboxes.end());
  return all;
}

Result<void> Preflight::require_no_problem(std::string_view subject) const {
  std::string message, fixes;
  for (const Finding& finding : findings) {
    if (finding.severity != Severity::kProblem || !finding.subject.starts_with(subject)) continue;
    message += (message.empty() ? "" : " ") + finding.subject + ": " + finding.message;
    fixes += (fixes.empty() ? "" : "\n  ") + finding.fix;
  }
  if (message.empty()) return {};
  return Error(ErrorCode::kFailedPrecondition, message).hint(fixes);
}

std::string create_publication_statement(const std::string& name,
                                         const std::vector<SourceTable>& tables,
                                         int server_version) {
  // Changes of partitions under their root's name: the root is the table that users know.
  const std::string options =
      server_version >= 130'000 ? " WITH (publish_via_partition_root = true)" : "";
  return "CREATE PUBLICATION " + quote_identifier(name) + " FOR TABLE " + joined_names(tables) +
         options;
}

std::string publication_mark(const TablePatterns& patterns) {
  return std::string(kMark) + std::string(kMarkTables) + patterns.text();
}

bool made_by_capture(const PublicationInfo& publication) {
  return publication.comment == kMark ||
         publication.comment.starts_with(std::string(kMark) + std::string(kMarkTables));
}

std::optional<TablePatterns> patterns_of(const PublicationInfo& publication) {
  if (!made_by_capture(publication) || publication.comment == kMark) return std::nullopt;
  auto patterns =
      TablePatterns::parse({publication.comment.substr(kMark.size() + kMarkTables.size())});
  if (!patterns) return std::nullopt;  // somebody wrote into it
  return *std::move(patterns);
}

std::string patterns_in_force(const std::optional<TablePatterns>& given,
                              const PublicationInfo& publication) {
  if (given) return given->text();
  const auto kept = patterns_of(publication);
  return kept ? kept->text() : "";
}

Result<void> make_publication(Catalog& catalog, const std::string& name,
                              const std::vector<SourceTable>& tables, const TablePatterns& patterns,
                              int server_version) {
  return catalog.execute(create_publication_statement(name, tables, server_version) +
                         "; COMMENT ON PUBLICATION " + quote_identifier(name) + " IS " +
                         quote_literal(publication_mark(patterns)));
}

Result<Preflight> run_preflight(Catalog& catalog, const PreflightQuestion& question) {
  Preflight found;
  Findings findings(found.findings);
  MILLRACE_ASSIGN_OR_RETURN(found.server, catalog.server());
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<SourceTable> all, catalog.tables());
  MILLRACE_ASSIGN_OR_RETURN(found.publication, catalog.publication(question.publication));
  MILLRACE_ASSIGN_OR_RETURN(found.slot, catalog.slot(question.slot));
  look_at_server(found.server, findings);
  look_at_slot(found, question, findings);
  // What mends the tables comes before what publishes them.
  std::vector<Finding> of_publication;
  Findings publication_findings(of_publication);
  look_for_outboxes(found, all, question, findings);
  look_at_publication(found, all, question, publication_findings);
  look_at_locks(found, all, question, findings);
  look_at_tables(found, found.tables, all, question, findings);
  look_at_tables(found, found.outboxes, all, question, findings);
  MILLRACE_RETURN_IF_ERROR(look_at_outbox_columns(catalog, found, question, findings));
  found.findings.insert(found.findings.end(), of_publication.begin(), of_publication.end());
  return found;
}

}  // namespace millrace
