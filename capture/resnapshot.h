#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace millrace {

struct ResnapshotOptions {
  std::string source;
  Path store;
  /// As in CaptureOptions; at least one, and each that names one table must be captured.
  std::vector<std::string> tables;
  /// SQL, a condition on the rows that are to be read; empty for all. Names of functions and types
  /// beyond pg_catalog need their schema.
  std::string where;
  FileSystem* files = &FileSystem::real();
};

/// Asks whoever captures into the store to read rows of tables once more and to append them beside
/// the stream, as `r` events; gives the tables' names. Returns when the request is durable: a
/// running capture begins within a second or two, without one the next does.
///
/// Rows that the log has and the table has no more are not found by this. Everything is looked at
/// before: the tables, their right to be read and `where`. Errors: kFailedPrecondition (the store
/// was never fed, or by another source; a table that can't be read beside the stream; PostgreSQL
/// refuses the condition), kInvalidArgument (no table matches), kUnavailable, kIo.
Result<std::vector<std::string>> request_resnapshot(const ResnapshotOptions& options);

}  // namespace millrace
