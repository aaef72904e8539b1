#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "schemas/table_schema.h"

// What compaction and erasing have to know of a captured row's change. An unchanged value (TOAST)
// that PostgreSQL did not send is in an older change of the row, which must not go before the newer
// one has it.
namespace millrace {

/// The change `newer` with its unchanged columns taken from `older`, as a payload; nothing if
/// `older` does not have them all. Both are millrace.v1.Change of one table, in any two versions of
/// its schema: a column keeps its field number. Pure. Errors: kCorruption (one of them is none).
Result<std::optional<std::string>> merge_change(std::string_view older, std::string_view newer);

/// True if the row had another key before, under which its unchanged columns are to be found; also
/// for what can't be read.
bool is_moved_change(std::string_view payload);

/// A DELETE of the row that the change `payload` is of, with its key and nothing else of it: what
/// stays when the row is erased. `schema` is the version that `payload` names (schema_of_change).
/// Nothing if the table has no key. Errors: kCorruption.
Result<std::optional<std::string>> forgetting_change(std::string_view payload,
                                                     const TableSchema& schema);
/// Errors: kCorruption.
Result<std::uint32_t> schema_of_change(std::string_view payload);

}  // namespace millrace
