#include "capture/pgoutput/text_value.h"

#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <optional>

#include "base/bytes.h"
#include "capture/pgoutput/array_text.h"
#include "capture/pgoutput/builtin_types.h"
#include "capture/pgoutput/datetime_text.h"
#include "capture/pgoutput/row_field.h"

namespace millrace::pgoutput {
namespace {

// Each of these appends a value without its tag, or gives false where the text is none. What a
// failed one leaves in `out` is taken back by append_text_value.

template <typename Int>
bool parse_integer(std::string_view text, Int& value) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end;
}

template <typename Int>
bool append_integer(std::string_view text, std::string& out) {
  Int value = 0;
  if (!parse_integer(text, value)) return false;
  append_varint(out, std::is_signed_v<Int> ? zigzag(static_cast<std::int64_t>(value)) : value);
  return true;
}

template <typename Int>
bool append_signed(std::optional<Int> value, std::string& out) {
  if (!value) return false;
  append_varint(out, zigzag(*value));
  return true;
}

bool append_bool(std::string_view text, std::string& out) {
  if (text != "t" && text != "f") return false;
  out += text == "t" ? '\1' : '\0';
  return true;
}

/// Reads what PostgreSQL writes; std::from_chars alone would take "inf" and "nan(...)" too.
template <typename Float>
bool parse_float(std::string_view text, Float& value) {
  using Limits = std::numeric_limits<Float>;
  if (text == "NaN") return value = Limits::quiet_NaN(), true;
  if (text == "Infinity") return value = Limits::infinity(), true;
  if (text == "-Infinity") return value = -Limits::infinity(), true;
  const std::string_view magnitude = text.substr(text.starts_with('-') ? 1 : 0);
  if (magnitude.empty() || magnitude[0] < '0' || magnitude[0] > '9') return false;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end;
}

bool append_float(std::string_view text, std::string& out) {
  float value = 0;
  if (!parse_float(text, value)) return false;
  append_le(out, std::bit_cast<std::uint32_t>(value));
  return true;
}

bool append_double(std::string_view text, std::string& out) {
  double value = 0;
  if (!parse_float(text, value)) return false;
  append_le(out, std::bit_cast<std::uint64_t>(value));
  return true;
}

std::size_t count_digits(std::string_view text) {
  std::size_t count = 0;
  while (count < text.size() && text[count] >= '0' && text[count] <= '9') ++count;
  return count;
}

bool append_numeric(std::string_view text, std::string& out) {
  std::string_view rest = text;
  if (rest.starts_with('-')) rest.remove_prefix(1);
  const std::size_t whole = count_digits(rest);
  rest.remove_prefix(whole);
  if (whole > 0 && rest.starts_with('.') && rest.size() > 1)
    rest.remove_prefix(1 + count_digits(rest.substr(1)));
  const bool number = whole > 0 && rest.empty();
  if (!number && text != "NaN" && text != "Infinity" && text != "-Infinity") return false;
  append_bytes(text, out);
  return true;
}

bool append_uuid(std::string_view text, std::string& out) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !hex) return false;
  }
  append_bytes(text, out);
  return true;
}

/// Value of a hexadecimal digit; 0xff for anything else.
constexpr auto kHexDigits = [] {
  std::array<std::uint8_t, 256> digits{};
  digits.fill(0xff);
  for (std::uint8_t i = 0; i < 10; ++i) digits['0' + i] = i;
  for (std::uint8_t i = 0; i < 6; ++i)
    digits['a' + i] = digits['A' + i] = static_cast<std::uint8_t>(10 + i);
  return digits;
}();

bool append_bytea(std::string_view text, std::string& out) {
  if (!text.starts_with("\\x") || text.size() % 2 != 0) return false;
  text.remove_prefix(2);
  append_varint(out, text.size() / 2);
  const std::size_t start = out.size();
  out.resize(start + text.size() / 2);
  char* to = out.data() + start;
  std::uint8_t seen = 0;  // a digit that is none has high bits
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const std::uint8_t high = kHexDigits[static_cast<std::uint8_t>(text[i])];
    const std::uint8_t low = kHexDigits[static_cast<std::uint8_t>(text[i + 1])];
    seen |= high | low;
    *to++ = static_cast<char>(high << 4 | low);
  }
  return seen < 16;
}

/// millrace.v1.TimeTz
bool append_time_tz(std::string_view text, std::string& out) {
  const auto value = parse_time_tz(text);
  if (!value) return false;
  append_varint(out, part_size(value->micros) + part_size(value->offset_seconds));
  append_part(1, value->micros, out);
  append_part(2, value->offset_seconds, out);
  return true;
}

/// millrace.v1.Interval
bool append_interval(std::string_view text, std::string& out) {
  const auto value = parse_interval(text);
  if (!value) return false;
  append_varint(out, part_size(value->months) + part_size(value->days) + part_size(value->micros) +
                         part_size(value->infinity));
  append_part(1, value->months, out);
  append_part(2, value->days, out);
  append_part(3, value->micros, out);
  append_part(4, value->infinity, out);
  return true;
}

