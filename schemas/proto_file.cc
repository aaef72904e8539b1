#include "schemas/proto_file.h"

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/checksum.h"
#include "millrace/v1/values.pb.h"
#include "schemas/rendering/field_names.h"

namespace millrace {
namespace {

constexpr std::size_t kFileNameBytesMax = 200;  // file systems take 255, and tools add suffixes

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return is_upper(c) || is_lower(c); }
char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c; }
char to_lower(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

/// Eight hexadecimal digits that tell names apart.
std::string short_hash(std::string_view name) {
  std::string bytes;
  append_be<std::uint32_t>(bytes, static_cast<std::uint32_t>(checksum(name)));
  return to_hex(bytes);
}

/// The unit and epoch of a kind, for a comment; empty where PostgreSQL's type says it all.
std::string_view unit_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::kNumeric: return "exact decimal text, also NaN, Infinity and -Infinity";
    case ValueKind::kDate: return "days since 2000-01-01; the extremes are -infinity and infinity";
    case ValueKind::kTime: return "microseconds since midnight";
    case ValueKind::kTimestamp:
      return "microseconds since 2000-01-01 00:00:00; the extremes are -infinity and infinity";
    case ValueKind::kTimestampTz:
      return "microseconds since 2000-01-01 00:00:00 UTC; the extremes are -infinity and infinity";
    case ValueKind::kUuid: return "36 characters";
    case ValueKind::kJson: return "JSON text";
    case ValueKind::kEnum: return "the label";
    case ValueKind::kExactText: return "PostgreSQL's text";
    default: return {};
  }
}

std::string_view array_type(ValueKind kind) {
  switch (kind) {
    case ValueKind::kBool: return "millrace.v1.BoolArray";
    case ValueKind::kInt32:
    case ValueKind::kDate: return "millrace.v1.Int32Array";
    case ValueKind::kInt64:
    case ValueKind::kTime:
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz: return "millrace.v1.Int64Array";
    case ValueKind::kUInt32: return "millrace.v1.UInt32Array";
    case ValueKind::kFloat: return "millrace.v1.FloatArray";
    case ValueKind::kDouble: return "millrace.v1.DoubleArray";
    case ValueKind::kBytes: return "millrace.v1.BytesArray";
    default: return "millrace.v1.StringArray";
  }
}

std::string_view scalar_type(ValueKind kind) {
  switch (kind) {
    case ValueKind::kBool: return "bool";
    case ValueKind::kInt32:
    case ValueKind::kDate: return "sint32";
    case ValueKind::kInt64:
    case ValueKind::kTime:
    case ValueKind::kTimestamp:
    case ValueKind::kTimestampTz: return "sint64";
    case ValueKind::kUInt32: return "uint32";
    case ValueKind::kFloat: return "float";
    case ValueKind::kDouble: return "double";
    case ValueKind::kBytes: return "bytes";
    case ValueKind::kTimeTz: return "millrace.v1.TimeTz";
    case ValueKind::kInterval: return "millrace.v1.Interval";
    default: return "string";
  }
}

bool is_message(const ColumnSchema& column) { return proto_type(column).starts_with("millrace."); }

/// "  // numeric(12,2), key: exact decimal text"
std::string comment_of(const ColumnSchema& column, std::string_view name) {
  std::string comment = "  // " + printable(column.type_name);
  if (name != column.name) comment += ", column \"" + printable(column.name) + '"';
  if (column.key) comment += ", part of the key";
  if (const std::string_view unit = unit_of(column.kind); !unit.empty())
    (comment += column.array ? ": each " : ": ") += unit;
  return comment + '\n';
}

