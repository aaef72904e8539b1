#include "capture/daemon/source_guard.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/sql_text.h"
#include "capture/daemon/store_out.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/snapshot_progress.h"

namespace millrace {
namespace {

/// "public.orders" of "public.orders (OID 16391, member 16402)"; empty of the publication's own
/// OID.
std::string without_oids(const std::string& line) {
  return line.starts_with("OID ") ? std::string() : line.substr(0, line.find(" (OID "));
}

std::string difference(const std::vector<std::string>& before,
                       const std::vector<std::string>& now) {
  std::vector<std::string> gone, come;
  std::set_difference(before.begin(), before.end(), now.begin(), now.end(),
                      std::back_inserter(gone));
  std::set_difference(now.begin(), now.end(), before.begin(), before.end(),
                      std::back_inserter(come));
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  const bool made_anew = std::any_of(
      gone.begin(), gone.end(), [](const std::string& line) { return without_oids(line).empty(); });
  if (made_anew) add("it was dropped and made again");
  for (const std::string& line : gone) {
    const std::string name = without_oids(line);
    const bool back = std::any_of(come.begin(), come.end(), [&](const std::string& other) {
      return without_oids(other) == name;
    });
    if (!back) add("no longer: " + name);
    if (back && !made_anew) add(name + " left it and came back, or was itself made anew");
  }
  for (const std::string& line : come)
    if (std::none_of(gone.begin(), gone.end(), [&](const std::string& other) {
          return without_oids(other) == without_oids(line);
        }))
      add("new: " + without_oids(line));
  return text;
}

std::string as_it_was(const SourceState& state) {
  std::string text;
  for (const std::string& line : state.publication_definition)
    if (const std::string part = without_oids(line); !part.empty())
      text += (text.empty() ? "" : ", ") + part;
  return text;
}

}  // namespace

Error halted(std::string_view state, const std::string& message, std::string way_out) {
  return Error(ErrorCode::kFailedPrecondition, std::string(state) + ": " + message)
      .hint(std::move(way_out));
}

bool is_halt(const Error& error) {
  return error.code() == ErrorCode::kFailedPrecondition && !error.hint().empty();
}

std::string in_use(const SlotInfo& slot, const std::string& name) {
  std::string who = printable(slot.active_application);
  const std::string& full = slot.active_application;
  const std::size_t store = full.find('/'), host = full.find('/', store + 1), pid = full.rfind('/');
  if (full.starts_with("millrace/") && host != full.npos && pid > host)
    who = "the capture of store " + printable(full.substr(store + 1, host - store - 1)) +
          " on host " + printable(full.substr(host + 1, pid - host - 1)) + ", process " +
          printable(full.substr(pid + 1));
  return "slot " + name + " is in use by pid " + std::to_string(slot.active_pid) + " (" + who +
         (slot.active_address.empty() ? "" : ", from " + slot.active_address) + ")";
}

Error slot_exists(const SlotInfo& slot, const std::string& name, const std::string& why) {
  if (slot.active)
    return halted("SLOT_EXISTS", in_use(slot, name) + ", and " + why,
                  "Is --store the right one? Something else is fed from that slot: leave it, and "
                  "use another --slot.");
  return halted("SLOT_EXISTS", "slot " + name + " exists, but " + why,
                "Is --store the right one? Dropping a slot ends the store that is fed from it. Use "
                "another --slot; or, if nobody needs it: SELECT pg_drop_replication_slot('" +
                    name + "');");
}

std::string capture_name(const StoreId& store) {
  constexpr std::size_t kNameBytesMax = 63;
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string front = "millrace/" + to_string(store) + "/";
  const std::string back = "/" + std::to_string(::getpid());
  std::string name = std::string(host.data()).substr(0, kNameBytesMax - front.size() - back.size());
  for (char& c : name)
    if (c <= ' ' || c >= 127 || c == '/') c = '_';
  return front + name + back;
}

Result<Lsn> SourceGuard::check_all(PostgresConnection& connection, Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(const SystemIdentity system, identify_system(connection));
  MILLRACE_RETURN_IF_ERROR(check_source(system, store_end));
  MILLRACE_RETURN_IF_ERROR(check_timeline(connection, system, store_end));
  MILLRACE_ASSIGN_OR_RETURN(const Lsn slot, check_slot(store_end));
  MILLRACE_RETURN_IF_ERROR(check_publication(store_end));
  return slot;
}

Result<void> SourceGuard::check_source(const SystemIdentity& system, Lsn known) const {
  if (system.system_id != state_.system_id)
    return halted(
        "NEW_CLUSTER",
        "the server's system identifier is " + system.system_id + ", the store was fed by " +
            state_.system_id,
        "Connect to the server that the store knows. If this one has taken its place, `millrace "
        "capture resync --accept-new-source` compares its tables with the store and goes on from "
        "there.");
  if (system.database != state_.database)
    return halted(
        "OTHER_DATABASE",
        "connected to database " + system.database + ", the store was fed by " + state_.database,
        "Name database " + state_.database +
            " in --source; if this one has taken its place, run `millrace capture resync "
            "--accept-new-source`.");
  if (system.flushed < known)
    return halted(
        "SOURCE_REWOUND",
        "the server's WAL ends at " + to_string(system.flushed) +
            ", before the store's last position " + to_string(known),
        "The server was restored from an older copy. Run `millrace capture resync`: it compares "
        "the tables with the store, appends what differs and goes on with a new slot.");
  return {};
}

/// A server that was promoted goes on where the one before was left: if that is beyond what the log
/// has, it is the same history.
Result<void> SourceGuard::check_timeline(PostgresConnection& connection,
                                         const SystemIdentity& system, Lsn store_end) {
  if (system.timeline == state_.timeline) return {};
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<Lsn> parted,
                            end_of_timeline(connection, system.timeline, state_.timeline));
  const std::string now = std::to_string(system.timeline), before = std::to_string(state_.timeline);
  if (!parted || *parted < store_end)
    return halted(
        "TIMELINE_CHANGED",
        "the server is on timeline " + now +
            (parted ? ", which parted from " + before + " at " + to_string(*parted)
                    : ", which does not come from " + before) +
            ", but the store has read timeline " + before + " up to " + to_string(store_end),
        "The server was promoted or restored without the newest changes that the store "
        "has. Run `millrace capture resync`: it compares the tables with the store, appends what "
        "differs and goes on with a new slot.");
  spdlog::warn("the server was promoted: timeline {} goes on where {} ended, at {}", now, before,
               to_string(*parted));
  MILLRACE_RETURN_IF_ERROR(record("timeline_changed", {{"from", state_.timeline},
                                                       {"to", system.timeline},
                                                       {"parted_at", to_string(*parted)},
                                                       {"captured_up_to", to_string(store_end)}}));
  state_.timeline = system.timeline;
  return save_source_state(options_.store, state_, *options_.files);
}

