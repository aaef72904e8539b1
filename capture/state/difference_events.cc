#include "capture/state/difference_events.h"

#include <algorithm>

#include "millrace/v1/change.pb.h"
#include "schemas/row_state.h"

namespace millrace {
namespace {

v1::Change change_of(v1::Change::Op op, std::uint32_t schema) {
  v1::Change change;
  change.set_op(op);
  change.set_schema(schema);
  return change;
}

Result<void> add(EventOut& out, std::string_view category, std::string_view key,
                 const v1::Change& change, EventFlags flags) {
  const std::string payload = change.SerializeAsString();
  return out.add({.category = category,
                  .key = key,
                  .type = {},
                  .payload = payload,
                  .metadata = {},
                  .flags = flags});
}

}  // namespace

DifferenceEvents::DifferenceEvents(EventOut& out, SchemaRegistry& schemas,
                                   const LiveRows::Table& table)
    : out_(out), schemas_(schemas), table_(table) {
  has_key_ = std::ranges::any_of(table.schema->columns, &ColumnSchema::key);
}

Result<void> DifferenceEvents::append(const FoundDifference& found) {
  switch (found.kind) {
    case RowDifferenceKind::kMissing: return append_row(found.key, found.live->row);
    case RowDifferenceKind::kGone:
      must_start_anew_ = must_start_anew_ || !has_key_;
      return has_key_ ? append_delete(found) : Result<void>();
    case RowDifferenceKind::kDifferent:
    case RowDifferenceKind::kIncomplete: return append_update(found);
  }
  return {};
}

Result<void> DifferenceEvents::append_row(std::string_view key, std::string_view row) {
  v1::Change change = change_of(v1::Change::READ, table_.schema->version);
  change.set_after(std::string(row));
  return add(out_, table_.schema->category, key, change, EventFlags::kNone);
}

Result<void> DifferenceEvents::append_update(const FoundDifference& found) {
  v1::Change change = change_of(v1::Change::UPDATE, table_.schema->version);
  if (table_.schema->replica_identity == ReplicaIdentity::kFull && found.stored->is_complete()) {
    MILLRACE_ASSIGN_OR_RETURN(*change.mutable_before(),
                              row_of_columns(found.stored->row, *table_.schema, false));
  }
  change.set_after(std::string(found.live->row));
  return add(out_, table_.schema->category, found.key, change, EventFlags::kNone);
}

/// In the version of the schema that the row was told in: its key may have had another type.
Result<void> DifferenceEvents::append_delete(const FoundDifference& found) {
  const std::string& category = table_.schema->category;
  MILLRACE_ASSIGN_OR_RETURN(const auto schema, schemas_.find(category, found.stored->schema));
  v1::Change change = change_of(v1::Change::DELETE, schema->version);
  const bool whole =
      table_.schema->replica_identity == ReplicaIdentity::kFull && found.stored->is_complete();
  MILLRACE_ASSIGN_OR_RETURN(*change.mutable_before(),
                            row_of_columns(found.stored->row, *schema, /*keys_only=*/!whole));
  change.set_before_is_key(!whole);
  for (std::uint64_t i = 0; i < found.times; ++i)
    MILLRACE_RETURN_IF_ERROR(add(out_, category, found.key, change, EventFlags::kTombstone));
  return {};
}

Result<void> DifferenceEvents::append_all(LiveRows& live) {
  MILLRACE_RETURN_IF_ERROR(add(out_, table_.schema->category, {},
                               change_of(v1::Change::TRUNCATE, table_.schema->version),
                               EventFlags::kCategoryTombstone));
  MILLRACE_RETURN_IF_ERROR(live.read(table_));
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const LiveRow* row, live.next());
    if (row == nullptr) return {};
    MILLRACE_RETURN_IF_ERROR(append_row(row->event_key, row->row));
  }
}

}  // namespace millrace
