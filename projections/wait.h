#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/types.h"
#include "schemas/lsn.h"

namespace millrace::projections {

/// Where a view is found.
struct ViewPlace {
  Path store;        ///< The event store's directory.
  Path views;        ///< The folder of the SQLite files.
  std::string view;  ///< Its name.
};

/// What a view is to have folded: everything below an offset; or everything that the source had
/// committed when its WAL was written up to a position. Without either, all that is in the store
/// now.
struct WaitTarget {
  std::optional<Offset> offset{};
  std::optional<Lsn> lsn{};
};

/// Read your own writes: after a commit on the source, with the answer of `SELECT
/// pg_current_wal_insert_lsn()` on the same connection, returns once the live view shows that
/// commit. False if `timeout` has passed before.
///
/// Another process may keep the view up to date; this one only looks. Where nothing else is written
/// to the source, its position is known in the store with capture's next heartbeat at the latest.
///
/// Of a view in memory it is the process that runs it that shows it: without one nobody does, and
/// this waits, whatever the last snapshot has.
///
/// Positions are those of the source that the store is fed from now.
///
/// Errors: those of the store and of the view's file; kFailedPrecondition with the reason if the
/// view has stopped for good; kCancelled if `stop` was asked; kInvalidArgument for an offset that
/// the store has not given yet. Threads: any number.
Result<bool> wait_until_folded(const ViewPlace& place, const WaitTarget& target,
                               std::optional<std::chrono::milliseconds> timeout = {},
                               const std::stop_token& stop = {});

}  // namespace millrace::projections
