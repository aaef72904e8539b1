#include "schemas/rendering/row.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/bytes.h"
#include "schemas/rendering/json_string.h"
#include "schemas/rendering/pg_text.h"
#include "schemas/rendering/stored_value.h"

namespace millrace::rendering {
namespace {

constexpr std::int64_t kJsonIntegerMax = std::int64_t{1} << 53;  // beyond, a double has gaps

template <typename Int>
void append_integer(Int value, std::string& out) {
  char digits[20];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// Each of these appends one value of `kind`, or gives false where the bytes are none.
bool append_int32(ValueKind kind, std::uint64_t varint, std::string& out) {
  const std::int64_t value = unzigzag(varint);
  if (value != static_cast<std::int32_t>(value)) return false;
  if (kind != ValueKind::kDate) return append_integer(value, out), true;
  out += '"';
  append_date(static_cast<std::int32_t>(value), out);
  out += '"';
  return true;
}

bool append_int64(ValueKind kind, std::uint64_t varint, std::string& out) {
  const std::int64_t value = unzigzag(varint);
  const bool quoted =
      kind != ValueKind::kInt64 || value > kJsonIntegerMax || value < -kJsonIntegerMax;
  if (kind == ValueKind::kTime && (value < 0 || value > kMicrosPerDay)) return false;
  if (quoted) out += '"';
  switch (kind) {
    case ValueKind::kTime: append_time(value, out); break;
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz:
      append_timestamp(value, kind == ValueKind::kTimestampTz, DateTimeStyle::kJson, out);
      break;
    default: append_integer(value, out);
  }
  if (quoted) out += '"';
  return true;
}

bool append_varint_value(ValueKind kind, std::uint64_t varint, std::string& out) {
  switch (kind) {
    case ValueKind::kBool: out += varint != 0 ? "true" : "false"; return varint <= 1;
    case ValueKind::kUInt32:
      append_integer(varint, out);
      return varint <= std::numeric_limits<std::uint32_t>::max();
    case ValueKind::kInt32:
    case ValueKind::kDate: return append_int32(kind, varint, out);
    default: return append_int64(kind, varint, out);
  }
}

template <typename Float>
void append_float_value(Float value, std::string& out) {
  const bool quoted = !std::isfinite(value);
  if (quoted) out += '"';
  if constexpr (sizeof(Float) == 4)
    append_float(value, out);
  else
    append_double(value, out);
  if (quoted) out += '"';
}

void append_string_value(ValueKind kind, std::string_view text, std::string& out) {
  if (kind == ValueKind::kBytes)
    append_json_base64(text, out);
  else if (kind == ValueKind::kJson && is_json(text))
    append_json_verbatim(text, out);
  else
    append_json_text(text, out);
}

bool append_time_tz_value(std::string_view bytes, std::string& out) {
  const auto value = read_time_tz(bytes);
  if (!value) return false;
  out += '"';
  append_time_tz(value->micros, value->offset_seconds, out);
  out += '"';
  return true;
}

bool append_interval_value(std::string_view bytes, std::string& out) {
  const auto value = read_interval(bytes);
  if (!value) return false;
  out += '"';
  if (value->infinity != 0)
    out += value->infinity > 0 ? "infinity" : "-infinity";
  else
    append_interval(value->months, value->days, value->micros, out);
  out += '"';
  return true;
}

bool append_scalar(ValueKind kind, const WireField& field, std::string& out) {
  if (field.type != wire_type_of(kind)) return false;
  switch (field.type) {
    case WireType::kVarint: return append_varint_value(kind, field.number_value, out);
    case WireType::kFixed32:
      append_float_value(std::bit_cast<float>(static_cast<std::uint32_t>(field.number_value)), out);
      return true;
    case WireType::kFixed64:
      append_float_value(std::bit_cast<double>(field.number_value), out);
      return true;
    case WireType::kBytes: break;
  }
  if (kind == ValueKind::kTimeTz) return append_time_tz_value(field.bytes, out);
  if (kind == ValueKind::kInterval) return append_interval_value(field.bytes, out);
  append_string_value(kind, field.bytes, out);
  return true;
}

bool append_array(ValueKind kind, std::string_view bytes, std::string& out) {
  if (const auto text = whole_array(bytes)) return append_json_text(*text, out), true;
  using Item = ArrayWalker::Item;
  ArrayWalker array(kind, bytes);
  out += '[';
  for (bool first = true;; first = false) {
    const Item item = array.next();
    if (item == Item::kEnd) break;
    if (item == Item::kInvalid) return false;
    if (!first) out += ',';
    if (item == Item::kNull)
      out += "null";
    else if (!append_scalar(kind, array.element(), out))
      return false;
  }
  out += ']';
  return true;
}

}  // namespace

Result<void> Row::read(const TableSchema& schema, std::string_view bytes) {
  const std::size_t columns = schema.columns.size();
  fields_.assign(columns, WireField{});
  ByteReader in(bytes);
  std::size_t index = 0;  // fields come in the order of the columns, so the next one is near
  for (WireField field; next_field(in, field);) {
    std::size_t tried = 0;
    while (tried < columns && schema.columns[index].field != field.number)
      index = index + 1 == columns ? 0 : index + 1, ++tried;
    if (tried == columns || fields_[index].number != 0)
      return Error(ErrorCode::kCorruption,
                   "a row has field " + std::to_string(field.number) +
                       (tried == columns ? ", which its schema does not have" : " twice"));
    fields_[index] = field;
  }
  if (in.failed())
    return Error(ErrorCode::kCorruption, "a row ends too early or is no Protobuf message");
  return {};
}

Result<void> append_value(const ColumnSchema& column, const WireField& field, std::string& out) {
  const bool fine = column.array ? field.type == WireType::kBytes &&
                                       append_array(element_kind(column.kind), field.bytes, out)
                                 : append_scalar(column.kind, field, out);
  if (fine) [[likely]]
    return {};
  return Error(ErrorCode::kCorruption,
               "column \"" + printable(column.name) + "\" holds no value of its kind, " +
                   std::string(name_of(column.kind)) + (column.array ? " array" : ""));
}

}  // namespace millrace::rendering
