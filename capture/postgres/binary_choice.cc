#include "capture/postgres/binary_choice.h"

#include "capture/pgoutput/binary_value.h"

namespace millrace {

Result<bool> binary_is_exact(Catalog& catalog, const std::string& publication) {
  MILLRACE_ASSIGN_OR_RETURN(const auto oids, catalog.published_types(publication));
  for (const std::uint32_t oid : oids) {
    MILLRACE_ASSIGN_OR_RETURN(const ColumnType type, catalog.type(oid, -1));
    if (!pgoutput::binary_type(type.base_oid, type.kind, type.array).exact()) return false;
  }
  return true;
}

}  // namespace millrace