Result<Lsn> SourceGuard::check_not_moved(Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(state_.slot));
  if (!slot || !slot->confirmed_flush) return Lsn{};
  if (*slot->confirmed_flush <= store_end) return *slot->confirmed_flush;
  return Error(ErrorCode::kUnavailable,  // the next connection finds out what happened
               "slot " + state_.slot + " was moved while this capture connected");
}

Result<Lsn> SourceGuard::check_slot(Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(state_.slot));
  const std::string anew =
      "What was committed since " + to_string(store_end) +
      " can no longer be read from the server. Run `millrace capture resync`: it compares the "
      "tables with the store, appends what differs and goes on with a new slot.";
  if (!slot)
    return halted("SLOT_MISSING", "slot " + state_.slot + " is gone from the server", anew);
  if (slot->plugin != "pgoutput" || slot->database != state_.database)
    return halted("SLOT_REPLACED",
                  "slot " + state_.slot + " is now one of plugin " + slot->plugin +
                      " in database " + slot->database,
                  anew);
  if (slot->wal_status == "lost")
    return halted(
        "SLOT_LOST",
        "PostgreSQL has invalidated slot " + state_.slot + ": WAL that it needed was removed",
        anew + " A larger max_slot_wal_keep_size leaves more time.");
  // Who holds it may be moving it: first its name.
  own_ghost_ = slot->active &&
               slot->active_application.starts_with("millrace/" + to_string(store_.id()) + "/");
  if (slot->active)
    return Error(ErrorCode::kLocked, in_use(*slot, state_.slot))
        .hint(
            "Only one capture may read a slot: stop the other one, or use another --slot with a "
            "--store of its own.");
  if (slot->confirmed_flush && *slot->confirmed_flush > store_end)
    return halted(
        "SOURCE_GAP",
        "slot " + state_.slot + " is confirmed up to " + to_string(*slot->confirmed_flush) +
            ", but the store ends at " + to_string(store_end),
        "Another program has moved the slot, it was made anew, or the store is an older copy or "
        "was repaired. " +
            anew);
  return slot->confirmed_flush.value_or(Lsn{});
}

