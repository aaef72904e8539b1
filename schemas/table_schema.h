#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

/// How a column's value is kept in a row message; docs/rows.md has the table. A value never changes
/// on its way: what fits none of these is PostgreSQL's own text.
enum class ValueKind : std::uint8_t {
  kBool = 1,          ///< bool
  kInt32 = 2,         ///< sint32: int2, int4
  kInt64 = 3,         ///< sint64: int8
  kUInt32 = 4,        ///< uint32: oid
  kFloat = 5,         ///< float: float4
  kDouble = 6,        ///< double: float8
  kNumeric = 7,       ///< string: exact text, also NaN and Infinity
  kText = 8,          ///< string: text, varchar, bpchar, name, "char", xml, citext
  kBytes = 9,         ///< bytes: bytea
  kDate = 10,         ///< sint32: days since 2000-01-01; extremes are -infinity and infinity
  kTime = 11,         ///< sint64: microseconds since midnight
  kTimeTz = 12,       ///< millrace.v1.TimeTz
  kTimestamp = 13,    ///< sint64: microseconds since 2000-01-01, no zone; extremes are +-infinity
  kTimestampTz = 14,  ///< sint64: microseconds since 2000-01-01 00:00 UTC; extremes are +-infinity
  kInterval = 15,     ///< millrace.v1.Interval
  kUuid = 16,         ///< string: 36 characters
  kJson = 17,         ///< string: json and jsonb text
  kEnum = 18,         ///< string: the label
  kExactText = 19,    ///< string: PostgreSQL's text output of any other type
};

std::string_view name_of(ValueKind kind);

struct ColumnSchema {
  std::string name;
  std::uint32_t field = 0;  ///< Number in the row message; never reused in its table.
  ValueKind kind = ValueKind::kExactText;
  bool array = false;  ///< A one-dimensional array of `kind`: a millrace.v1.*Array message.
  bool key = false;    ///< Part of the event's key.
  std::uint32_t type_oid = 0;
  std::int32_t type_modifier = -1;
  std::string type_name = {};  ///< As PostgreSQL writes it: "numeric(12,2)", "text[]".
  bool operator==(const ColumnSchema&) const = default;
};

enum class ReplicaIdentity : std::uint8_t {
  kDefault = 'd',
  kNothing = 'n',
  kFull = 'f',
  kIndex = 'i'
};

/// One version of one captured table. Columns in the table's order.
struct TableSchema {
  std::string category;       ///< "public.orders", the subject in the registry.
  std::uint32_t version = 0;  ///< From 1; 0 while not registered.
  std::string schema_name;
  std::string table_name;
  std::uint32_t relation_oid = 0;
  ReplicaIdentity replica_identity = ReplicaIdentity::kDefault;
  std::vector<ColumnSchema> columns = {};
  /// Field numbers of columns that are gone, with their names: never given out again.
  std::vector<std::pair<std::uint32_t, std::string>> retired = {};
  std::uint64_t source_lsn = 0;  ///< Where in the source's log it was first seen.

  const ColumnSchema* column(std::string_view name) const;
  const ColumnSchema* column_of_field(std::uint32_t field) const;
};

/// "schema.table" with a quoted part where a name holds a dot or a quote, so that two tables never
/// share one.
std::string category_of(std::string_view schema_name, std::string_view table_name);

}  // namespace millrace
