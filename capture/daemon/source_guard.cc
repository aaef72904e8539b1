#include "capture/daemon/source_guard.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/clock.h"
#include "capture/daemon/store_out.h"
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
  return "slot " + name + " is in use by pid " + std::to_string(slot.active_pid) + " (" +
         slot.active_application + ")";
}

Result<void> SourceGuard::check_all(const SystemIdentity& system, Lsn store_end) {
  MILLRACE_RETURN_IF_ERROR(check_source(system, store_end));
  MILLRACE_RETURN_IF_ERROR(check_slot(store_end));
  return check_publication(store_end);
}

Result<void> SourceGuard::check_source(const SystemIdentity& system, Lsn known) const {
  if (system.system_id != state_.system_id)
    return halted(
        "NEW_CLUSTER",
        "the server's system identifier is " + system.system_id + ", the store was fed by " +
            state_.system_id,
        "Connect to the server that the store knows, or start a new --store for this one.");
  if (system.database != state_.database)
    return halted(
        "OTHER_DATABASE",
        "connected to database " + system.database + ", the store was fed by " + state_.database,
        "Name database " + state_.database + " in --source, or start a new --store.");
  if (system.timeline != state_.timeline)
    return halted("TIMELINE_CHANGED",
                  "the server is on timeline " + std::to_string(system.timeline) +
                      ", the store knows " + std::to_string(state_.timeline) + " up to " +
                      to_string(known),
                  "The server was promoted or restored: its history may have parted from the "
                  "store's. Start a new --store "
                  "with a slot of its own, and rebuild the views from it.");
  if (system.flushed < known)
    return halted(
        "SOURCE_REWOUND",
        "the server's WAL ends at " + to_string(system.flushed) +
            ", before the store's last position " + to_string(known),
        "The server was restored from an older copy. Start a new --store with a slot of its own.");
  return {};
}

Result<void> SourceGuard::check_slot(Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog_.slot(state_.slot));
  const std::string anew =
      "What was committed since " + to_string(store_end) +
      " can no longer be read from the server. Start a new --store, and rebuild the views from it.";
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
  if (slot->confirmed_flush && *slot->confirmed_flush > store_end)
    return halted(
        "SOURCE_GAP",
        "slot " + state_.slot + " is confirmed up to " + to_string(*slot->confirmed_flush) +
            ", but the store ends at " + to_string(store_end),
        "Another program has moved the slot, it was made anew, or the store is an older copy or "
        "was repaired. " +
            anew);
  if (slot->active)
    return Error(ErrorCode::kLocked, in_use(*slot, state_.slot))
        .hint(
            "Only one capture may read a slot: stop the other one, or use another --slot with a "
            "--store of its own.");
  return {};
}

Result<void> SourceGuard::check_publication(Lsn store_end) {
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog_.publication(state_.publication));
  if (!publication)
    return halted(
        "PUBLICATION_MISSING", "publication " + state_.publication + " is gone from the server",
        "Changes since then can't be decoded. Make it again as it was (" + as_it_was(state_) +
            ") and start once with --accept-publication-change; if PostgreSQL then still reports "
            "that it does "
            "not exist, start a new --store.");
  if (publication->definition == state_.publication_definition) return {};
  const std::string changes = difference(state_.publication_definition, publication->definition);
  if (!options_.accept_publication_change)
    return halted("PUBLICATION_CHANGED",
                  "publication " + state_.publication + " is not what it was: " + changes,
                  "Change it back, or start with --accept-publication-change: tables that are new "
                  "in it are then captured from here on, and the rows that they have now are read "
                  "beside the stream.");
  spdlog::warn("publication {} changed, accepted: {}", printable(state_.publication),
               printable(changes, 2000));
  MILLRACE_RETURN_IF_ERROR(record_publication_change(changes, store_end));
  if (options_.on_accepted) MILLRACE_RETURN_IF_ERROR(accept(*publication));
  state_.publication_definition = publication->definition;
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

/// Readers of the log must be able to tell that tables are incomplete from here on.
Result<void> SourceGuard::record_publication_change(const std::string& changes, Lsn store_end) {
  const std::string payload = nlohmann::json{
      {"publication", state_.publication},
      {"changes", changes},
      {"captured_up_to",
       to_string(store_end)}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const NewEvent event{.category = kCaptureCategory,
                       .key = state_.slot,
                       .type = "publication_changed",
                       .payload = payload,
                       .metadata = {}};
  MILLRACE_RETURN_IF_ERROR(store_.append(
      {.source = {}, .source_xid = 0, .commit_time = Clock::system().wall()}, {&event, 1}));
  return wait_until_durable(store_, store_.appended_end(), 0, options_.stop);
}

}  // namespace millrace
