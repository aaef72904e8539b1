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
