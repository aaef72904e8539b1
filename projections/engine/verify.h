#pragma once

#include <string>
#include <vector>

#include "projections/engine/build.h"
#include "projections/engine/context.h"

namespace millrace::projections {

inline constexpr std::size_t kDifferencesShown = 10;

struct Difference {
  std::string what;  ///< "row", "document", "word"
  std::string key;
  std::string live, computed;  ///< What differs, or "(none)".
};

struct VerifyReport {
  Offset offset;  ///< The view was compared as of here.
  std::uint64_t compared = 0;
  std::uint64_t different = 0;
  std::vector<Difference> differences;  ///< The first kDifferencesShown.
  QuarantineCounts left_out{};          ///< Of both sides.
};

/// Computes the view once more from offset zero to the live one's checkpoint, in a file of its own,
/// and compares the two row by row. A worker may go on meanwhile: the live view is read in one read
/// transaction. Events that wait in the live view's quarantine, or were skipped, are left out.
///
/// kNotFound if the view was never made. kFailedPrecondition if the program declares another view
/// than the file holds.
Result<VerifyReport> verify_view(const View& view, const Context& context,
                                 const BuildHooks& hooks = {});

}  // namespace millrace::projections
