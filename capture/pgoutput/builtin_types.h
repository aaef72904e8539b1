#pragma once

#include <cstdint>
#include <optional>

#include "schemas/table_schema.h"

namespace millrace::pgoutput {

/// How values of a type that every PostgreSQL has are kept.
struct BuiltinType {
  ValueKind kind = ValueKind::kExactText;
  bool array = false;
  auto operator<=>(const BuiltinType&) const = default;
};

/// By the type's OID, which is the same on every server (src/include/catalog/pg_type.dat). Nothing
/// for a type that is not built in, or that no column can have.
std::optional<BuiltinType> builtin_type(std::uint32_t oid);

/// Type of the elements of a built-in array type; 0 where `oid` is none.
std::uint32_t element_of_array(std::uint32_t oid);

/// Types from here on were made by somebody: extensions, enums, domains, rows
/// (FirstNormalObjectId).
inline constexpr std::uint32_t kFirstUserOid = 16'384;

}  // namespace millrace::pgoutput
