#include "capture/postgres/binary_choice.h"

#include "capture/pgoutput/binary_value.h"

namespace millrace {

namespace {

Result<bool> is_exact(CatalogLookup& catalog, std::uint32_t type_oid) {
  MILLRACE_ASSIGN_OR_RETURN(const ColumnType type, catalog.type(type_oid, -1));
  return pgoutput::binary_type(type.base_oid, type.kind, type.array).exact();
}

}  // namespace

Result<bool> binary_is_exact(CatalogLookup& catalog, const std::vector<SourceColumn>& columns) {
  for (const SourceColumn& column : columns) {
    MILLRACE_ASSIGN_OR_RETURN(const bool exact, is_exact(catalog, column.type_oid));
    if (!exact) return false;
  }
  return true;
}

Result<bool> binary_is_exact(Catalog& catalog, const std::string& publication) {
  MILLRACE_ASSIGN_OR_RETURN(const auto oids, catalog.published_types(publication));
  for (const std::uint32_t oid : oids) {
    MILLRACE_ASSIGN_OR_RETURN(const bool exact, is_exact(catalog, oid));
    if (!exact) return false;
  }
  return true;
}

}  // namespace millrace
