#include "capture/state/live_rows.h"

#include <cstdlib>

#include "base/bytes.h"
#include "base/progress.h"
#include "capture/keyed_state.h"
#include "capture/postgres/replication.h"
#include "capture/postgres/table_reader.h"
#include "schemas/row_state.h"

namespace millrace {
namespace {

constexpr std::uint64_t kProgressRows = 4096;

}  // namespace

LiveRows::LiveRows(PostgresConnection& connection, Catalog& catalog, SchemaRegistry& schemas,
                   Path spill_folder, std::size_t memory_bytes)
    : connection_(connection),
      catalog_(catalog),
      schemas_(schemas),
      sorter_(std::move(spill_folder), memory_bytes),
      encoder_(schemas, catalog, catcher_) {}

Result<LiveRows::Table> LiveRows::learn(const SourceTable& source, const std::string& publication,
                                        Lsn lsn) {
  Table table{.source = source, .shape = {}, .schema = {}};
  MILLRACE_ASSIGN_OR_RETURN(table.shape, catalog_.shape(source, publication));
  MILLRACE_RETURN_IF_ERROR(encoder_.relation(relation_of(source, table.shape.columns), lsn));
  MILLRACE_ASSIGN_OR_RETURN(table.schema, schemas_.latest(source.name()));
  bool has_key = false;
  for (const ColumnSchema& column : table.schema->columns) has_key = has_key || column.key;
  table.rows_are_keys =
      !has_key || (source.identity == ReplicaIdentity::kFull && !source.has_primary_key);
  return table;
}

/// Value where rows are keys: varint(event key size) event key row; else the row.
Result<void> LiveRows::Catcher::add(const NewEvent& event) {
  MILLRACE_ASSIGN_OR_RETURN(const RowChange change, read_row_change(event.payload));
  if (!table->rows_are_keys)
    return sorter->add(
        {.key = event.key, .order = rows, .replaces = false, .value = *change.after});
  MILLRACE_ASSIGN_OR_RETURN(const std::string plain,
                            row_of_columns(*change.after, *table->schema, /*keys_only=*/false));
  buffer_.clear();
  append_varint(buffer_, event.key.size());
  buffer_ += event.key;
  buffer_ += plain;
  return sorter->add(
      {.key = key_of_row(plain), .order = rows, .replaces = false, .value = buffer_});
}

Result<std::uint64_t> LiveRows::read(const Table& table) {
  MILLRACE_RETURN_IF_ERROR(sorter_.clear());
  rows_are_keys_ = table.rows_are_keys;
  catcher_.sorter = &sorter_;
  catcher_.table = &table;
  catcher_.rows = 0;
  MILLRACE_ASSIGN_OR_RETURN(
      const auto estimate,
      connection_.query("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = " +
                        std::to_string(table.source.oid)));
  const std::uint64_t total =
      estimate.empty() ? 0 : std::strtoull(estimate[0][0].value_or("0").c_str(), nullptr, 10);
  Progress progress("read " + table.source.name(), total, ProgressUnit::kEvents);
  auto copied = connection_.copy_out(
      copy_statement(table.source, table.shape), [&](std::string_view line) -> Result<void> {
        MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Tuple* row,
                                  parser_.parse(line, table.shape.columns.size()));
        if (++catcher_.rows % kProgressRows == 0) progress.update(catcher_.rows);
        return encoder_.read(table.source.oid, *row, Lsn{});
      });
  if (!copied) return std::move(copied).error().context("read the rows of " + table.source.name());
  return catcher_.rows;
}

Result<const LiveRow*> LiveRows::next() {
  MILLRACE_ASSIGN_OR_RETURN(const SpillSorter::Record* record, sorter_.next());
  if (record == nullptr) return nullptr;
  ByteReader in(record->value);
  row_.key = record->key;
  row_.event_key = rows_are_keys_ ? in.bytes(in.varint()) : record->key;
  row_.row = in.bytes(in.remaining());
  return &row_;
}

}  // namespace millrace
