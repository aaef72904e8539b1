#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "eventstore/inspect.h"
#include "eventstore/types.h"

// What to do with a damaged store where there is no copy to put back.
//
// The log is a prefix: what stays ends with the last whole transaction before the first damage, and
// what lies behind goes, however good it may be. To keep it would leave a hole in the history, and
// whoever reads on across a hole has wrong state without knowing it; so that is not offered.
//
// Nothing is destroyed: what is taken out stays in a folder in the store, as it was. No offset is
// given twice: the log goes on behind the last one that is known to have been there, and the
// segment in which those are missing says so. So a consumer that resumes before it is told
// OFFSET_GONE, and never reads other events under the offsets of those that it has seen. What the
// source is asked for follows from the last transaction that stays.
namespace millrace {

struct RepairStep {
  enum class Kind : std::uint8_t {
    kRebuild,   ///< store.json is written anew from what the segments say.
    kMoveAway,  ///< The file leaves the store.
    kCut,       ///< A segment is made, or written anew up to byte `from`; says what is lost.
    kBegin,     ///< An empty segment, with which the log goes on.
  };
  Kind kind = Kind::kMoveAway;
  std::string file;        ///< Within the store.
  std::uint64_t from = 0;  ///< Bytes of it that leave the log.
  std::uint64_t to = 0;
  /// What can still be read in these bytes.
  std::uint64_t events = 0;
  std::uint64_t transactions = 0;  ///< Of which the end can.
  std::string reason;
};

struct RepairPlan {
  StoreId store;
  std::vector<RepairStep> steps;  ///< In the order in which they are done.
  /// What `millrace log verify` finds. Empty if store.json is too damaged for it.
  std::vector<Fault> faults;
  /// An earlier repair was interrupted: the store is not opened until another has ended.
  bool interrupted = false;

  /// What lies before this stays, and with it what is known of the source.
  Offset end;
  std::optional<SourcePosition> source;
  UnixMicros last_commit_time;
  /// The offsets from `end` to here are lost, as far as anything tells of them; the log goes on
  /// here. The same as `end` if nothing is lost.
  Offset lost_end;
  /// Sums over `steps`.
  std::uint64_t lost_events = 0;
  std::uint64_t lost_transactions = 0;
  std::uint64_t lost_bytes = 0;

  bool is_needed() const { return interrupted || !steps.empty(); }
};

/// Looks, and changes nothing. A torn tail is no damage: the next writer cuts it off.
///
/// Errors: kLocked (a writer runs: what it writes changes under our eyes), kNotFound,
/// kFailedPrecondition (no store; or the damage is so far in front that nothing would be left),
/// kUnsupported (a newer store), kCorruption (not even whose segments these are can be told), kIo.
Result<RepairPlan> plan_repair(const Path& directory, FileSystem& files = FileSystem::real());

struct Repair {
  RepairPlan plan;
  /// Where that is which was taken out, with report.json; empty if there was nothing to do.
  Path kept;
};

/// Does what plan_repair() says. An interruption at any step leaves a store that no writer opens
/// and that the next call mends. Errors: as plan_repair(), kNoSpace.
Result<Repair> repair_store(const Path& directory, FileSystem& files = FileSystem::real(),
                            Clock& clock = Clock::system());

/// The plan as one JSON object, as report.json has it.
std::string to_json(const RepairPlan& plan);

}  // namespace millrace
