#include "schemas/row_text.h"

#include <array>
#include <bit>
#include <charconv>
#include <limits>

#include "base/bytes.h"
#include "base/utf8.h"
#include "schemas/rendering/pg_text.h"
#include "schemas/rendering/row.h"
#include "schemas/rendering/stored_value.h"

namespace millrace {
namespace {

using rendering::ArrayWalker;
using rendering::WireField;

template <typename Int>
void append_integer(Int value, std::string& out) {
  char digits[20];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

// Each of these appends a value, or gives false where the bytes are none of its kind. What a failed
// one leaves in `out` is taken back by the public function.

bool append_varint_text(ValueKind kind, std::uint64_t varint, std::string& out) {
  const std::int64_t value = unzigzag(varint);
  const bool is_int32 = value == static_cast<std::int32_t>(value);
  switch (kind) {
    case ValueKind::kBool: out += varint != 0 ? 't' : 'f'; return varint <= 1;
    case ValueKind::kUInt32:
      append_integer(varint, out);
      return varint <= std::numeric_limits<std::uint32_t>::max();
    case ValueKind::kInt32: append_integer(value, out); return is_int32;
    case ValueKind::kDate:
      if (is_int32) rendering::append_date(static_cast<std::int32_t>(value), out);
      return is_int32;
    case ValueKind::kTime:
      if (value < 0 || value > rendering::kMicrosPerDay) return false;
      return rendering::append_time(value, out), true;
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz:
      rendering::append_timestamp(value, kind == ValueKind::kTimestampTz,
                                  rendering::DateTimeStyle::kSql, out);
      return true;
    default: append_integer(value, out); return true;
  }
}

void append_bytea_text(std::string_view bytes, std::string& out) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += "\\x";
  const std::size_t start = out.size();
  out.resize(start + 2 * bytes.size());
  char* to = out.data() + start;
  for (const char c : bytes) {
    const auto byte = static_cast<std::uint8_t>(c);
    *to++ = kDigits[byte >> 4];
    *to++ = kDigits[byte & 15];
  }
}

bool append_interval_text(std::string_view bytes, std::string& out) {
  const auto value = rendering::read_interval(bytes);
  if (!value) return false;
  if (value->infinity != 0)
    out += value->infinity > 0 ? "infinity" : "-infinity";
  else
    rendering::append_interval(value->months, value->days, value->micros, out);
  return true;
}

bool append_scalar_text(ValueKind kind, const WireField& field, std::string& out) {
  if (field.type != wire_type_of(kind)) return false;
  switch (field.type) {
    case WireType::kVarint: return append_varint_text(kind, field.number_value, out);
    case WireType::kFixed32:
      rendering::append_float(std::bit_cast<float>(static_cast<std::uint32_t>(field.number_value)),
                              out);
      return true;
    case WireType::kFixed64:
      rendering::append_double(std::bit_cast<double>(field.number_value), out);
      return true;
    case WireType::kBytes: break;
  }
  if (kind == ValueKind::kInterval) return append_interval_text(field.bytes, out);
  if (kind == ValueKind::kTimeTz) {
    const auto value = rendering::read_time_tz(field.bytes);
    if (value) rendering::append_time_tz(value->micros, value->offset_seconds, out);
    return value.has_value();
  }
  if (kind == ValueKind::kBytes)
    append_bytea_text(field.bytes, out);
  else
    out += field.bytes;
  return true;
}

bool append_array_text(ValueKind kind, std::string_view bytes, std::string& out) {
  if (const auto text = rendering::whole_array(bytes)) return out += *text, true;
  ArrayWalker array(kind, bytes);
  std::string element;
  out += '{';
  for (bool first = true;; first = false) {
    const ArrayWalker::Item item = array.next();
    if (item == ArrayWalker::Item::kEnd) break;
    if (item == ArrayWalker::Item::kInvalid) return false;
    if (!first) out += ',';
    if (item == ArrayWalker::Item::kNull) {
      out += "NULL";
      continue;
    }
    element.clear();
    if (!append_scalar_text(rendering::element_kind(kind), array.element(), element)) return false;
    append_array_element(element, out);
  }
  out += '}';
  return true;
}

Result<void> append_field_text(const ColumnSchema& column, const WireField& field,
                               std::string& out) {
  const std::size_t start = out.size();
  const bool fine = column.array ? field.type == WireType::kBytes &&
                                       append_array_text(column.kind, field.bytes, out)
                                 : append_scalar_text(column.kind, field, out);
  if (fine) [[likely]]
    return {};
  out.resize(start);
  return Error(ErrorCode::kCorruption,
               "column \"" + printable(column.name) + "\" holds no value of its kind, " +
                   std::string(name_of(column.kind)) + (column.array ? " array" : ""));
}

/// What array_out looks for, by byte: 1 asks for quotes, 2 for quotes and a backslash before it.
constexpr auto kArrayQuotes = [] {
  std::array<std::uint8_t, 256> needs{};
  for (const char c : {'{', '}', ',', ' ', '\t', '\n', '\r', '\v', '\f'})
    needs[static_cast<std::uint8_t>(c)] = 1;
  needs['"'] = needs['\\'] = 2;
  return needs;
}();

bool is_null_word(std::string_view text) {
  constexpr std::string_view kNull = "NULL";
  if (text.size() != kNull.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((text[i] & ~0x20) != kNull[i]) return false;
  return true;
}

/// What COPY writes instead of a character, behind a backslash; 0 for itself.
char copy_escape(char c) {
  switch (c) {
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    case '\v': return 'v';
    case '\\': return '\\';
    default: return 0;
  }
}

}  // namespace

Result<void> RowText::read(const TableSchema& schema, std::string_view row,
                           std::string_view unchanged) {
  auto done = fill(schema, row, unchanged);
  if (!done) values_.clear();
  return done;
}

Result<void> RowText::fill(const TableSchema& schema, std::string_view row,
                           std::string_view unchanged) {
  const std::vector<ColumnSchema>& columns = schema.columns;
  values_.assign(columns.size(), Value{});
  text_.clear();
  thread_local rendering::Row fields;
  MILLRACE_RETURN_IF_ERROR(fields.read(schema, row));
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const WireField* field = fields.field(i);
    if (field == nullptr) continue;
    values_[i].start = text_.size();
    MILLRACE_RETURN_IF_ERROR(append_field_text(columns[i], *field, text_));
    values_[i].size = text_.size() - values_[i].start;
  }
  ByteReader in(unchanged);
  while (in.remaining() > 0) {
    const std::uint64_t number = in.varint();
    std::size_t i = 0;
    while (i < columns.size() && columns[i].field != number) ++i;
    if (i == columns.size() || values_[i].start != kNull)
      return Error(ErrorCode::kCorruption,
                   "field " + std::to_string(number) +
                       " is told to be unchanged, and is no column or has a value");
    values_[i].unchanged = true;
  }
  if (in.failed()) return Error(ErrorCode::kCorruption, "the list of unchanged fields is damaged");
  return {};
}

std::optional<std::string_view> RowText::value(std::size_t index) const {
  const Value& value = values_[index];
  if (value.start == kNull) return std::nullopt;
  return std::string_view(text_).substr(value.start, value.size);
}

Result<void> append_value_text(const ColumnSchema& column, std::string_view field,
                               std::string& out) {
  ByteReader in(field);
  WireField value;
  if (!rendering::next_field(in, value) || in.remaining() != 0 || value.number != column.field)
    return Error(ErrorCode::kCorruption, "no field of column \"" + printable(column.name) + "\"");
  return append_field_text(column, value, out);
}

void append_array_element(std::string_view text, std::string& out) {
  std::uint8_t needs = text.empty() || is_null_word(text) ? 1 : 0;
  for (const char c : text) needs |= kArrayQuotes[static_cast<std::uint8_t>(c)];
  if (needs == 0) {
    out += text;
    return;
  }
  out += '"';
  for (const char c : text) {
    if (kArrayQuotes[static_cast<std::uint8_t>(c)] == 2) out += '\\';
    out += c;
  }
  out += '"';
}

Result<void> append_sql_literal(std::optional<std::string_view> text, std::string& out) {
  if (!text) return out += "NULL", Result<void>{};
  for (std::string_view rest = *text; !rest.empty();) {
    const std::size_t length = rest[0] == '\0' ? 0 : utf8_length(rest);
    if (length == 0)
      return Error(ErrorCode::kInvalidArgument,
                   "\"" + printable(*text, 40) + "\" is no UTF-8 and can't be a literal")
          .hint("Give it as a parameter of the statement.");
    rest.remove_prefix(length);
  }
  out += text->find('\\') == std::string_view::npos ? "'" : " E'";
  for (const char c : *text) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  out += '\'';
  return {};
}

void append_copy_field(std::optional<std::string_view> text, std::string& out) {
  if (!text) {
    out += "\\N";
    return;
  }
  for (const char c : *text) {
    const char escape = copy_escape(c);
    if (escape != 0) out += '\\';
    out += escape != 0 ? escape : c;
  }
}

}  // namespace millrace