Result<PublicationInfo> SourceGuard::publication() const {
  MILLRACE_ASSIGN_OR_RETURN(auto found, catalog_.publication(state_.publication));
  if (found) return *std::move(found);
  return halted(
      "PUBLICATION_MISSING", "publication " + state_.publication + " is gone from the server",
      "Changes since then can't be decoded. Make it again as it was (" + as_it_was(state_) +
          ") and start once with --accept-publication-change; if PostgreSQL then still reports "
          "that it does "
          "not exist, run `millrace capture resync`.");
}

/// Whether it is what it was, or became what it is by being kept in step.
Result<bool> SourceGuard::is_kept(const PublicationInfo& publication) const {
  if (publication.definition == state_.publication_definition) return true;
  if (options_.keeper == nullptr) return false;
  return options_.keeper->explains(state_.publication_definition, publication);
}

/// Not even accepted: what an application writes into an outbox would become no event, unnoticed.
Result<void> SourceGuard::require_outboxes(const PublicationInfo& now) {
  const auto lacks = [&](const std::string& outbox) {
    return std::ranges::find(now.table_names, outbox) == now.table_names.end();
  };
  if (std::ranges::none_of(state_.outbox, lacks)) return {};
  MILLRACE_ASSIGN_OR_RETURN(const auto tables, catalog_.tables());
  std::string names, add, gone;
  for (const std::string& outbox : state_.outbox) {
    if (!lacks(outbox)) continue;
    names += (names.empty() ? "" : ", ") + outbox;
    const auto table = std::ranges::find(tables, outbox, &SourceTable::name);
    if (table == tables.end())
      gone += "make table " + outbox + " again, or leave it out of --outbox; ";
    else
      add += (add.empty() ? "" : ", ") + table->quoted();
  }
  if (!add.empty())
    add = "ALTER PUBLICATION " + quote_identifier(state_.publication) + " ADD TABLE " + add + "; ";
  return halted("PUBLICATION_CHANGED",
                "publication " + state_.publication + " is without the outbox " + names,
                gone + add +
                    " -- then start once with --accept-publication-change. Rows that are inserted "
                    "into an outbox while it is not published become no events: look for them "
                    "there, and insert them once more where they are wanted.");
}

/// Nothing is altered before what it is now was found right.
Result<void> SourceGuard::check_publication(Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(PublicationInfo now, publication());
  MILLRACE_RETURN_IF_ERROR(require_outboxes(now));
  bool kept = false;
  for (bool altered = false;;) {
    MILLRACE_ASSIGN_OR_RETURN(kept, is_kept(now));
    if (!kept && !options_.accept_publication_change)
      return halted(
          "PUBLICATION_CHANGED",
          "publication " + state_.publication +
              " is not what it was: " + difference(state_.publication_definition, now.definition),
          "Change it back; or run `millrace capture resync`, which finds what was missed; or "
          "start with --accept-publication-change: tables that are new in it are then "
          "captured from here on, and the rows that they have now are read beside the "
          "stream.");
    if (altered || options_.keeper == nullptr) break;
    MILLRACE_ASSIGN_OR_RETURN(altered,
                              options_.keeper->bring_in_step(state_.publication_definition, now));
    if (!altered) break;
    MILLRACE_ASSIGN_OR_RETURN(now, publication());
  }
  if (now.definition != state_.publication_definition)
    MILLRACE_RETURN_IF_ERROR(note(now, kept, store_end));
  return note_tables(now);
}

