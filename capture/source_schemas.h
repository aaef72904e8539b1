#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "schemas/registry.h"

namespace millrace {

struct SourceSchemasQuestion {
  std::string source;
  std::vector<std::string> tables = {};  ///< As in CaptureOptions; empty: the publication's.
  std::string publication = "millrace";  ///< Its column lists count; need not be there.
  std::vector<std::string> outbox =
      {};  ///< As in CaptureOptions: tables that have no rows to tell.
};

struct SourceSchemas {
  std::string database;
  std::vector<SchemaRegistry::Schema> tables;  ///< Sorted by category; all are version 1.
};

/// The schemas that the first capture of these tables into an empty store would record, from the
/// database as it is now. Changes nothing in it.
///
/// Errors: kFailedPrecondition (no such table, one that has no replica identity or may not be read:
/// all of them in one error, with the statements that mend it), kUnavailable (can't connect),
/// kInvalidArgument (bad URI or pattern).
Result<SourceSchemas> read_source_schemas(const SourceSchemasQuestion& question);

}  // namespace millrace
