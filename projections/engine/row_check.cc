#include "projections/engine/row_check.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "schemas/proto_file.h"

namespace millrace::projections {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

std::string type_of(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_MESSAGE ? field.message_type()->full_name()
                                                       : field.type_name();
}

Error mismatch(const Descriptor& row, const TableSchema& schema, const std::string& what) {
  return Error(ErrorCode::kFailedPrecondition,
               "the program was built for another shape of " + printable(schema.category) +
                   " than the store has (version " + std::to_string(schema.version) + "): " + what)
      .hint("Run `millrace schema export --store DIR --out FOLDER`, put the new .proto of " +
            row.full_name() + " in place of the program's, and build it again.");
}

std::string described(const FieldDescriptor& field) {
  return "field " + std::to_string(field.number()) + " '" + field.name() + "' (" + type_of(field) +
         ")";
}

std::string described(const ColumnSchema& column) {
  return "column '" + printable(column.name) + "' is field " + std::to_string(column.field) + " (" +
         std::string(proto_type(column)) + ")";
}

Result<void> check_field(const Descriptor& row, const TableSchema& schema,
                         const FieldDescriptor& field) {
  const auto number = static_cast<std::uint32_t>(field.number());
  if (const ColumnSchema* column = schema.column_of_field(number)) {
    if (field_name(schema, *column) != field.name() || proto_type(*column) != type_of(field))
      return mismatch(
          row, schema,
          "the program has " + described(field) + ", in the store " + described(*column));
    if (field.is_repeated() || !field.has_presence())
      return mismatch(row, schema,
                      described(field) + " must be `optional`: null would look like zero");
    return {};
  }
  for (const ColumnSchema& column : schema.columns)
    if (field_name(schema, column) == field.name())
      return mismatch(
          row, schema,
          "the program has " + described(field) + ", in the store " + described(column));
  const auto gone = std::find_if(schema.retired.begin(), schema.retired.end(),
                                 [&](const auto& retired) { return retired.first == number; });
  if (gone != schema.retired.end()) return {};
  return mismatch(row, schema,
                  "the program has " + described(field) + ", the store has no such column");
}

using Use = internal::ColumnUse;

bool is_number(ValueKind kind) {
  return kind == ValueKind::kInt32 || kind == ValueKind::kInt64 || kind == ValueKind::kUInt32;
}

/// Whether a key has the text of a value of that type: docs/events.md tells how keys look.
bool can_name(ColumnType type, ValueKind key) {
  switch (type) {
    case ColumnType::kInteger: return is_number(key) || key == ValueKind::kNumeric;
    case ColumnType::kText: return !is_number(key);
    case ColumnType::kReal: return false;
    case ColumnType::kNumeric:
    case ColumnType::kBlob: return true;  // whatever it is
  }
  return true;
}

Result<void> check_reference(const TableSchema& schema, const Use& use) {
  const std::string reference =
      use.column.empty() ? "a function" : "column '" + printable(use.column) + "'";
  const ColumnSchema* key = nullptr;
  std::size_t columns = 0;
  for (const ColumnSchema& column : schema.columns)
    if (column.key && ++columns == 1) key = &column;
  if (columns > 1 && (use.type == ColumnType::kInteger || !use.column.empty()))
    return Error(ErrorCode::kFailedPrecondition,
                 "it refers to rows of " + printable(schema.category) + " by " + reference +
                     ", but their key is of " + std::to_string(columns) + " columns")
        .hint(
            "Refer to them by a function that makes the key's text, \"42,de\"; or join by "
            "values, on(...).");
  if (columns != 1 || can_name(use.type, key->kind)) return {};
  return Error(ErrorCode::kFailedPrecondition,
               "it refers to rows of " + printable(schema.category) + " by " + reference + ", " +
                   (use.type == ColumnType::kInteger ? "a whole number"
                    : use.type == ColumnType::kReal  ? "a real"
                                                     : "text") +
                   ", but their key '" + printable(key->name) + "' is " + key->type_name +
                   (key->type_name.empty() ? std::string(name_of(key->kind)) : std::string()))
      .hint(
          "Refer to them by a function that makes of it what the key is; docs/events.md tells how "
          "keys look.");
}

/// Of columns that the message has as text though they are numbers.
Result<void> check_numeric(const TableSchema& schema, const Use& use) {
  const ColumnSchema* column = nullptr;
  for (const ColumnSchema& one : schema.columns)
    if (field_name(schema, one) == use.column) column = &one;
  if (column == nullptr || column->kind != ValueKind::kNumeric || column->array) return {};
  return Error(ErrorCode::kFailedPrecondition,
               "it compares column '" + printable(use.column) + "' of " +
                   printable(schema.category) + ", which is numeric, as text: " +
                   (use.kind == Use::Kind::kOrdered ? "10 would be less than 9"
                                                    : "1.5 would not be 1.50"))
      .hint("Say decimal(&Row::" + printable(use.column) + ") in the place of the column.");
}

/// A row of the view is named by the table's key, whatever that is called in the view: but a
/// column's name would tell readers that it is that column.
Result<void> check_key(const TableSchema& schema, const Use& use) {
  std::string key;
  for (const ColumnSchema& column : schema.columns)
    if (column.key) key += (key.empty() ? "" : ", ") + field_name(schema, column);
  if (key.empty() || key == use.column) return {};
  return Error(ErrorCode::kFailedPrecondition,
               "its key is called '" + printable(use.column) + "', which is a column of " +
                   printable(schema.category) + " and not what names its rows: that is (" +
                   printable(key) + ")")
      .hint("Give the key a name that no column has; for a row of each " + printable(use.column) +
            ", group by it.");
}

Result<void> check_uses(const internal::Source& source, const TableSchema& schema) {
  const auto check = [&](const Use& use) {
    switch (use.kind) {
      case Use::Kind::kReferred: return check_reference(schema, use);
      case Use::Kind::kKey: return check_key(schema, use);
      case Use::Kind::kOrdered:
      case Use::Kind::kMatched: break;
    }
    return check_numeric(schema, use);
  };
  for (const Use& use : source.uses) MILLRACE_RETURN_IF_ERROR(check(use));
  return {};
}

Result<void> check_is_no_table(const View& view, const internal::Source& source,
                               const Result<SchemaRegistry::Schema>& latest) {
  if (latest)
    return Error(ErrorCode::kFailedPrecondition,
                 "view " + view.name() + ": " + printable(source.category) +
                     " is a captured table, whose changes are no events of streams")
        .hint("Declare it as one: table<Row>(\"" + printable(source.category) +
              "\"), or .on<Row>(...).");
  if (latest.error().code() != ErrorCode::kNotFound) return latest.error();
  return {};
}

}  // namespace

