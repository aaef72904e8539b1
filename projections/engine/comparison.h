#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "eventstore/types.h"
#include "projections/engine/quarantine.h"
#include "projections/sqlite/database.h"
#include "projections/view.h"

namespace millrace::projections {

inline constexpr std::size_t kDifferencesShown = 10;
inline constexpr std::string_view kNone = "(none)";  ///< In the place of what is not there.

/// A value as a difference shows it.
std::string shown(const Value& value);

struct Difference {
  std::string what;  ///< "row", "document", "word"
  std::string key;
  std::string live, computed;  ///< What differs, or "(none)".
};

struct VerifyReport {
  Offset offset;  ///< Both were compared as of here.
  std::uint64_t compared = 0;
  std::uint64_t different = 0;
  std::vector<Difference> differences;  ///< The first kDifferencesShown.
  QuarantineCounts left_out{};          ///< Of both sides.
};

/// Compares what two files hold of `view`, row by row, and adds to `report`. Columns go by name:
/// one that only one of them has is a difference of its own. Errors: kFailedPrecondition if one of
/// them can't be read as this view declares it; kIo, kCorruption.
Result<void> compare_views(const View& view, sqlite::Database& live, sqlite::Database& computed,
                           VerifyReport& report);

}  // namespace millrace::projections
