#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "capture/capture.h"
#include "capture/daemon/store_out.h"
#include "capture/pipeline/stream_applier.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/connection.h"
#include "eventstore/event_store.h"

namespace millrace {

/// Drains a slot that is far behind, faster than the replication protocol can.
///
/// The protocol sends every change as a packet of its own, which costs the server more than
/// decoding it. `COPY (SELECT ... pg_logical_slot_get_binary_changes(...)) TO STDOUT` brings the
/// same messages without that, and two connections decode two stretches of WAL at once. The story
/// is in catch_up.cc. Threads: one.
class CatchUp {
 public:
  struct Options {
    std::string slot, publication;
    std::uint32_t epoch = 0;
    CatchUpBounds bounds;
    /// Ends once the log reaches this.
    std::optional<Lsn> until;
    std::chrono::milliseconds look_interval{10'000};
    /// Called at that interval, between two stretches; an error ends it.
    std::function<Result<void>()> look_around{};
  };
  enum class End {
    kNear,        ///< What is left is a matter of streaming.
    kDoesNotPay,  ///< The server would read the same WAL too often, or refuses; said in the log.
    kStopped,
  };

  CatchUp(const SourceAddress& address, Catalog& catalog, EventStore& store, StoreOut& out,
          StreamApplier& applier, Options options);
  ~CatchUp();

  /// Drains up to where the server's WAL ends. What it took in is durable on return, unless the
  /// disk takes longer than ten seconds. The slot is not in use by anybody meanwhile; when it
  /// returns its position may be behind the log. Errors: those of connection, catalog, store and
  /// applier.
  Result<End> run(const std::stop_token& stop);

  /// How much WAL the next stretch should have, if the server must first read `reread` bytes that
  /// it has read before; 0: streaming is better. Pure.
  static std::uint64_t stretch_size(const CatchUpBounds& bounds, std::uint64_t reread);

 private:
  struct Lane;

  Result<End> drain(const std::stop_token& stop);
  Result<bool> open_lanes(const std::stop_token& stop);
  Result<bool> assign(Lane& lane);
  Result<bool> take(Lane& lane, const std::stop_token& stop);
  Result<void> finish_stretch(Lsn end);
  Result<void> look_around();
  bool refused(const Lane& lane, const Error& error);
  Lsn durable() const;

  const SourceAddress& address_;
  Catalog& catalog_;
  EventStore& store_;
  StoreOut& out_;
  StreamApplier& applier_;
  Options options_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  Lsn next_;       ///< Where the next stretch begins.
  Lsn target_;     ///< Where the server's WAL ended when we last asked.
  Lsn confirmed_;  ///< Where the slot is, as far as we have moved it.
  bool does_not_pay_ = false;
  std::chrono::steady_clock::time_point looked_at_;
};

}  // namespace millrace
