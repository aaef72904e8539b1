#pragma once

#include <string>

#include "base/result.h"
#include "capture/postgres/catalog.h"

namespace millrace {

/// Whether each of `columns` has a type with an exact decoder (pgoutput/binary_value.h), so that
/// rows may be copied in binary. Errors: the catalog's.
Result<bool> binary_is_exact(CatalogLookup& catalog, const std::vector<SourceColumn>& columns);

/// Whether all that `publication` sends now may be asked for in binary: every column's type has an
/// exact decoder (pgoutput/binary_value.h). A column that comes later may have none: ChangeEncoder
/// then refuses its value, kUnsupported. Or the server fails on it (an array whose elements can't
/// be sent in binary). Ask for text then.
///
/// It is faster, mostly for the server, and the only way for values beyond half a gibibyte, whose
/// text would be larger than PostgreSQL can make. Errors: the catalog's.
Result<bool> binary_is_exact(Catalog& catalog, const std::string& publication);

}  // namespace millrace
