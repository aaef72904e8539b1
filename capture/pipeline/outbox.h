#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "capture/pgoutput/binary_value.h"
#include "capture/pgoutput/message.h"
#include "capture/pipeline/application_events.h"
#include "schemas/table_schema.h"

namespace millrace {

/// What keeps a table with these columns from being an outbox, a sentence each: columns that are
/// missing, and types that can't be what they should. Only name, kind, array and type_name are
/// looked at.
std::vector<std::string> outbox_faults(const std::vector<ColumnSchema>& columns);

/// A table into which an application writes its domain events, one a row, with the columns that are
/// usual for that: `aggregatetype` is the event's category, `aggregateid` its key, `type` its type,
/// `payload` its payload and `id` its event id. Others do not matter. Payload and keys of type
/// bytea are the bytes; everything else is PostgreSQL's text. A null `payload` is an empty one, a
/// null `id` none. Threads: one.
class OutboxTable {
 public:
  /// `binary`: how each column looks if it comes so.
  OutboxTable(TableSchema schema, std::vector<pgoutput::BinaryType> binary);

  const TableSchema& schema() const { return schema_; }
  /// The row's values are then what event() and message() tell of. Errors: kInvalidArgument,
  /// kCorruption (no value of its column's type), kUnsupported (must come as text).
  Result<void> read(const pgoutput::Tuple& row);
  /// The event that the row is: views into this object until the next read(). Errors:
  /// kInvalidArgument (a value is null, or the table is no outbox any more: outbox_faults()).
  Result<EventAddress> address() const;
  std::string_view payload() const { return value(kPayload).value_or(std::string_view()); }
  std::string metadata() const;
  /// All of `row` as JSON, for one that is no event. Errors: as read().
  Result<std::string> as_json(const pgoutput::Tuple& row);

 private:
  enum Column : std::uint8_t { kId, kAggregateType, kAggregateId, kType, kPayload, kColumns };
  static const std::array<std::string_view, kColumns> kNames;
  friend std::vector<std::string> outbox_faults(const std::vector<ColumnSchema>& columns);

  Result<void> append(std::size_t column, const pgoutput::Field& field, std::string& out);
  std::optional<std::string_view> value(Column column) const;

  TableSchema schema_;
  std::vector<pgoutput::BinaryType> binary_;
  std::vector<std::string> faults_;
  std::array<std::optional<std::size_t>, kColumns> places_;  // in the row
  std::array<std::string, kColumns> values_;
  std::array<bool, kColumns> is_null_{};
  std::string field_;
};

}  // namespace millrace
