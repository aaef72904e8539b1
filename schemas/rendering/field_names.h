#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "schemas/table_schema.h"

namespace millrace::rendering {

/// Letters, digits and underscores, not beginning with a digit; ASCII.
bool is_identifier(std::string_view name);

/// The name of each column's field, in the order of the columns. A column keeps its name where it
/// can be a field's and no column with a lower field number took it or one too near to it.
std::vector<std::string> field_names(const TableSchema& schema);

}  // namespace millrace::rendering
