#include "capture/pipeline/history_check.h"

#include <string>

namespace millrace {
namespace {

Error rewound(const std::string& what) {
  return Error(ErrorCode::kFailedPrecondition, "SOURCE_REWOUND: " + what)
      .hint(
          "The server is the one that the store was fed from, but it was put back to an older "
          "state and has gone on from there: the store's newest changes are none of its own. Run "
          "`millrace capture resync`: it compares the tables with the store, appends what differs "
          "and goes on with a new slot.");
}

std::string described(const SourceCommit& commit) {
  return "transaction " + std::to_string(commit.xid) + " that committed at " +
         to_string(commit.lsn);
}

}  // namespace

Result<void> HistoryCheck::sent(const SourceCommit& commit) {
  if (!last_ || commit.lsn < last_->lsn) return {};
  if (commit.lsn > last_->lsn) return sent_all_before(commit.lsn);
  must_come_ = false;
  if (commit == *last_) return {};
  return rewound("at " + to_string(commit.lsn) + " the server has transaction " +
                 std::to_string(commit.xid) + " of " + to_iso8601(commit.time) + ", the store " +
                 std::to_string(last_->xid) + " of " + to_iso8601(last_->time));
}

Result<void> HistoryCheck::sent_again(const SourceCommit& commit) const {
  if (!known_ || (last_ && commit.lsn <= last_->lsn)) return {};
  return rewound("the server sends changes of " + described(commit) +
                 ", where the store has read already and found none");
}

Result<void> HistoryCheck::sent_all_before(Lsn end) const {
  if (!must_come_ || end <= last_->lsn) return {};
  return rewound("the server no longer has " + described(*last_) + ", the store's last");
}

}  // namespace millrace
