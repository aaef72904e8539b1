#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "capture/daemon/publication_keeper.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"
#include "eventstore/event_store.h"

namespace millrace {

/// A discontinuity between store and source: a named state such as "SLOT_MISSING", what is so, and
/// the way out. kFailedPrecondition.
Error halted(std::string_view state, const std::string& message, std::string way_out);
/// Whether `error` is one: nothing that trying again could mend.
bool is_halt(const Error& error);

/// How a capture calls itself at the server: "millrace/STORE/HOST/PID", the host cut to fit in what
/// PostgreSQL keeps of a name (63 bytes).
std::string capture_name(const StoreId& store);
/// "slot millrace is in use by pid 4711 (psql, from 10.0.0.7)"; of a capture with what that name
/// tells: store, host and pid.
std::string in_use(const SlotInfo& slot, const std::string& name);

/// SLOT_EXISTS: it can't be made for this store, which, as `why` says, it does not feed. One that
/// is in use is nobody's to drop.
Error slot_exists(const SlotInfo& slot, const std::string& name, const std::string& why);

/// Looks whether the source is still the one that the store was fed from: PostgreSQL starts later
/// than asked when a slot is ahead, and says nothing. What it finds is a halted() error, kLocked
/// (somebody else streams from the slot), or one of the catalog. Threads: one.
class SourceGuard {
 public:
  struct Options {
    Path store;
    FileSystem* files = &FileSystem::real();
    /// Record a changed publication in the store and go on.
    bool accept_publication_change = false;
    /// Keeps the publication in step with --tables. None: it stays as it is, and whatever else
    /// changes it halts.
    PublicationKeeper* keeper = nullptr;
    std::stop_token stop{};
    /// A change is being accepted: `published` are the publication's tables now, `joined` those of
    /// them that were not captured all along. Called again if a crash comes before it is noted.
    std::function<Result<void>(const std::vector<SourceTable>& published,
                               const std::vector<SourceTable>& joined)>
        on_accepted{};
  };

  /// `state` is what the store knows; it is written anew when a change is accepted.
  SourceGuard(Catalog& catalog, EventStore& store, SourceState& state, Options options)
      : catalog_(catalog), store_(store), state_(state), options_(std::move(options)) {}

  /// Everything, on a new connection to a walsender, before streaming from `store_end`. Gives where
  /// the slot is.
  Result<Lsn> check_all(PostgresConnection& connection, Lsn store_end);
  /// Once streaming has begun, so that nobody else can move the slot: nobody has in the meantime.
  Result<Lsn> check_not_moved(Lsn store_end);
  /// Whoever holds the slot, at the last check_all(), is a capture of this same store: since we
  /// hold the store, what is left of one that was killed.
  bool held_by_own_ghost() const { return own_ghost_; }
  /// What may change while a connection lasts. Here the publication is brought in step with
  /// --tables.
  Result<void> check_publication(Lsn store_end);

 private:
  Result<void> check_source(const SystemIdentity& system, Lsn store_end) const;
  Result<void> check_timeline(PostgresConnection& connection, const SystemIdentity& system,
                              Lsn store_end);
  Result<Lsn> check_slot(Lsn store_end);
  Result<void> record(std::string_view type, const nlohmann::json& payload);
  Result<PublicationInfo> publication() const;
  Result<void> require_outboxes(const PublicationInfo& publication);
  Result<bool> is_kept(const PublicationInfo& publication) const;
  Result<void> note(const PublicationInfo& publication, bool kept, Lsn store_end);
  Result<void> accept(const PublicationInfo& publication);
  Result<void> note_tables(const PublicationInfo& publication);

  Catalog& catalog_;
  EventStore& store_;
  SourceState& state_;
  Options options_;
  bool own_ghost_ = false;
};

}  // namespace millrace
