#pragma once

#include <string>
#include <string_view>

#include "schemas/table_schema.h"

namespace millrace {

/// Name of a table's message: "order_items" -> "OrderItems". Where the table's name is no plain
/// ASCII identifier, a hash of it follows, so that two such tables never share one. Only names that
/// differ in upper and lower case or in single underscores
/// ("OrderItems") can.
std::string message_name(std::string_view table_name);

/// A Protobuf package from any database name: "My-Shop" -> "my_shop".
std::string package_name(std::string_view database_name);

/// The .proto file of `schema`, with comments that say what each field holds, ready for protoc.
/// `package` as given; tables of other PostgreSQL schemas than public belong in one of their own:
/// `package + "." + package_name(schema.schema_name)`. Where a column needs it the file imports
/// kValuesProtoPath: put values_proto_file() there.
std::string to_proto_file(const TableSchema& schema, std::string_view package);

/// "public.orders.proto"; a plain file name, whatever the table is called, and another for every
/// table.
std::string proto_file_name(const TableSchema& schema);

/// The file that exported ones import, and its path below the folder of the export.
inline constexpr std::string_view kValuesProtoPath = "millrace/v1/values.proto";
std::string values_proto_file();

/// Name of a column's field: the column's own where Protobuf and C++ take it, else the nearest that
/// is free. Depends on nothing but the columns' names and numbers. `column` is one of `schema`'s.
std::string field_name(const TableSchema& schema, const ColumnSchema& column);

/// Type of a column's field: "sint64", "string", "millrace.v1.Int32Array".
std::string_view proto_type(const ColumnSchema& column);

}  // namespace millrace
