#include "capture/state/transaction_snapshot.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/bytes.h"

namespace millrace {
namespace {

/// A number of 32 bits comes again after 2^32 transactions. A server that makes a million a second
/// needs more than an hour for that, and a transaction that was committed, but is not visible yet,
/// is so for moments (as long as a synchronous standby does not answer). So what was committed
/// longer ago than this is old, whatever its number.
constexpr std::chrono::microseconds kVisibleBy = std::chrono::minutes(30);

bool take_number(std::string_view& text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, char what) {
  if (!text.starts_with(what)) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

Result<TransactionSnapshot> TransactionSnapshot::parse(std::string_view text, UnixMicros taken) {
  TransactionSnapshot snapshot;
  snapshot.taken_ = taken;
  std::string_view rest = text;
  bool good = take_number(rest, snapshot.xmin_) && take(rest, ':') &&
              take_number(rest, snapshot.xmax_) && take(rest, ':');
  for (std::uint64_t xid = 0; good && !rest.empty();) {
    good = take_number(rest, xid) && (rest.empty() || take(rest, ','));
    snapshot.running_.push_back(xid);
  }
  if (!good)
    return Error(ErrorCode::kUnsupported, "'" + printable(text) + "' is no snapshot of PostgreSQL");
  std::sort(snapshot.running_.begin(), snapshot.running_.end());
  return snapshot;
}

bool TransactionSnapshot::sees(std::uint32_t xid, UnixMicros commit_time) const {
  if (commit_time.value < taken_.value - kVisibleBy.count()) return true;
  // All that run now are within 2^31 of one another: PostgreSQL refuses to go further.
  const auto away = static_cast<std::int32_t>(xid - static_cast<std::uint32_t>(xmax_));
  if (away >= 0) return false;
  const std::uint64_t whole = xmax_ - static_cast<std::uint64_t>(-static_cast<std::int64_t>(away));
  if (whole < xmin_) return true;
  return !std::binary_search(running_.begin(), running_.end(), whole);
}

}  // namespace millrace
