#pragma once

#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "schemas/lsn.h"

namespace millrace {

/// A transaction of the source, as its commit record tells of it.
struct SourceCommit {
  Lsn lsn;  ///< Where the commit record starts.
  std::uint32_t xid = 0;
  UnixMicros time;
  bool operator==(const SourceCommit&) const = default;
};

/// Whether a server still has the history that the log was fed with.
///
/// A server whose files were put back to an older copy has the system identifier and the timeline
/// that it had before, and once it has written enough, WAL beyond the log's end, too. But its slot
/// went back with it, to where it was confirmed then. So streaming begins at the log's last
/// transaction: where the slot is not beyond it, the server has to send just that one first (same
/// place, same xid, same time), and no change before the place up to which the log has read. Where
/// the slot is beyond it, that is because we confirmed it: the server has it. Pure.
///
/// Errors of all: kFailedPrecondition, SOURCE_REWOUND with the way out.
class HistoryCheck {
 public:
  /// Of a log of which that is not known: what it takes in from now on is.
  HistoryCheck() = default;
  /// `last`: the log's last transaction; none if it never had one.
  explicit HistoryCheck(std::optional<SourceCommit> last) : last_(last), known_(true) {}

  /// Where streaming is to begin, if the log has read all that commits before `read_to`.
  Lsn start(Lsn read_to) const { return last_ ? last_->lsn : read_to; }
  /// A new connection: the server begins to send at start(), or at `slot` if that is later.
  void begin(Lsn slot) { must_come_ = last_ && slot <= last_->lsn; }
  /// It sends this transaction.
  Result<void> sent(const SourceCommit& commit);
  /// One that commits where the log has read already, and it has changes.
  Result<void> sent_again(const SourceCommit& commit) const;
  /// It has sent everything that commits before `end`.
  Result<void> sent_all_before(Lsn end) const;
  /// The log has taken in a transaction.
  void taken(const SourceCommit& commit) {
    last_ = commit;
    known_ = true;
  }

 private:
  std::optional<SourceCommit> last_;
  bool known_ = false;
  bool must_come_ = false;  ///< last_, before anything newer.
};

}  // namespace millrace
