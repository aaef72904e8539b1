#pragma once

#include <string>

#include "base/result.h"
#include "projections/view.h"
#include "schemas/registry.h"

namespace millrace::projections {

/// Whether the messages that a program was compiled with can hold what the store has, so that a
/// difference is one message at start and not a null in a view.
///
/// A field matches a column by number, name and type. Columns without a field are not seen by the
/// program, which is its right. A field whose column is gone is fine: older events have it.
/// kFailedPrecondition names the first difference and how to mend it.
Result<void> check_row(const google::protobuf::Descriptor& row, const TableSchema& schema);

/// check_row() of a view's source against the latest schema, that its old rows are sent where it
/// needs them, and that what it compares can be compared. kNotFound, naming the tables that there
/// are, if the store has never seen the table. A source of events must not be a table; whether
/// there are any can't be told from schemas.
Result<void> check_source(const View& view, const internal::Source& source,
                          SchemaRegistry& schemas);

}  // namespace millrace::projections
