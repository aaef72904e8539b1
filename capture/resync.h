#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "capture/capture.h"
#include "capture/table_difference.h"
#include "schemas/lsn.h"

namespace millrace {

struct ResyncOptions {
  std::string source;  ///< URI or key=value string, as libpq takes it.
  Path store;
  /// Empty: those that the store is fed from.
  std::string slot = {}, publication = {};
  /// Where the store's source.json is gone: as CaptureOptions::outbox was. Else empty, or what the
  /// store remembers.
  std::vector<std::string> outbox = {};
  /// Take another server or database than the one that the store was fed from, or any where the
  /// store does not know it any more: what the store has and this one has not is then gone.
  bool accept_new_source = false;
  /// As VerifyOptions.
  Path spill = {};
  std::size_t memory_bytes = 64 << 20;
  FileSystem* files = &FileSystem::real();
};

struct ResyncReport {
  /// Why it was needed, as capture would have said: "SLOT_MISSING", "SOURCE_GAP"; "REQUESTED" where
  /// nothing was wrong.
  std::string reason;
  std::uint32_t epoch = 0;  ///< The one that begins with it.
  Lsn old_end, new_start;
  std::vector<TableReport> tables;
};

/// Makes the store what the source's tables are, and lets capture go on from there: the way out of
/// every state in which it halts because changes were lost.
///
/// A new slot is made, all captured tables are compared with what the store's events add up to
/// under the slot's snapshot, and only what differs is appended: `r` of a row that the store lacks,
/// `u` of one that is different or incomplete, `d` of one that is gone (of a table without a key
/// that has lost rows: `t`, and `r` of every row). All of it is one transaction of the log, the
/// first of a new epoch, with a `resynced` event in the category `$capture` that tells of the gap.
/// Then the slot takes the old one's name, which is dropped.
///
/// Until the end nothing is changed, in the store or of the old slot; what is killed after that can
/// be done again, and must be: capture halts with RESYNC_UNFINISHED until it is. No capture may
/// run.
///
/// Errors: kLocked (a capture runs), kFailedPrecondition (the slot's name is somebody else's:
/// SLOT_EXISTS; another source than the store's, not accepted; what capture needs is missing in the
/// source), kUnavailable, kCancelled, and those
/// of EventStore.
Result<ResyncReport> resync_source(const ResyncOptions& options, const std::stop_token& stop);

}  // namespace millrace
