#include "capture/postgres/replication.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>

#include "base/bytes.h"
#include "base/sql_text.h"

namespace millrace {
namespace {

Result<PostgresConnection::Row> only_row(Result<std::vector<PostgresConnection::Row>> rows,
                                         std::size_t columns) {
  if (!rows) return std::move(rows).error();
  if (rows->size() != 1 || rows->front().size() < columns)
    return Error(ErrorCode::kUnsupported,
                 "the server's answer has another shape than PostgreSQL's");
  return std::move(rows->front());
}

}  // namespace

Result<void> require_slot_name(std::string_view name) {
  const bool good =
      !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
      });
  if (good) return {};
  return Error(ErrorCode::kInvalidArgument, "'" + printable(name) + "' can't be a slot's name")
      .hint("PostgreSQL takes 1 to 63 of a-z, 0-9 and _.");
}

Result<SystemIdentity> identify_system(PostgresConnection& connection) {
  MILLRACE_ASSIGN_OR_RETURN(const auto row, only_row(connection.query("IDENTIFY_SYSTEM"), 4));
  MILLRACE_ASSIGN_OR_RETURN(const Lsn flushed, parse_lsn(row[2].value_or("")));
  return SystemIdentity{.system_id = row[0].value_or(""),
                        .timeline = static_cast<std::uint32_t>(
                            std::strtoul(row[1].value_or("0").c_str(), nullptr, 10)),
                        .flushed = flushed,
                        .database = row[3].value_or("")};
}

Result<std::optional<Lsn>> end_of_timeline(PostgresConnection& connection, std::uint32_t timeline,
                                           std::uint32_t earlier) {
  if (timeline <= earlier) return std::optional<Lsn>();
  MILLRACE_ASSIGN_OR_RETURN(
      const auto row,
      only_row(connection.query("TIMELINE_HISTORY " + std::to_string(timeline)), 2));
  // A line each: "1<tab>0/3000158<tab>no recovery target specified".
  std::istringstream lines(row[1].value_or(""));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::uint32_t number = 0;
    std::string lsn;
    if (!(fields >> number >> lsn) || number != earlier) continue;
    MILLRACE_ASSIGN_OR_RETURN(const Lsn end, parse_lsn(lsn));
    return std::optional(end);
  }
  return std::optional<Lsn>();
}

Result<NewSlot> create_temporary_slot(PostgresConnection& connection, Catalog& catalog,
                                      const std::string& slot, bool export_snapshot) {
  MILLRACE_ASSIGN_OR_RETURN(const auto waiting_for, catalog.running_transactions());
  for (const std::string& transaction : waiting_for)
    spdlog::info("the slot can begin once this transaction has ended: {}", printable(transaction));
  auto made =
      only_row(connection.query("CREATE_REPLICATION_SLOT " + quote_identifier(slot) +
                                " TEMPORARY LOGICAL pgoutput " +
                                (export_snapshot ? "EXPORT_SNAPSHOT" : "NOEXPORT_SNAPSHOT")),
               3);
  if (!made) return std::move(made).error().context("create replication slot " + slot);
  MILLRACE_ASSIGN_OR_RETURN(const Lsn consistent_point, parse_lsn((*made)[1].value_or("")));
  return NewSlot{
      .name = slot, .consistent_point = consistent_point, .snapshot_name = (*made)[2].value_or("")};
}

std::string plugin_arguments(int server_version, const std::string& publication) {
  const std::string options = server_version >= 140'000 ? "'proto_version', '2', 'messages', 'true'"
                                                        : "'proto_version', '1'";
  return options + ", 'publication_names', " + quote_literal(quote_identifier(publication));
}

std::optional<std::string> failover_command(const std::string& slot, int server_version) {
  if (server_version < 170'000) return std::nullopt;
  return "ALTER_REPLICATION_SLOT " + quote_identifier(slot) + " (FAILOVER true)";
}

void enable_failover(PostgresConnection& walsender, const std::string& slot) {
  const auto command = failover_command(slot, walsender.server_version());
  if (!command) return;
  if (auto done = walsender.query(*command); !done)
    spdlog::warn("slot {} does not follow a failover to a standby: {}", slot,
                 printable(done.error().message(), 500));
}

Result<void> start_replication(PostgresConnection& connection, const std::string& slot, Lsn from,
                               const std::string& publication, InProgress in_progress,
                               ValueForm form) {
  const bool options_of_14 = connection.server_version() >= 140'000;
  std::string options = options_of_14 ? "proto_version '2', messages 'true'" : "proto_version '1'";
  if (options_of_14 && in_progress == InProgress::kStreamed) options += ", streaming 'on'";
  if (connection.server_version() >= kBinaryServerMin && form == ValueForm::kBinary)
    options += ", binary 'true'";
  return connection.start_copy_both(
      "START_REPLICATION SLOT " + quote_identifier(slot) + " LOGICAL " + to_string(from) + " (" +
      options + ", publication_names " + quote_literal(quote_identifier(publication)) + ")");
}

Result<void> begin_snapshot(PostgresConnection& connection, const std::vector<SourceTable>& tables,
                            const NewSlot& slot) {
  MILLRACE_RETURN_IF_ERROR(connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"));
  MILLRACE_RETURN_IF_ERROR(
      connection.query("SET TRANSACTION SNAPSHOT " + quote_literal(slot.snapshot_name)));
  for (const SourceTable& table : tables)
    MILLRACE_RETURN_IF_ERROR(
        connection.query("LOCK TABLE " + table.quoted() + " IN ACCESS SHARE MODE"));
  return {};
}

}  // namespace millrace
