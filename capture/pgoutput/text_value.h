#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "schemas/table_schema.h"

namespace millrace::pgoutput {

/// Appends one field of a row message to `row`: `text` is PostgreSQL's text output of a value of
/// `column`'s type under the settings that capture pins (DateStyle ISO, IntervalStyle postgres,
/// extra_float_digits 3, bytea_output hex, TimeZone UTC). COPY and replication stream both come
/// through here. A value is kept exactly or refused, never rounded; docs/rows.md tells how each
/// kind is kept. json, enum labels and text of any other type are copied as they are. Errors:
/// kInvalidArgument naming column and value's beginning when `text` is no such value; `row` is then
/// unchanged. Threads: any.
Result<void> append_text_value(const ColumnSchema& column, std::string_view text, std::string& row);

}  // namespace millrace::pgoutput
