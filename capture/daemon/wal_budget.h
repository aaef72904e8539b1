#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schemas/lsn.h"

namespace millrace {

/// What a server says of a slot and of the WAL that it keeps for it.
struct SlotLook {
  Lsn server_end;
  std::optional<Lsn> restart, confirmed;
  std::string wal_status;                     ///< "reserved", "extended", "unreserved", "lost".
  std::optional<std::int64_t> safe_bytes;     ///< Until the slot is in danger; none: no limit.
  std::optional<std::uint64_t> budget_bytes;  ///< max_slot_wal_keep_size; none: no limit.

  std::uint64_t retained_bytes() const {
    return restart && *restart < server_end ? server_end.value - restart->value : 0;
  }
};

/// Says in time when a slot's WAL is running out, and each thing once: again only after it had
/// become better. Pure.
class WalBudget {
 public:
  explicit WalBudget(std::uint64_t held_back_bytes) : held_back_bytes_(held_back_bytes) {}

  /// Sentences for the log.
  std::vector<std::string> judge(const SlotLook& look);
  /// True when the server keeps much WAL though what we have confirmed is well beyond it: a
  /// transaction that is open since then would be why. From so many bytes on; once that was told,
  /// from twice as many as then.
  bool held_back(const SlotLook& look);
  void told_held_back(const SlotLook& look) { held_told_ = look.retained_bytes(); }

 private:
  std::uint64_t held_back_bytes_;
  int level_ = 0;  ///< 1: less than 25 % left, 2: less than 10 %, 3: unreserved.
  std::uint64_t held_told_ = 0;
};

}  // namespace millrace
