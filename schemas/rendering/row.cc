#include "schemas/rendering/row.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/bytes.h"
#include "schemas/rendering/json_string.h"
#include "schemas/rendering/pg_text.h"

namespace millrace::rendering {
namespace {

constexpr std::int64_t kJsonIntegerMax = std::int64_t{1} << 53;  // beyond, a double has gaps
constexpr std::int64_t kMicrosPerDay = 86'400'000'000;
constexpr std::int32_t kZoneSecondsMax = 16 * 3600;

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

/// millrace.v1.TimeTz
bool append_time_tz_value(std::string_view bytes, std::string& out) {
  std::int64_t micros = 0, offset = 0;
  ByteReader in(bytes);
  for (WireField field; next_field(in, field);) {
    if (field.type != WireType::kVarint || field.number > 2) return false;
    (field.number == 1 ? micros : offset) = unzigzag(field.number_value);
  }
  if (in.failed() || micros < 0 || micros > kMicrosPerDay || offset <= -kZoneSecondsMax ||
      offset >= kZoneSecondsMax)
    return false;
  out += '"';
  append_time_tz(micros, static_cast<std::int32_t>(offset), out);
  out += '"';
  return true;
}

/// millrace.v1.Interval
bool append_interval_value(std::string_view bytes, std::string& out) {
  std::int64_t parts[5] = {};  // by field number
  ByteReader in(bytes);
  for (WireField field; next_field(in, field);) {
    if (field.type != WireType::kVarint || field.number > 4) return false;
    parts[field.number] = unzigzag(field.number_value);
  }
  const auto [unused, months, days, micros, infinity] = parts;
  const auto is_int32 = [](std::int64_t value) {
    return value == static_cast<std::int32_t>(value);
  };
  if (in.failed() || !is_int32(months) || !is_int32(days) || infinity > 1 || infinity < -1)
    return false;
  out += '"';
  if (infinity != 0)
    out += infinity > 0 ? "infinity" : "-infinity";
  else
    append_interval(static_cast<std::int32_t>(months), static_cast<std::int32_t>(days), micros,
                    out);
  out += '"';
  return true;
}

/// Wire type of one value of `kind`, alone or as an element.
WireType wire_type_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::kBool:
    case ValueKind::kInt32:
    case ValueKind::kInt64:
    case ValueKind::kUInt32:
    case ValueKind::kDate:
    case ValueKind::kTime:
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz: return WireType::kVarint;
    case ValueKind::kFloat: return WireType::kFixed32;
    case ValueKind::kDouble: return WireType::kFixed64;
    default: return WireType::kBytes;
  }
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

/// Walks the elements of a millrace.v1.*Array message beside its list of nulls.
class ArrayAppender {
 public:
  ArrayAppender(ValueKind kind, std::string_view nulls, std::string& out)
      : kind_(kind), nulls_(nulls), out_(out) {
    next_null();
  }

  bool append(const WireField& element) {
    out_ += count_ == 0 ? '[' : ',';
    if (count_++ != null_) return append_scalar(kind_, element, out_);
    out_ += "null";
    next_null();
    return true;
  }

  bool append_packed(std::string_view values) {
    ByteReader in(values);
    WireField element{.number = 1, .type = wire_type_of(kind_), .number_value = 0, .bytes = {}};
    while (in.remaining() > 0) {
      element.number_value = element.type == WireType::kVarint    ? in.varint()
                             : element.type == WireType::kFixed32 ? in.u32_le()
                                                                  : in.u64_le();
      if (in.failed() || !append(element)) return false;
    }
    return true;
  }

  /// False where a null is left over that no element stands for.
  bool finish() {
    out_ += count_ == 0 ? "[]" : "]";
    return !nulls_.failed() && null_ == kNone;
  }

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  void next_null() { null_ = nulls_.remaining() > 0 ? nulls_.varint() : kNone; }

  ValueKind kind_;
  ByteReader nulls_;
  std::string& out_;
  std::uint64_t count_ = 0, null_ = kNone;
};

/// timetz and interval stand in an array as text.
ValueKind element_kind(ValueKind kind) {
  return kind == ValueKind::kTimeTz || kind == ValueKind::kInterval ? ValueKind::kExactText : kind;
}

/// `text` of an array that is kept whole: the only field of its message.
bool is_whole(std::string_view bytes, std::string_view& text) {
  ByteReader in(bytes);
  WireField field;
  if (!next_field(in, field) || field.number != 3 || field.type != WireType::kBytes) return false;
  text = field.bytes;
  return in.remaining() == 0;
}

bool append_array(ValueKind kind, std::string_view bytes, std::string& out) {
  if (std::string_view text; is_whole(bytes, text)) return append_json_text(text, out), true;
  std::string_view nulls;  // they come behind the values, so they are looked up first
  ByteReader first(bytes);
  for (WireField field; next_field(first, field);)
    if (field.number == 2 && field.type == WireType::kBytes) nulls = field.bytes;
  if (first.failed()) return false;
  const bool packed = wire_type_of(kind) != WireType::kBytes;
  ArrayAppender array(kind, nulls, out);
  ByteReader in(bytes);
  for (WireField field; next_field(in, field);) {
    if (field.number == 2) continue;
    if (field.number != 1 || field.type != WireType::kBytes) return false;
    if (!(packed ? array.append_packed(field.bytes) : array.append(field))) return false;
  }
  return array.finish();
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
