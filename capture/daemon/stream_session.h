#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>

#include "base/clock.h"
#include "base/wakeup.h"
#include "capture/daemon/monitor.h"
#include "capture/daemon/store_out.h"
#include "capture/daemon/table_snapshots.h"
#include "capture/pgoutput/framing.h"
#include "capture/pipeline/stream_applier.h"
#include "capture/postgres/connection.h"
#include "eventstore/event_store.h"

namespace millrace {

/// The life of one streaming connection: receives, appends, and tells PostgreSQL what is durable.
///
/// It never waits for the disk: when the store has no room it stops reading, so that PostgreSQL
/// keeps the changes, and goes on sending status, so that PostgreSQL keeps the connection. What it
/// confirms is never beyond the store's durable position. Where nothing of interest was committed
/// for a while the position that keepalives tell is first made durable as a transaction without
/// events, then confirmed, so that an idle table does not hold the server's WAL. A transaction that
/// was streamed while it ran is appended in small steps once it has committed. Threads: one.
class StreamSession {
 public:
  struct Options {
    std::uint32_t epoch = 0;
    std::chrono::milliseconds status_interval{1000};
    /// Without a byte from the server for this long an answer is asked for; for twice as long, the
    /// connection is given up.
    std::chrono::milliseconds silence_max{45'000};
    /// Ends the session once everything below it is durable, and the server told so.
    std::optional<Lsn> until;
    /// The server was read up to here a moment ago, on other connections.
    Lsn checked_to{};
    std::chrono::milliseconds look_interval{10'000};
    /// Called at that interval, between transactions. An error ends the session, and so does true:
    /// that it is so far behind that another way is faster.
    std::function<Result<bool>()> look_around{};
    Monitor* monitor = nullptr;  ///< Is told how far things are.
    /// What is to be read beside the stream; it must be done before `until` counts as reached.
    TableSnapshots* snapshots = nullptr;
  };

  StreamSession(PostgresConnection& connection, EventStore& store, StoreOut& out,
                StreamApplier& applier, const Options& options);

  /// Streams until `stop`, until the position asked for, or until it is far behind. Any error of
  /// connection or store ends it; the store's is in its status().
  Result<void> run(const std::stop_token& stop);

 private:
  using Time = Clock::Monotonic;

  Result<bool> take_one();
  Result<void> on_keepalive(const pgoutput::Keepalive& keepalive);
  Result<void> keep_in_touch();
  Result<void> send_status(bool reply_requested);
  Result<void> tell_monitor();
  void tell_progress();
  Result<void> record_idle_position();
  Result<void> finish();
  Lsn durable() const;
  bool reached_goal() const;
  bool wants_to_look() const;
  void note_heard();
  void note_seen();
  bool may_confirm() const;
  bool snapshots_busy() const { return options_.snapshots && options_.snapshots->busy(); }

  PostgresConnection& connection_;
  EventStore& store_;
  StoreOut& out_;
  StreamApplier& applier_;
  Options options_;
  Wakeup never_;

  Lsn idle_;  ///< Everything committed below it has been received; from keepalives and commits.
  Lsn confirmed_;    ///< To the server, on this connection.
  Lsn begun_at_;     ///< The log's end then.
  Lsn seen_before_;  ///< By the applier, on connections before.
  Lsn checked_to_;   ///< All that commits before it came, and held with the log's history.
  Time now_, heard_at_, status_at_, idle_recorded_at_, looked_at_;
  bool reply_wanted_ = false;
  bool far_behind_ = false;
  bool confirm_wanted_ = false;  ///< Somebody waits for the idle position.
  bool asked_ = false;           ///< For an answer, since the last byte.
};

}  // namespace millrace
