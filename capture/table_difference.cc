#include "capture/table_difference.h"

namespace millrace {

std::string_view name_of(RowDifferenceKind kind) {
  switch (kind) {
    case RowDifferenceKind::kMissing: return "missing in the store";
    case RowDifferenceKind::kGone: return "missing in the table";
    case RowDifferenceKind::kDifferent: return "different";
    case RowDifferenceKind::kIncomplete: return "incomplete in the store";
  }
  return "?";
}

}  // namespace millrace
