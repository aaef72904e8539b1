#pragma once

#include <cstdint>
#include <optional>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/format.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"

// What a crash leaves behind the last whole transaction, and what to do about it.
//
// A crash takes back what was not synced, in any pattern of sectors (the kernel copies a write page
// by page, a disk writes sectors whole), and the file was zeros there before. So each sector behind
// the last good batch is either as it was written or still zeros; a batch that is torn lacks at
// least one whole sector; and nothing that was written after a later sync can lie behind it.
// Whatever can't have come about that way is damage to data that may have been acknowledged: it is
// never cut off, the store refuses to open.
//
// What looks torn may still be damage: a sector that the disk lost, or one that holds zeros anyway
// beside one that is damaged. HEAD tells, as far as it is known to reach: nothing below what it
// called durable, before or since the machine started, is ever cut off.
namespace millrace::log {

/// What lies where the next batch would be.
enum class TailBytes : std::uint8_t {
  kNothing,  ///< The end of the file, or zeros to the end of the sector.
  kTorn,     ///< The next batch, of which a sector is missing.
  kDamaged,  ///< Bytes that no interrupted write of the next batch leaves.
};

struct TailEvidence {
  TailBytes bytes = TailBytes::kNothing;
  /// It lies below what HEAD once called durable.
  bool below_durable = false;
  /// A batch further on says that it was written after this place had been synced.
  bool synced_before = false;
};

enum class TailVerdict : std::uint8_t { kClean, kCut, kRefuse };
TailVerdict judge(const TailEvidence& evidence);

/// The end of a segment that is still being written.
struct Tail {
  SegmentHeader header;
  LogState state;                          ///< Behind the last good batch.
  BatchFault fault = BatchFault::kAbsent;  ///< What ended the walk, at state.position().
  TailEvidence evidence;
  std::uint64_t file_bytes = 0;
  std::uint64_t torn_bytes = 0;  ///< From state.position() to the last byte that is not zero.
  std::uint64_t mark_chain = 0;  ///< Chain value behind state.mark(), if that is in this segment.
  std::uint64_t synced_position = 0;  ///< What its last batch knew to be synced.
};

/// Walks over the whole segment. `known_durable`: HeadView::at_least.
Result<Tail> examine_tail(SegmentReader& reader, const std::optional<LogMark>& known_durable);

/// The error of a tail that judge() refuses.
Error refusal(const StorePaths& paths, const Tail& tail);

/// The error of a log without any segment.
Error no_segments(const StorePaths& paths);

/// Where the log durably ends, found by reading its last segment: for readers when no writer has
/// written since the machine started. Errors: kCorruption, kUnsupported, kIo.
Result<LogMark> find_end(FileSystem& files, const StorePaths& paths, const StoreId& store,
                         const std::optional<LogMark>& known_durable);

/// Makes the log end with a whole transaction that is durable, and tells where. Cuts what a crash
/// tore and says so in the log; an interruption at any step is mended by the next call.
///
/// Errors: kCorruption (nothing was changed), kUnsupported, kNoSpace, kIo.
Result<LogState> recover(FileSystem& files, const StorePaths& paths, const StoreId& store,
                         const std::optional<LogMark>& known_durable);

}  // namespace millrace::log
