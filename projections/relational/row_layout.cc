#include "projections/relational/row_layout.h"

#include <map>

namespace millrace::projections::internal {
namespace {

/// "name number type" by the name.
std::map<std::string_view, std::string_view> columns_of(std::string_view layout) {
  std::map<std::string_view, std::string_view> columns;
  while (!layout.empty()) {
    const std::string_view line = layout.substr(0, layout.find('\n'));
    layout.remove_prefix(line.size() + 1);
    columns.emplace(line.substr(0, line.find(' ')), line);
  }
  return columns;
}

}  // namespace

std::string layout_of(const google::protobuf::Descriptor& row) {
  std::string layout;
  for (int i = 0; i < row.field_count(); ++i) {
    const auto& field = *row.field(i);
    layout += std::string(field.name()) + " " + std::to_string(field.number()) + " " +
              field.type_name() + (field.is_repeated() ? " repeated\n" : "\n");
  }
  return layout;
}

std::string column_that_differs(std::string_view kept, std::string_view now) {
  const auto before = columns_of(kept);
  for (const auto& [name, column] : columns_of(now)) {
    const auto known = before.find(name);
    if (known != before.end() && known->second != column) return std::string(name);
  }
  return {};
}

}  // namespace millrace::projections::internal
