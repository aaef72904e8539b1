#include "projections/engine/fold.h"

#include <google/protobuf/descriptor.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>

#include "base/bytes.h"
#include "base/check.h"
#include "projections/engine/envelope.h"
#include "projections/engine/event_envelope.h"
#include "projections/engine/row_check.h"

namespace millrace::projections {

Result<std::unique_ptr<Fold>> Fold::make(const View& view, sqlite::Database& database,
                                         SchemaRegistry& schemas, Checkpoint from) {
  std::unique_ptr<Fold> fold(new Fold(view, database, schemas, std::move(from)));
  MILLRACE_ASSIGN_OR_RETURN(fold->checkpoint_writer_, CheckpointWriter::make(database));
  MILLRACE_ASSIGN_OR_RETURN(fold->writer_, view.make_writer(database));
  for (const auto& source : view.sources()) {
    Table table{&source, source.make_applier(*fold->writer_)};
    if (source.is_events) {
      fold->tables_.push_back(std::move(table));
      continue;
    }
    const auto latest = schemas.latest(source.category);
    if (latest) {
      // Also where the program checked it at its start: a new shape may have come since.
      if (auto fits = check_row(*source.row, **latest); !fits)
        return std::move(fits).error().context("view " + view.name());
      table.checked_schema = (*latest)->version;
    } else if (latest.error().code() != ErrorCode::kNotFound) {
      return latest.error();
    }
    fold->tables_.push_back(std::move(table));
  }
  return fold;
}

Fold::Table* Fold::table_of(std::string_view category) {
  for (Table& table : tables_)
    if (table.source->category == category) return &table;
  return nullptr;
}

Result<void> Fold::apply(Batch& batch, Offset until) {
  while (const EventView* event = batch.next()) {
    if (event->offset < checkpoint_.offset) continue;
    if (event->offset >= until) break;
    const Offset after{event->offset.value + 1};
    if (auto applied = apply_event(*event, batch.info); !applied) [[unlikely]]
      return std::move(applied).error().context(
          "view " + view_.name() + ": event at offset " + std::to_string(event->offset.value) +
          " of " + printable(event->category) + ", key '" + printable(event->key) + "'");
    advance_to(after);
  }
  MILLRACE_RETURN_IF_ERROR(batch.status());
  if (batch.info.source.epoch != 0) {
    checkpoint_.source_epoch = batch.info.source.epoch;
    checkpoint_.source_lsn = batch.info.source.commit;
  }
  checkpoint_.commit_time = batch.info.commit_time;
  return {};
}

Result<void> Fold::apply_event(const EventView& event, const TransactionInfo& transaction) {
  Table* table = table_of(event.category);
  if (table == nullptr) return {};
  if (table->source->is_events) {
    MILLRACE_RETURN_IF_ERROR(decode_event(event, transaction, change_));
  } else {
    MILLRACE_RETURN_IF_ERROR(decode_change(event, transaction, change_));
    MILLRACE_RETURN_IF_ERROR(check_change(*table));
    if (change_.schema != table->keyed_schema) [[unlikely]]
      MILLRACE_RETURN_IF_ERROR(tell_key(*table));
  }
  ++checkpoint_.events;
  try {
    return table->applier->apply(change_);
  } catch (const std::exception& thrown) {
    return Error(ErrorCode::kFailedPrecondition,
                 std::string("its function threw: ") + thrown.what())
        .hint("The view stays as it was before this event. Mend the function, then start again.");
  } catch (...) {
    return Error(ErrorCode::kFailedPrecondition, "its function threw what is no std::exception")
        .hint("The view stays as it was before this event. Mend the function, then start again.");
  }
}

Result<void> Fold::check_change(Table& table) const {
  if (change_.schema != table.checked_schema) [[unlikely]]
    MILLRACE_RETURN_IF_ERROR(check_schema(table));
  const bool had_a_row = change_.op == Op::kUpdate || change_.op == Op::kDelete;
  if (table.source->needs_old_rows && had_a_row && (!change_.before || change_.before_is_key))
      [[unlikely]]
    return Error(ErrorCode::kFailedPrecondition,
                 "it came without the old row, which the view needs")
        .hint("It was written while the table was not REPLICA IDENTITY FULL.");
  return {};
}

Result<void> Fold::tell_key(Table& table) {
  if (table.source->needs_key) {
    MILLRACE_ASSIGN_OR_RETURN(const auto schema,
                              schemas_.find(table.source->category, change_.schema));
    std::string columns;
    for (const ColumnSchema& column : schema->columns)
      if (column.key) columns += (columns.empty() ? "" : ", ") + column.name;
    MILLRACE_RETURN_IF_ERROR(writer_->keyed_by(change_, columns));
  }
  table.keyed_schema = change_.schema;
  return {};
}

/// A newer shape than the one that make() checked must still be readable. An older one always
/// is, but the values of a column that had another type then are in a field that the program does
/// not have.
Result<void> Fold::check_schema(Table& table) const {
  const std::uint32_t version = change_.schema;
  if (version < table.checked_schema &&
      std::ranges::find(table.older_seen, version) != table.older_seen.end())
    return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto schema, schemas_.find(table.source->category, version));
  if (version > table.checked_schema) {
    MILLRACE_RETURN_IF_ERROR(check_row(*table.source->row, *schema));
    table.checked_schema = version;
    return {};
  }
  table.older_seen.push_back(version);
  for (const auto& column : schema->columns) {
    const auto* field = table.source->row->FindFieldByName(column.name);
    if (field != nullptr && static_cast<std::uint32_t>(field->number()) != column.field)
      spdlog::warn(
          "view {}: column {} of {} had another type when event {} was written (schema version "
          "{}); the "
          "program sees null in its place",
          view_.name(), printable(column.name), printable(table.source->category),
          change_.offset.value, version);
  }
  return {};
}

void Fold::advance_to(Offset end) { checkpoint_.offset = std::max(checkpoint_.offset, end); }

Result<void> Fold::commit() {
  writer_->flush();
  if (writer_->failed()) return writer_->take_failure().context("view " + view_.name());
  MILLRACE_RETURN_IF_ERROR(writer_->before_commit(checkpoint_.offset));
  return commit_part();
}

Result<void> Fold::commit_part() {
  MILLRACE_RETURN_IF_ERROR(checkpoint_writer_.write(checkpoint_));
  MILLRACE_RETURN_IF_ERROR(database_.commit());
  committed_ = checkpoint_;
  return {};
}

Result<void> Fold::release() {
  MILLRACE_CHECK(!has_written());
  return database_.commit();
}

void Fold::rollback() {
  database_.rollback();
  checkpoint_ = committed_;
}

}  // namespace millrace::projections