Result<void> check_row(const Descriptor& row, const TableSchema& schema) {
  for (int i = 0; i < row.field_count(); ++i)
    MILLRACE_RETURN_IF_ERROR(check_field(row, schema, *row.field(i)));
  return {};
}

Result<void> check_source(const View& view, const internal::Source& source,
                          SchemaRegistry& schemas) {
  const auto latest = schemas.latest(source.category);
  if (source.is_events) return check_is_no_table(view, source, latest);
  if (!latest) {
    if (latest.error().code() != ErrorCode::kNotFound) return latest.error();
    MILLRACE_ASSIGN_OR_RETURN(const auto all, schemas.all());
    std::set<std::string> tables;
    for (const auto& schema : all) tables.insert(schema->category);
    std::string there;
    for (const auto& table : tables) there += (there.empty() ? "" : ", ") + printable(table);
    return Error(ErrorCode::kNotFound,
                 "view " + view.name() + ": the store has no table " + printable(source.category) +
                     (there.empty() ? "; it has none yet" : "; it has: " + there))
        .hint(
            "Correct the name in the program, or capture the table too: `millrace capture run "
            "--tables ...`.");
  }
  if (auto row = check_row(*source.row, **latest); !row)
    return std::move(row).error().context("view " + view.name());
  if (auto uses = check_uses(source, **latest); !uses)
    return std::move(uses).error().context("view " + view.name());
  const bool has_key = std::any_of((*latest)->columns.begin(), (*latest)->columns.end(),
                                   [](const ColumnSchema& column) { return column.key; });
  if (source.needs_key && !has_key)
    return Error(ErrorCode::kFailedPrecondition,
                 "view " + view.name() + ": the rows of " + printable(source.category) +
                     " can't be told apart, since the table has no key")
        .hint("Give it a primary key, or declare the view by functions of changes: .on<Row>(...).");
  if (source.needs_old_rows && (*latest)->replica_identity != ReplicaIdentity::kFull)
    return Error(ErrorCode::kFailedPrecondition, "view " + view.name() + " needs the old rows of " +
                                                     printable(source.category) +
                                                     ", which PostgreSQL does not send")
        .hint("On the source, run: ALTER TABLE " + printable(source.category) +
              " REPLICA IDENTITY FULL; changes made before that can't be folded by this view.");
  return {};
}

}  // namespace millrace::projections
