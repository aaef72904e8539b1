#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace millrace {

/// Which transactions a snapshot of PostgreSQL sees, asked by what the stream says of each.
///
/// Positions can't tell: transactions become visible in another order than their commits stand in
/// the WAL. The stream names the top-level transaction, and so does pg_current_snapshot().
class TransactionSnapshot {
 public:
  /// `text` as txid_current_snapshot() gives it: "xmin:xmax:xip,xip" in 64 bits; `taken` by the
  /// server's clock. Errors: kUnsupported (another shape).
  static Result<TransactionSnapshot> parse(std::string_view text, UnixMicros taken);

  /// Whether it sees the transaction that the stream calls `xid` (32 bits, used again and again)
  /// and says was committed at `commit_time`.
  bool sees(std::uint32_t xid, UnixMicros commit_time) const;

 private:
  std::uint64_t xmin_ = 0, xmax_ = 0;
  std::vector<std::uint64_t> running_;  // ascending
  UnixMicros taken_;
};

}  // namespace millrace
