#pragma once

#include <optional>
#include <stop_token>

#include "base/result.h"
#include "capture/daemon/monitor.h"
#include "capture/pipeline/change_encoder.h"
#include "eventstore/event_store.h"
#include "schemas/lsn.h"

namespace millrace {

/// What the encoder writes to, and the last position that went in.
class StoreOut final : public EventOut {
 public:
  StoreOut(EventStore& store, Lsn end) : store_(store), end_(end) {}
  /// The same, and tells `monitor` of what was committed.
  StoreOut(EventStore& store, Lsn end, Monitor& monitor) : StoreOut(store, end) {
    tally_.emplace(monitor);
  }

  Result<void> begin(const TransactionInfo& info) override;
  Result<void> add(const NewEvent& event) override;
  Result<void> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;
  /// A transaction without events: all that commits before `end` has been read. Its commit position
  /// is just below the next one that there can be.
  Result<void> record_position(std::uint32_t epoch, Lsn end);

  Lsn end() const { return end_; }  ///< Source position up to which everything was appended.

 private:
  EventStore& store_;
  Lsn end_;
  UnixMicros commit_time_;  ///< Of the open transaction.
  std::optional<ChangeTally> tally_;
};

/// Asks for a flush of what `store` was given and waits until everything before `end` and up to
/// `source_end` is durable. kCancelled on `stop`.
Result<void> wait_until_durable(EventStore& store, Offset end, std::uint64_t source_end,
                                const std::stop_token& stop);

}  // namespace millrace
