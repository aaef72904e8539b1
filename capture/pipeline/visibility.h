#pragma once

#include <cstdint>
#include <set>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace millrace {

/// What a snapshot of PostgreSQL does not see, of its own database: pg_current_snapshot().
struct SourceSnapshot {
  std::uint64_t xmax = 0;           ///< Transactions from here on had not begun.
  std::vector<std::uint64_t> open;  ///< Those before it that had not ended for it, sorted.
};
/// "4711" and "4703,4709". Errors: kCorruption.
Result<SourceSnapshot> parse_source_snapshot(std::string_view xmax, std::string_view open);

/// Tells whether a snapshot saw everything that the stream had brought before a watermark.
///
/// PostgreSQL writes a commit to its log before it lets others see it, and may take long in between
/// (synchronous replication): the stream may have brought a transaction that a snapshot taken later
/// does not see (F98). It is among those that were open for the snapshot. So are those that have
/// not committed; which of them the stream has brought since reset() is noted here, and one that
/// was open when the first snapshot after reset() was taken may have come before: until it is seen
/// to have ended, no snapshot is trusted. Pure. Threads: one.
class VisibilityCheck {
 public:
  /// Nothing is known of what the stream has brought.
  void reset();
  /// The stream has brought transaction `xid`, with changes.
  void streamed(std::uint32_t xid);
  /// To be asked where the stream has reached a position that was written before `snapshot` was
  /// taken. If false, the snapshot may miss changes that the stream has brought: take a new one.
  bool sees_all(const SourceSnapshot& snapshot);
  /// Open since before the first snapshot.
  std::size_t waits_for() const { return unknown_.size(); }

 private:
  bool begun_ = false;
  std::set<std::uint64_t> unknown_;
  std::set<std::uint32_t> streamed_;  // that no snapshot was seen to see
};

}  // namespace millrace