/// For `millrace status`. Tables of a schema come and go without another definition.
Result<void> SourceGuard::note_tables(const PublicationInfo& publication) {
  if (options_.keeper == nullptr) return {};  // who only looks
  std::string patterns = options_.keeper->patterns(publication);
  if (state_.patterns == patterns && state_.tables == publication.table_names) return {};
  state_.patterns = std::move(patterns);
  state_.tables = publication.table_names;
  return save_source_state(options_.store, state_, *options_.files);
}

Result<void> SourceGuard::note(const PublicationInfo& publication, bool kept, Lsn store_end) {
  const std::string changes = difference(state_.publication_definition, publication.definition);
  spdlog::log(kept ? spdlog::level::info : spdlog::level::warn, "publication {} changed, {}: {}",
              printable(state_.publication), kept ? "as --tables says" : "accepted",
              printable(changes, 2000));
  nlohmann::json payload{{"publication", state_.publication},
                         {"changes", changes},
                         {"captured_up_to", to_string(store_end)}};
  if (kept) payload["as_tables_says"] = true;
  MILLRACE_RETURN_IF_ERROR(record("publication_changed", payload));
  if (options_.on_accepted) MILLRACE_RETURN_IF_ERROR(accept(publication));
  state_.publication_definition = publication.definition;
  return save_source_state(options_.store, state_, *options_.files);
}

/// A table was captured all along if what makes it a member is the same as before: the line with
/// its OID, or its root's; all tables; its schema.
Result<void> SourceGuard::accept(const PublicationInfo& publication) {
  std::vector<std::string> kept;
  std::set_intersection(state_.publication_definition.begin(), state_.publication_definition.end(),
                        publication.definition.begin(), publication.definition.end(),
                        std::back_inserter(kept));
  const auto has_line = [&](const std::string& text) {
    return std::any_of(kept.begin(), kept.end(), [&](const std::string& line) {
      return line.find(text) != std::string::npos;
    });
  };
  const auto is_line = [](const std::vector<std::string>& lines, const std::string& text) {
    return std::find(lines.begin(), lines.end(), text) != lines.end();
  };
  constexpr const char* kViaRoot = "publish_via_partition_root";
  const bool other_names =
      is_line(state_.publication_definition, kViaRoot) != is_line(publication.definition, kViaRoot);
  // The publication itself was made anew: what was committed in between is in no stream.
  const bool same = std::any_of(kept.begin(), kept.end(),
                                [](const std::string& line) { return line.starts_with("OID "); });
  MILLRACE_ASSIGN_OR_RETURN(std::vector<SourceTable> tables, catalog_.tables());
  std::erase_if(tables, [&](const SourceTable& table) {
    return std::find(publication.table_oids.begin(), publication.table_oids.end(), table.oid) ==
           publication.table_oids.end();
  });
  std::vector<SourceTable> joined;
  for (const SourceTable& table : tables) {
    const auto by_oid = [&](std::uint32_t oid) {
      return oid != 0 && has_line(" (OID " + std::to_string(oid) + ", ");
    };
    const bool all_along = by_oid(table.oid) || by_oid(table.root_oid) ||
                           is_line(kept, "ALL TABLES") ||
                           is_line(kept, "TABLES IN SCHEMA " + table.schema_name);
    const bool renamed = other_names && (table.partitioned || table.root_oid != 0);
    if (!same || !all_along || renamed) joined.push_back(table);
  }
  return options_.on_accepted(tables, joined);
}

/// An event of `$capture`, for the log's readers.
Result<void> SourceGuard::record(std::string_view type, const nlohmann::json& payload) {
  const std::string text = payload.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const NewEvent event{.category = kCaptureCategory,
                       .key = state_.slot,
                       .type = type,
                       .payload = text,
                       .metadata = {}};
  MILLRACE_RETURN_IF_ERROR(store_.append(
      {.source = {}, .source_xid = 0, .commit_time = Clock::system().wall()}, {&event, 1}));
  return wait_until_durable(store_, store_.appended_end(), 0, options_.stop);
}

}  // namespace millrace
