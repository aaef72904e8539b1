#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "eventstore/log/key_table.h"
#include "eventstore/log/segment_rewriter.h"
#include "eventstore/maintenance_api.h"
#include "eventstore/policy.h"

// Which events of some sealed segments nobody needs any more: a pure decision, told event by event.
//
// The whole log goes by, oldest event first, once for each range of key hashes that fits into
// memory. An event of a compacted category is superseded when a complete newer one of its key comes
// by: so the latest complete one stays, and what came after it. A tombstone goes when it is past
// its grace and the log holds nothing older of its key, in whatever file: so a run that removes the
// older ones leaves it to the next run, and no interruption in between can bring anything back. A
// TRUNCATE is the same for its whole category. What is marked is a bit for each offset.
namespace millrace::log {

/// A segment as it is now.
struct SegmentRange {
  std::uint64_t first = 0;  ///< Its first offset, its name.
  std::uint64_t end = 0;    ///< That of the segment after it.
};

/// A partial event that can be completed: from the events at `parts`, the first complete, in order.
struct Completion {
  std::vector<std::uint64_t> parts;
};

class Liveness {
 public:
  struct Rules {
    const Policies* policies = nullptr;
    UnixMicros now;
    /// What is at this offset or above is never removed for good: a consumer still needs it.
    Offset hold{~std::uint64_t{0}};
    /// Partial events can be completed.
    bool complete_partials = false;
    IsMovedFunction is_moved{};  ///< As in CompactionOptions.
    std::size_t memory_bytes = 64 << 20;
    std::uint64_t secret = 0;  ///< Makes the hashes of keys unforeseeable.
  };

  /// All segments of the log, of which those from index `from` to below `to` are asked about.
  Liveness(const Rules& rules, std::vector<SegmentRange> segments, std::size_t from,
           std::size_t to);

  /// True if the log has to go by (again), from its start to its end.
  bool next_pass();
  void see(const EventView& event, UnixMicros append_time);

  /// What shall become of an event of the segments asked about; after the last pass. A completed
  /// one comes without its payload.
  Verdict judge(const EventView& event) const;
  /// Nullptr if the event at `offset` can't be completed, or needs not.
  const Completion* completion(Offset offset) const;

  template <typename Function>
  void for_each_completion(std::size_t segment, Function function) const {
    const auto end = completions_.lower_bound(segments_[segment].end);
    for (auto one = completions_.lower_bound(segments_[segment].first); one != end; ++one)
      function(one->second);
  }

  std::uint64_t event_bytes(std::size_t segment) const { return totals_[segment].bytes; }
  /// About so many of them would go; completing an event counts as what it frees in the next run.
  std::uint64_t dead_bytes(std::size_t segment) const { return totals_[segment].dead; }
  std::size_t passes() const { return passes_; }

  /// As event_bytes() counts an event.
  static std::uint32_t bytes_of(const EventView& event);

 private:
  enum Mark : std::uint8_t { kSuperseded, kTombstoneGone, kStreamGone, kPinned, kMarks };
  struct Share {
    std::size_t segment = 0;
    std::uint64_t bytes = 0, dead = 0;
  };
  struct Category {
    std::string name;
    std::uint32_t index = 0;
    CategoryPolicy policy;
    std::uint64_t seed = 0;
    std::vector<Share> shares;  // by segment, ascending
    bool seen = false;
    std::optional<std::uint64_t> truncated_at;  // the latest category tombstone
    bool truncation_goes = false;
    /// What is below may be what a moved row is completed from.
    std::uint64_t needed_below = 0;
    std::uint64_t expired_before = 0;
    bool young_seen = false;
  };
  struct Stream {
    std::vector<PartialEvent> newest;  // a ring of max_count
    std::size_t next = 0;
    std::optional<PartialEvent> last;  // the stream's last event stays, whatever its age
    bool last_goes = false;
    std::uint64_t last_complete = 0;  // what comes after it is completed from it
    std::vector<PartialEvent> held;   // goes when another complete one comes
  };
  struct Totals {
    std::uint64_t bytes = 0, dead = 0;
    std::array<std::vector<std::uint64_t>, kMarks> marks;  // bits, made when first set
  };

  Category& category(std::string_view name);
  const Category* find_category(std::string_view name) const;
  void account(Category& category, const EventView& event, UnixMicros append_time);
  void see_stream(Stream& stream, const StreamPolicy& policy, const EventView& event,
                  UnixMicros append_time);
  void see_key(Category& category, const EventView& event, UnixMicros append_time);
  bool is_moved(const Category& category, const EventView& event) const;
  void add_partial(const EventView& event, KeyState& state);
  void supersede(Category& category, const KeyState& state);
  void add_dead(Category& category, std::uint64_t offset, std::uint32_t bytes);
  void let_go(Stream& stream, const PartialEvent& event);
  void remove_from_stream(const PartialEvent& event);
  bool mark(Mark mark, std::uint64_t offset);
  bool is_marked(Mark mark, std::uint64_t offset) const;
  std::size_t segment_of(std::uint64_t offset) const;
  bool is_older_than(UnixMicros time, std::chrono::seconds age) const;
  void finish_pass();
  void finish_key(const KeyState& state);
  void find_expiry(Category& category) const;
  void finish();

  const Rules rules_;
  const std::vector<SegmentRange> segments_;
  const std::size_t from_, to_;
  std::vector<Totals> totals_;
  std::size_t here_ = 0;  // the segment that goes by
  std::size_t passes_ = 0;
  KeyTable keys_;
  std::map<std::string, Category, std::less<>> categories_;
  Category* category_ = nullptr;  // the last one asked for
  std::map<const StreamPolicy*, Stream> streams_;
  std::vector<Category*> by_index_;
  std::map<std::uint64_t, Completion> completions_;  // by the offset of what gets complete
  std::size_t completion_parts_ = 0;
  std::set<std::uint64_t> moved_;  // partial events whose complete ones are under other keys
};

}  // namespace millrace::log
