#include "capture/pipeline/outbox.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "capture/pgoutput/text_value.h"
#include "eventstore/event_metadata.h"
#include "schemas/row_text.h"

namespace millrace {
namespace {

using pgoutput::Field;
using pgoutput::FieldState;

constexpr std::size_t kKeptBytesMax = 1 << 20;

bool is_name(ValueKind kind) { return kind == ValueKind::kText || kind == ValueKind::kEnum; }
bool is_payload(ValueKind kind) {
  return kind == ValueKind::kText || kind == ValueKind::kJson || kind == ValueKind::kBytes;
}
bool is_key(ValueKind kind) {
  return kind == ValueKind::kText || kind == ValueKind::kUuid || kind == ValueKind::kInt32 ||
         kind == ValueKind::kInt64 || kind == ValueKind::kNumeric || kind == ValueKind::kBytes ||
         kind == ValueKind::kEnum;
}

bool is_utf8(std::string_view text) {
  try {
    static_cast<void>(nlohmann::json(std::string(text)).dump());
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

}  // namespace

const std::array<std::string_view, OutboxTable::kColumns> OutboxTable::kNames = {
    "id", "aggregatetype", "aggregateid", "type", "payload"};

std::vector<std::string> outbox_faults(const std::vector<ColumnSchema>& columns) {
  std::vector<std::string> faults;
  for (std::size_t i = 0; i < OutboxTable::kNames.size(); ++i) {
    const std::string name(OutboxTable::kNames[i]);
    const auto found = std::ranges::find(columns, name, &ColumnSchema::name);
    if (found == columns.end()) {
      faults.push_back("column " + name + " is missing.");
      continue;
    }
    const bool names = i == OutboxTable::kAggregateType || i == OutboxTable::kType;
    const bool payload = i == OutboxTable::kPayload;
    const bool fits = !found->array && (names     ? is_name(found->kind)
                                        : payload ? is_payload(found->kind)
                                                  : is_key(found->kind));
    if (!fits)
      faults.push_back("column " + name + " is of type " + found->type_name + ", not " +
                       (names     ? "text, varchar or an enum."
                        : payload ? "json, jsonb, text or bytea."
                                  : "text, uuid, an integer, numeric or bytea."));
  }
  return faults;
}

OutboxTable::OutboxTable(TableSchema schema, std::vector<pgoutput::BinaryType> binary)
    : schema_(std::move(schema)),
      binary_(std::move(binary)),
      faults_(outbox_faults(schema_.columns)) {
  for (std::size_t i = 0; i < schema_.columns.size(); ++i) {
    schema_.columns[i].field = static_cast<std::uint32_t>(i + 1);
    const auto name = std::ranges::find(kNames, schema_.columns[i].name);
    if (name != kNames.end()) places_[static_cast<std::size_t>(name - kNames.begin())] = i;
  }
}

/// By way of the field of a row message where the wire's form is another one.
Result<void> OutboxTable::append(std::size_t column, const Field& field, std::string& out) {
  const ColumnSchema& schema = schema_.columns[column];
  const bool bytes = schema.kind == ValueKind::kBytes && !schema.array;
  if (field.state == FieldState::kText && !bytes) {
    out += field.value;
    return {};
  }
  field_.clear();
  MILLRACE_RETURN_IF_ERROR(
      field.state == FieldState::kText
          ? pgoutput::append_text_value(schema, field.value, field_)
          : pgoutput::append_binary_value(schema, binary_[column], field.value, field_));
  if (!bytes) return append_value_text(schema, field_, out);
  ByteReader in(field_);
  in.varint();  // tag
  out += in.bytes(in.varint());
  if (in.failed() || in.remaining() != 0)
    return Error(ErrorCode::kCorruption, "a bytea value of impossible length");
  return {};
}

Result<void> OutboxTable::read(const pgoutput::Tuple& row) {
  if (row.size() != schema_.columns.size())
    return Error(ErrorCode::kCorruption, "a row of " + std::to_string(row.size()) +
                                             " columns for outbox " + printable(schema_.category) +
                                             ", which has " +
                                             std::to_string(schema_.columns.size()));
  for (std::size_t i = 0; i < kColumns; ++i) {
    if (values_[i].capacity() > kKeptBytesMax) std::string().swap(values_[i]);
    values_[i].clear();
    is_null_[i] = !places_[i] || row[*places_[i]].state == FieldState::kNull;
    if (is_null_[i]) continue;
    if (auto read = append(*places_[i], row[*places_[i]], values_[i]); !read)
      return std::move(read).error().context("outbox " + printable(schema_.category));
  }
  return {};
}

std::optional<std::string_view> OutboxTable::value(Column column) const {
  if (is_null_[column]) return std::nullopt;
  return values_[column];
}

Result<EventAddress> OutboxTable::address() const {
  if (!faults_.empty()) return Error(ErrorCode::kInvalidArgument, faults_.front());
  for (const Column column : {kAggregateType, kAggregateId, kType})
    if (is_null_[column])
      return Error(ErrorCode::kInvalidArgument, std::string(kNames[column]) + " is null");
  return EventAddress{
      .type = values_[kType], .category = values_[kAggregateType], .key = values_[kAggregateId]};
}

std::string OutboxTable::metadata() const {
  return encode_metadata({.event_id = value(kId).value_or(std::string_view())});
}

Result<std::string> OutboxTable::as_json(const pgoutput::Tuple& row) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (std::size_t i = 0; i < row.size(); ++i) {
    const std::string& name = schema_.columns[i].name;
    if (row[i].state == FieldState::kNull) {
      json[name] = nullptr;
      continue;
    }
    std::string text;
    MILLRACE_RETURN_IF_ERROR(append(i, row[i], text));
    if (is_utf8(text))
      json[name] = std::move(text);
    else
      json[name + "_hex"] = to_hex(text);
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace millrace
