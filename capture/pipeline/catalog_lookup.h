#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "schemas/table_schema.h"

namespace millrace {

/// How values of a column's type are kept, and its name as PostgreSQL writes it.
struct ColumnType {
  ValueKind kind = ValueKind::kExactText;
  bool array = false;
  std::string name;
  std::uint32_t base_oid = 0;  ///< Of the type that a domain is based on; the type's own else.
};

/// What pgoutput's messages do not say and only the source's catalog knows.
class CatalogLookup {
 public:
  virtual ~CatalogLookup() = default;
  /// A type that is gone meanwhile is kExactText, named by its OID.
  virtual Result<ColumnType> type(std::uint32_t oid, std::int32_t modifier) = 0;
  /// Columns of the table's primary key as it is now; empty if it has none, nothing if it is gone.
  virtual Result<std::optional<std::vector<std::string>>> primary_key(
      std::uint32_t relation_oid) = 0;
};

}  // namespace millrace