bool append_value(ValueKind kind, std::string_view text, std::string& out) {
  switch (kind) {
    case ValueKind::kBool: return append_bool(text, out);
    case ValueKind::kInt32: return append_integer<std::int32_t>(text, out);
    case ValueKind::kInt64: return append_integer<std::int64_t>(text, out);
    case ValueKind::kUInt32: return append_integer<std::uint32_t>(text, out);
    case ValueKind::kFloat: return append_float(text, out);
    case ValueKind::kDouble: return append_double(text, out);
    case ValueKind::kNumeric: return append_numeric(text, out);
    case ValueKind::kBytes: return append_bytea(text, out);
    case ValueKind::kDate: return append_signed(parse_date(text), out);
    case ValueKind::kTime: return append_signed(parse_time(text), out);
    case ValueKind::kTimeTz: return append_time_tz(text, out);
    case ValueKind::kTimestamp: return append_signed(parse_timestamp(text, false), out);
    case ValueKind::kTimestampTz: return append_signed(parse_timestamp(text, true), out);
    case ValueKind::kInterval: return append_interval(text, out);
    case ValueKind::kUuid: return append_uuid(text, out);
    case ValueKind::kText:
    case ValueKind::kJson:
    case ValueKind::kEnum:
    case ValueKind::kExactText: append_bytes(text, out); return true;
  }
  return false;
}

/// timetz and interval stand in an array as their text, once it is known to be one.
bool append_element(ValueKind kind, std::string_view text, std::string& out) {
  if (kind == ValueKind::kTimeTz && !parse_time_tz(text)) return false;
  if (kind == ValueKind::kInterval && !parse_interval(text)) return false;
  const bool as_text = kind == ValueKind::kTimeTz || kind == ValueKind::kInterval;
  return append_value(as_text ? ValueKind::kExactText : kind, text, out);
}

constexpr std::uint32_t kBoxArrayOid = 1020;  // the one built-in type whose delimiter is not ','

/// Whether ',' surely stands between the elements. A type that an extension made may have any
/// delimiter (PostGIS: ':'), and only the source's catalog knows it.
bool has_comma_delimiter(const ColumnSchema& column) {
  return column.kind != ValueKind::kExactText ||
         (column.type_oid < kFirstUserOid && column.type_oid != kBoxArrayOid);
}

/// Its buffers are reused: one per thread.
class ArrayEncoder {
 public:
  bool append(const ColumnSchema& column, std::string_view text, std::string& out) {
    return has_comma_delimiter(column) ? encode(column.kind, text, out) : encode_whole(text, out);
  }

 private:
  bool encode(ValueKind kind, std::string_view text, std::string& out) {
    parts_.clear();
    const bool packed = wire_type_of(kind) != kBytes;
    ArrayReader reader(text, element_);
    for (std::uint64_t count = 0;; ++count) {
      const ArrayReader::Item item = reader.next();
      if (item == ArrayReader::Item::kEnd) break;
      if (item == ArrayReader::Item::kInvalid) return false;
      if (item == ArrayReader::Item::kOtherShape) return encode_whole(text, out);
      if (!packed) append_tag(1, kBytes, parts_.values);
      if (item == ArrayReader::Item::kNull)
        parts_.add_null(kind, count);
      else if (!append_element(kind, reader.element(), parts_.values))
        return false;
    }
    parts_.append_message(packed, out);
    return true;
  }

  static bool encode_whole(std::string_view text, std::string& out) {
    if (!is_array_text(text)) return false;
    append_whole_array(text, out);
    return true;
  }

  ArrayParts parts_;
  std::string element_;
};

bool append_array(const ColumnSchema& column, std::string_view text, std::string& out) {
  thread_local ArrayEncoder encoder;
  return encoder.append(column, text, out);
}

[[gnu::cold]] Error refusal(const ColumnSchema& column, std::string_view text) {
  return Error(ErrorCode::kInvalidArgument,
               "column \"" + printable(column.name) + "\": \"" + printable(text, 40) + "\" is no " +
                   printable(column.type_name) + " as PostgreSQL writes it in a session of capture")
      .hint(
          "Values are read with DateStyle ISO, IntervalStyle postgres, bytea_output hex and "
          "TimeZone UTC; something between here and the server changes them.");
}

}  // namespace

Result<void> append_text_value(const ColumnSchema& column, std::string_view text,
                               std::string& row) {
  const std::size_t start = row.size();
  append_tag(column.field, column.array ? kBytes : wire_type_of(column.kind), row);
  const bool fine =
      column.array ? append_array(column, text, row) : append_value(column.kind, text, row);
  if (fine) [[likely]]
    return {};
  row.resize(start);
  return refusal(column, text);
}

}  // namespace millrace::pgoutput
