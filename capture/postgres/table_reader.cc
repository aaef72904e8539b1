#include "capture/postgres/table_reader.h"

#include <algorithm>
#include <cstdlib>

#include "base/sql_text.h"

namespace millrace {
namespace {

std::string ctid(RowPlace place) {
  return "'(" + std::to_string(place.value >> 16) + "," + std::to_string(place.value & 0xffff) +
         ")'::pg_catalog.tid";
}

constexpr RowPlace kEnd = RowPlace::page(0xffff'ffff);  // no page has this number

/// The columns of a key's text: see ChangeEncoder. A single column is not escaped.
std::vector<std::string> columns_of(std::string_view key, std::size_t count) {
  if (count == 1) return {std::string(key)};
  std::vector<std::string> columns(1);
  for (std::size_t i = 0; i < key.size(); ++i) {
    if (key[i] == ',') {
      columns.emplace_back();
    } else {
      if (key[i] == '\\' && i + 1 < key.size()) ++i;
      columns.back() += key[i];
    }
  }
  return columns;
}

}  // namespace

Result<std::vector<TablePart>> read_parts(PostgresConnection& connection,
                                          const SourceTable& table) {
  const std::string oid = std::to_string(table.oid);
  MILLRACE_ASSIGN_OR_RETURN(
      const auto rows,
      connection.query(
          "SELECT c.oid, n.nspname, c.relname, coalesce(pg_relation_filenode(c.oid), 0),"
          " pg_relation_size(c.oid) / current_setting('block_size')::bigint, pg_table_size(c.oid),"
          " greatest(c.reltuples, 0)::bigint"
          " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
          // An array: by a join the server would look at all of pg_class for each table.
          " WHERE c.relkind = 'r' AND c.oid = ANY (ARRAY(SELECT relid::oid FROM "
          "pg_partition_tree(" +
          oid + ") UNION SELECT " + oid + "::oid)) ORDER BY c.oid"));
  std::vector<TablePart> parts;
  for (const auto& row : rows) {
    const auto number = [&](std::size_t column) {
      return std::strtoull(row[column].value_or("0").c_str(), nullptr, 10);
    };
    TablePart& part = parts.emplace_back();
    part.oid = static_cast<std::uint32_t>(number(0));
    part.quoted =
        quote_identifier(row[1].value_or("")) + "." + quote_identifier(row[2].value_or(""));
    part.file = static_cast<std::uint32_t>(number(3));
    part.pages = static_cast<std::uint32_t>(number(4));
    part.page_bytes = number(5) / std::max<std::uint32_t>(part.pages, 1);
    part.rows = number(6);
  }
  return parts;
}

Result<Catalog::TableShape> read_shape(PostgresConnection& connection, const SourceTable& table,
                                       const std::string& publication) {
  MILLRACE_ASSIGN_OR_RETURN(
      const auto rows,
      connection.query(table_shape_query(table.oid, publication, connection.server_version())));
  Catalog::TableShape shape;
  for (const auto& row : rows) {
    shape.columns.push_back({.name = row[0].value_or(""),
                             .type_oid = static_cast<std::uint32_t>(
                                 std::strtoul(row[1].value_or("0").c_str(), nullptr, 10)),
                             .type_modifier = static_cast<std::int32_t>(
                                 std::strtol(row[2].value_or("-1").c_str(), nullptr, 10)),
                             .identity = row[3] == "t"});
    shape.row_filter = row[4].value_or("");
  }
  return shape;
}

pgoutput::Relation relation_of(const SourceTable& table, const std::vector<SourceColumn>& columns) {
  pgoutput::Relation relation{.oid = table.oid,
                              .schema_name = table.schema_name,
                              .table_name = table.table_name,
                              .replica_identity = static_cast<char>(table.identity),
                              .columns = {}};
  for (const SourceColumn& column : columns)
    relation.columns.push_back({.key = column.identity,
                                .name = column.name,
                                .type_oid = column.type_oid,
                                .type_modifier = column.type_modifier});
  return relation;
}

std::string copy_statement(const SourceTable& table, const Catalog::TableShape& shape) {
  std::string list;
  for (const SourceColumn& column : shape.columns)
    list += (list.empty() ? "" : ", ") + quote_identifier(column.name);
  if (!table.partitioned && shape.row_filter.empty() && !list.empty())
    return "COPY " + table.quoted() + " (" + list + ") TO STDOUT";
  return "COPY (SELECT " + list + " FROM " + (table.partitioned ? "" : "ONLY ") + table.quoted() +
         (shape.row_filter.empty() ? "" : " WHERE " + shape.row_filter) + ") TO STDOUT";
}

pgoutput::Relation TableReader::relation() const { return relation_of(table_, shape_.columns); }

std::string TableReader::select(const TablePart& part, const RowSelection& rows) const {
  std::string columns, where;
  for (const SourceColumn& column : shape_.columns)
    columns += (columns.empty() ? "" : ", ") + quote_identifier(column.name);
  const auto add = [&](const std::string& condition) {
    where += (where.empty() ? " WHERE " : " AND ") + condition;
  };
  // A range of ctids is read as such, without looking at the pages around it, from PostgreSQL 14
  // on.
  if (rows.from > RowPlace{}) add("ctid >= " + ctid(rows.from));
  if (rows.to < kEnd) add("ctid < " + ctid(rows.to));
  if (!shape_.row_filter.empty()) add("(" + shape_.row_filter + ")");
  if (!rows.condition.empty()) add("(" + rows.condition + ")");
  const bool with_partitions = table_.partitioned && part.oid == table_.oid;
  return "SELECT " + columns + " FROM " + (with_partitions ? "" : "ONLY ") + part.quoted + where;
}

Result<void> TableReader::check(PostgresConnection& connection, const TablePart& part) const {
  MILLRACE_RETURN_IF_ERROR(connection.query(select(part, {}) + " LIMIT 0"));
  return {};
}

Result<void> TableReader::copy(PostgresConnection& connection, const TablePart& part,
                               const RowSelection& rows, const OnRow& on_row) {
  const std::string statement = "COPY (" + select(part, rows) + ") TO STDOUT";
  if (binary_) return copy_binary(connection, statement + " (FORMAT binary)", on_row);
  return connection.copy_out(statement, [&](std::string_view line) -> Result<void> {
    MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Tuple* fields, parse(line));
    return on_row(line, *fields);
  });
}

Result<void> TableReader::copy_binary(PostgresConnection& connection, const std::string& statement,
                                      const OnRow& on_row) {
  binary_rows_ = {};
  MILLRACE_RETURN_IF_ERROR(connection.send_copy_out(statement));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const auto message, connection.next_copied());
    if (!message) break;
    binary_rows_.feed(*message);
    for (;;) {
      MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Tuple* fields,
                                binary_rows_.next(shape_.columns.size()));
      if (fields == nullptr) break;
      MILLRACE_RETURN_IF_ERROR(on_row(binary_rows_.row(), *fields));
    }
  }
  if (!binary_rows_.ended())
    return Error(ErrorCode::kCorruption, "the binary COPY of " + table_.name() + " has no end");
  return {};
}

Result<const pgoutput::Tuple*> TableReader::parse(std::string_view row) {
  return binary_ ? binary_rows_.parse(row, shape_.columns.size())
                 : text_.parse(row, shape_.columns.size());
}

std::string TableReader::condition_of(const std::vector<std::string>& keys) const {
  std::string names;
  std::size_t count = 0;
  for (const SourceColumn& column : shape_.columns)
    if (column.identity) {
      names += (count++ == 0 ? "" : ", ") + quote_identifier(column.name);
    }
  std::string list;
  for (const std::string& key : keys) {
    list += list.empty() ? "(" : ", (";
    const std::vector<std::string> columns = columns_of(key, count);
    for (std::size_t i = 0; i < columns.size(); ++i)
      list += (i == 0 ? "" : ", ") + quote_literal(columns[i]);
    list += ")";
  }
  return "(" + names + ") IN (" + list + ")";
}

}  // namespace millrace
