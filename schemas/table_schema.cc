#include "schemas/table_schema.h"

#include <algorithm>

#include "base/sql_text.h"

namespace millrace {
namespace {

/// `name` as one part of a category: quoted as SQL does where it would be taken for two parts.
void append_part(std::string_view name, std::string& out) {
  if (name.find_first_of(".\"") == std::string_view::npos)
    out += name;
  else
    out += quote_identifier(name);
}

}  // namespace

std::string_view name_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::kBool: return "bool";
    case ValueKind::kInt32: return "int32";
    case ValueKind::kInt64: return "int64";
    case ValueKind::kUInt32: return "uint32";
    case ValueKind::kFloat: return "float";
    case ValueKind::kDouble: return "double";
    case ValueKind::kNumeric: return "numeric";
    case ValueKind::kText: return "text";
    case ValueKind::kBytes: return "bytes";
    case ValueKind::kDate: return "date";
    case ValueKind::kTime: return "time";
    case ValueKind::kTimeTz: return "timetz";
    case ValueKind::kTimestamp: return "timestamp";
    case ValueKind::kTimestampTz: return "timestamptz";
    case ValueKind::kInterval: return "interval";
    case ValueKind::kUuid: return "uuid";
    case ValueKind::kJson: return "json";
    case ValueKind::kEnum: return "enum";
    case ValueKind::kExactText: return "exact text";
  }
  return "unknown";
}

const ColumnSchema* TableSchema::column(std::string_view name) const {
  const auto found = std::ranges::find(columns, name, &ColumnSchema::name);
  return found == columns.end() ? nullptr : &*found;
}

const ColumnSchema* TableSchema::column_of_field(std::uint32_t field) const {
  const auto found = std::ranges::find(columns, field, &ColumnSchema::field);
  return found == columns.end() ? nullptr : &*found;
}

std::string category_of(std::string_view schema_name, std::string_view table_name) {
  std::string category;
  category.reserve(schema_name.size() + table_name.size() + 1);
  append_part(schema_name, category);
  category += '.';
  append_part(table_name, category);
  return category;
}

}  // namespace millrace
