#include "capture/daemon/wal_budget.h"

#include <algorithm>

#include "base/progress.h"

namespace millrace {
namespace {

std::string bytes(std::uint64_t number) { return human_bytes(static_cast<double>(number)); }

constexpr const char* kWayOut =
    "; capture must catch up, the transaction that holds it back must end, or "
    "max_slot_wal_keep_size must grow (ALTER SYSTEM, then pg_reload_conf())";

}  // namespace

std::vector<std::string> WalBudget::judge(const SlotLook& look) {
  int level = 0;
  double left = 1;
  if (look.safe_bytes && look.budget_bytes && *look.budget_bytes > 0) {
    left = static_cast<double>(std::max<std::int64_t>(*look.safe_bytes, 0)) /
           static_cast<double>(*look.budget_bytes);
    if (left < 0.25) level = 1;
    if (left < 0.10) level = 2;
  }
  if (look.wal_status == "unreserved") level = 3;
  const int before = level_;
  // A little better is not yet well: who hovers about a threshold is not told each time.
  level_ = level > before || left > 0.5 ? level : before;
  if (level <= before) return {};
  const std::string kept = bytes(look.retained_bytes());
  if (level == 3)
    return {"the slot's WAL (" + kept +
            ") is beyond max_slot_wal_keep_size: the next checkpoint may remove it, and the slot "
            "is lost then" +
            kWayOut};
  return {"only " + std::to_string(static_cast<int>(left * 100)) +
          " % is left of what max_slot_wal_keep_size lets the slot keep: the server holds " + kept +
          " of WAL for it, of " + bytes(*look.budget_bytes) + kWayOut};
}

bool WalBudget::held_back(const SlotLook& look) {
  const std::uint64_t retained = look.retained_bytes();
  const std::uint64_t ours =  // what we have not confirmed
      look.confirmed && *look.confirmed < look.server_end
          ? look.server_end.value - look.confirmed->value
          : 0;
  if (retained < held_back_bytes_ / 2) held_told_ = 0;
  return retained >= held_back_bytes_ && ours <= retained / 2 && retained >= 2 * held_told_;
}

}  // namespace millrace
