#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "capture/capture_status.h"

namespace millrace {

/// The numbers of a running capture. Threads: the capture's thread tells what it does, another what
/// it sees on the server, any may read; whatever is told for each transaction is a few relaxed
/// atomics, without a lock.
class Monitor {
 public:
  using Count = std::atomic<std::uint64_t>;
  /// Tables that are counted by name; further ones are counted together, as "(other)".
  static constexpr std::size_t kTablesMax = 1000;

  /// What never changes of a capture.
  struct Identity {
    std::string source, slot, publication;
  };
  explicit Monitor(Identity identity, Clock& clock = Clock::system());

  // --- the capture's thread ---
  void enter(CapturePhase phase, std::string reason = {}, std::string halt = {});
  /// Streaming has begun; the server's WAL ended at `server_end`: up to there it catches up.
  void connected(Lsn server_end);
  void appended(std::uint64_t changes, Lsn end, UnixMicros commit_time);
  struct Progress {
    Lsn durable, confirmed;
    std::uint64_t store_end = 0;
    std::uint64_t repeated = 0;
  };
  /// Where things stand; called every few milliseconds.
  void progress(const Progress& now);
  /// The counter of a table; lives as long as the monitor.
  Count& table(std::string_view category);
  /// A probe's commit came, and ends at `end`. False if it is not the one that is out.
  bool probe_arrived(std::string_view text, Lsn end);

  // --- who looks at the server ---
  /// The text of a probe to be sent now; nothing while one is out.
  std::optional<std::string> begin_probe();
  /// The one that is out never arrives.
  void drop_probe();
  struct SourceLook {
    Lsn server_end;
    std::string wal_status;
    std::optional<std::uint64_t> retained_bytes;
    std::optional<std::int64_t> safe_wal_bytes;
  };
  void looked(const SourceLook& look);

  // --- any ---
  void listens_at(std::string address);
  bool streams() const;
  CaptureStatus status() const;

 private:
  using Time = Clock::Monotonic;
  static constexpr std::size_t kLooksMax = 64;
  static constexpr std::size_t kLatenciesMax = 512;

  /// Everything up to `end` was on the server at `at`.
  struct Seen {
    Lsn end;
    Time at;
  };
  struct Sample {
    Time at;
    std::uint64_t transactions = 0, changes = 0;
  };
  void saw(Lsn server_end, Time now);
  double lag_seconds(Lsn durable, Time now) const;
  void add_latency(double seconds);
  void fill_rates(CaptureStatus& status, Time now) const;

  Clock& clock_;
  std::string nonce_;  ///< Of this process, in its probes.
  CaptureStatus fixed_;

  Count transactions_ = 0, changes_ = 0, appended_ = 0, durable_ = 0, confirmed_ = 0,
        store_end_ = 0, repeated_ = 0;
  std::atomic<std::int64_t> durable_commit_time_ = 0;
  std::atomic<std::uint64_t> goal_ = 0;       ///< Of catching up; 0: none.
  std::atomic<std::uint64_t> probe_end_ = 0;  ///< Of the probe that has arrived; 0: none.
  /// The last commit of which nobody knows yet whether it is durable; the capture's thread only.
  Lsn commit_end_;
  UnixMicros commit_time_;
  std::atomic<Time> durable_moved_;  ///< Or had nothing to wait for.
  std::atomic<Time> beat_;           ///< Of progress().

  mutable std::mutex mutex_;  ///< Guards all below.
  CapturePhase phase_ = CapturePhase::kStarting;
  std::string reason_, halt_, listen_;
  UnixMicros phase_since_;
  bool was_connected_ = false;
  std::uint64_t reconnects_ = 0;
  SourceLook look_;
  mutable std::deque<Seen> looks_;  ///< Not durable here yet, oldest first.
  mutable Time caught_up_;          ///< When everything on the server was durable here, last.
  mutable std::deque<Sample> samples_;
  std::map<std::string, Count, std::less<>> tables_;
  std::string probe_;  ///< The text of the one that is out; empty: none.
  Time probe_sent_;
  std::uint64_t probes_ = 0;
  ProbeLatency latency_;
  std::deque<double> latencies_;
};

/// Counts a transaction's changes by table for one thread, and tells the monitor when it is
/// committed. A change costs a comparison of its table's name.
class ChangeTally {
 public:
  explicit ChangeTally(Monitor& monitor) : monitor_(monitor) {}

  void add(std::string_view category);
  void commit(Lsn end, UnixMicros commit_time);
  void rollback();

 private:
  struct Table {
    Monitor::Count* total = nullptr;
    std::uint64_t pending = 0;
  };
  struct Recent {
    std::string category;
    Table* table = nullptr;
  };
  Table& find(std::string_view category);

  Monitor& monitor_;
  std::map<Monitor::Count*, Table> tables_;
  std::vector<Recent> recent_{1024};  ///< By where the name lies; a power of two.
  std::vector<Table*> touched_;
  std::uint64_t pending_ = 0;
};

}  // namespace millrace
