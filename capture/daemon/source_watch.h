#pragma once

#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>

#include "base/result.h"
#include "capture/daemon/monitor.h"
#include "capture/daemon/wal_budget.h"
#include "capture/postgres/connection.h"
#include "capture/postgres/source_address.h"

namespace millrace {

/// Looks at the server beside the stream, on a thread and a connection of its own: where its WAL
/// ends and what it keeps for the slot, warning in time; and commits probes, small transactions of
/// which the monitor tells how long they take to become durable here.
///
/// Nothing that goes wrong here is an error: what it tells is older then. It connects only while
/// the capture streams, so that it never adds to a storm of connections.
class SourceWatch {
 public:
  struct Options {
    std::string slot;
    std::chrono::milliseconds interval{5000};
    /// 0: no probes. On a server where nothing else is written, one in five minutes is sent at
    /// most, so that an idle server stays idle.
    std::chrono::milliseconds probe_interval{5000};
    std::uint64_t held_back_bytes = 256u << 20;
    std::chrono::milliseconds long_transaction{60'000};
  };

  SourceWatch(const SourceAddress& address, const Options& options, Monitor& monitor);
  ~SourceWatch();

 private:
  using Time = std::chrono::steady_clock::time_point;

  void run(const std::stop_token& stop);
  Result<void> tick(const std::stop_token& stop);
  Result<void> look();
  Result<void> tell_who_holds_back(const SlotLook& look);
  Result<void> probe();

  const SourceAddress address_;
  const Options options_;
  Monitor& monitor_;
  std::unique_ptr<PostgresConnection> connection_;
  WalBudget budget_;
  Lsn server_end_, after_probe_;
  Time probed_at_;
  std::jthread thread_;
};

}  // namespace millrace
