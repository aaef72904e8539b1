#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"
#include "eventstore/repair.h"

namespace millrace::log {

/// Finds out where the log of a damaged store has to end, and what that takes. Reads everything,
/// changes nothing. For one run().
class RepairPlanner {
 public:
  /// The segment that says what is lost: a new one, or one that is written anew without its end.
  struct LostSegment {
    SegmentHeader header;  ///< All but `own`, `control` and the times.
    bool exists = false;
    std::uint64_t keep_until = kSegmentHeaderBytes;  ///< Of the present one's bytes.
    std::vector<Removal> removals;
  };
  /// The first thing that is wrong.
  struct Damage {
    std::uint64_t segment = 0;
    std::uint64_t position = 0;
    std::string what;
  };
  struct Outcome {
    RepairPlan plan;
    std::optional<StoreDescription> description;  ///< What store.json has to say, if it is wrong.
    std::optional<LostSegment> lost;
    std::optional<SegmentHeader> next;  ///< Of the one to begin; all but `created`.
  };

  RepairPlanner(FileSystem& files, StorePaths paths) : files_(files), paths_(std::move(paths)) {}

  /// Errors: as plan_repair().
  Result<Outcome> run();

 private:
  /// Where a log can be cut.
  struct Cut {
    LogMark mark;
    std::uint64_t chain = 0;  ///< At the mark.
    Offset next;              ///< The first that does not stay.
    /// The segment before it stays as it is; nothing: it is written anew.
    std::optional<SegmentHeader::Predecessor> behind{};
  };

  Result<void> read_headers();
  Result<void> identify();
  Result<void> set_strangers_aside();
  Result<bool> ends_in_loss(std::uint64_t segment);
  Result<bool> is_left_behind_loss(std::uint64_t segment, std::uint64_t before);
  Result<bool> knows_of_lost_segment(const LogMark& claim);
  Result<std::optional<Damage>> find_damage();
  Result<std::optional<Damage>> check_segment(SegmentReader& reader, bool is_last);
  Result<std::optional<Damage>> check_tail(std::uint64_t segment);
  std::string wrong_link(const SegmentHeader& header) const;
  void note_cut(SegmentReader& reader, bool at_end);
  Result<void> read_head();
  Result<void> cut(const std::optional<Damage>& damage);
  Result<void> make_lost_segment();
  void begin_next();
  LogMark start_mark(Offset first) const;
  Result<RepairStep> step_for(RepairStep::Kind kind, std::uint64_t segment, std::uint64_t from,
                              std::string reason);
  Result<void> count_lost(std::uint64_t segment, RepairStep& step);
  void move_head_away();

  FileSystem& files_;
  StorePaths paths_;
  StoreId id_;
  std::vector<std::uint64_t> segments_;               // those of this store, under their own names
  std::map<std::uint64_t, SegmentHeader> headers_;    // by name, of those that can be read
  std::optional<SegmentHeader::Predecessor> before_;  // how the last sound segment ended
  std::optional<Cut> cut_;
  std::optional<LogMark> claim_;  // HEAD: the log reached this far
  Batch batch_;
  Outcome outcome_;
};

}  // namespace millrace::log
