#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "capture/table_difference.h"

namespace millrace {

struct VerifyOptions {
  std::string source;  ///< URI or key=value string, as libpq takes it.
  Path store;
  /// Patterns as CaptureOptions::tables. Empty: every table of the publication.
  std::vector<std::string> tables = {};
  /// How long to wait until a running capture has what the snapshot sees.
  std::chrono::milliseconds wait{60'000};
  /// For what does not fit into memory: the rows of the largest table, and as many as the store
  /// has of all. Empty: the store's folder, in which no name appears.
  Path spill = {};
  std::size_t memory_bytes = 64 << 20;
};

/// Compares the tables of a source with what the events of a store add up to, in one moment of the
/// source: the store may be captured into meanwhile, and the tables written to. Gives a report for
/// each table, in the order of their names, after its differences went to `on_difference`.
///
/// It reads the tables in one snapshot of the server, waits until the store has everything that
/// this sees, and leaves out of the log what it does not see. Changes nothing in either, but for an
/// empty message in the server's WAL. The tables are locked against TRUNCATE and ALTER TABLE
/// meanwhile, not against reading and writing.
///
/// Errors: kFailedPrecondition (the store does not have all yet and no capture runs, no such table,
/// another source than the store's), kUnavailable (connection; a running capture that has not
/// caught up in time), kCancelled, and those of LogReader.
Result<std::vector<TableReport>> verify_source(
    const VerifyOptions& options, const std::stop_token& stop,
    const std::function<Result<void>(const TableDifference&)>& on_difference);

}  // namespace millrace