/// Numbers and names that columns had which are gone; a name that a later column has again stays
/// usable.
std::string reserved_of(const TableSchema& schema, const std::vector<std::string>& field_names) {
  std::string numbers, quoted_names;
  std::set<std::string_view> seen;
  for (const auto& [field, name] : schema.retired) {
    (numbers += numbers.empty() ? "" : ", ") += std::to_string(field);
    if (!rendering::is_identifier(name) || std::ranges::count(field_names, name) != 0 ||
        !seen.insert(name).second)
      continue;
    ((quoted_names += quoted_names.empty() ? "\"" : ", \"") += name) += '"';
  }
  std::string text;
  if (!numbers.empty()) text += "  reserved " + numbers + ";\n";
  if (!quoted_names.empty()) text += "  reserved " + quoted_names + ";\n";
  return text;
}

std::string file_name_part(std::string_view name) {
  std::string part;
  for (const char c : name) {
    if (is_letter(c) || is_digit(c) || c == '_')
      part += c;
    else
      part += '%' + to_hex(std::string_view(&c, 1));
  }
  return part;
}

}  // namespace

std::string message_name(std::string_view table_name) {
  std::string name;
  bool upper = true;
  bool plain = !table_name.empty() && table_name[0] != '_' && table_name.back() != '_' &&
               table_name.find("__") == std::string_view::npos;
  for (std::size_t i = 0; i < table_name.size(); ++i) {
    const char c = table_name[i];
    const char next = i + 1 < table_name.size() ? table_name[i + 1] : '\0';
    if (!is_letter(c) && !is_digit(c)) {
      plain = plain && c == '_';
      // An underscore before a digit stays, or "a_12" and "a1_2" would be one.
      if (is_digit(next) && !name.empty()) name += '_';
      upper = true;
    } else {
      name += upper ? to_upper(c) : c;
      upper = false;
    }
  }
  if (name.empty() || is_digit(name[0])) name.insert(0, "Table");
  return plain ? name : name + '_' + short_hash(table_name);
}

std::string package_name(std::string_view database_name) {
  std::string name;
  for (const char c : database_name) name += is_letter(c) || is_digit(c) ? to_lower(c) : '_';
  if (name.empty() || !is_letter(name[0])) name.insert(0, "db_");
  return name;
}

std::string proto_file_name(const TableSchema& schema) {
  std::string name = file_name_part(schema.schema_name) + '.' + file_name_part(schema.table_name);
  if (name.size() > kFileNameBytesMax)
    name = name.substr(0, kFileNameBytesMax) + '_' + short_hash(schema.category);
  return name + ".proto";
}

std::string values_proto_file() {
  return "// The values that row messages of millrace refer to; docs/rows.md says what they "
         "hold.\n" +
         v1::Interval::descriptor()->file()->DebugString();
}

std::string field_name(const TableSchema& schema, const ColumnSchema& column) {
  const std::vector<std::string> names = rendering::field_names(schema);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (schema.columns[i].field == column.field) return names[i];
  return {};
}

std::string_view proto_type(const ColumnSchema& column) {
  return column.array ? array_type(column.kind) : scalar_type(column.kind);
}

std::string to_proto_file(const TableSchema& schema, std::string_view package) {
  const std::vector<std::string> names = rendering::field_names(schema);
  std::string text = "// Table " + printable(schema.category) + ", version " +
                     std::to_string(schema.version) +
                     " of its schema. Written by millrace: change the table, not this file.\n"
                     "// A field that is absent is null.\n"
                     "syntax = \"proto3\";\n\npackage " +
                     std::string(package) + ";\n\n";
  if (std::ranges::any_of(schema.columns, is_message))
    text += "import \"" + std::string(kValuesProtoPath) + "\";\n\n";
  text += "message " + message_name(schema.table_name) + " {\n";
  text += reserved_of(schema, names);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ColumnSchema& column = schema.columns[i];
    text += comment_of(column, names[i]);
    text += is_message(column) ? "  ." : "  optional ";  // a message knows absence by itself
    text += proto_type(column);
    text += ' ' + names[i] + " = " + std::to_string(column.field) + ";\n";
  }
  return text + "}\n";
}

}  // namespace millrace
