#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>

// A declared view keeps rows of its tables as they were captured, and takes back what it had made
// of them. A program that was built for another type of a column, which is another field of the
// message, sees null in that of a row that was kept before, and would take back what was never
// there. So the view remembers how the columns were encoded.

namespace millrace::projections::internal {

/// The columns of a row message as they are encoded, a line each.
std::string layout_of(const google::protobuf::Descriptor& row);

/// The first column that is encoded otherwise in `kept` than in `now`, both from layout_of(); empty
/// if there is none. A column that only one of them has makes no difference.
std::string column_that_differs(std::string_view kept, std::string_view now);

}  // namespace millrace::projections::internal
