#include "capture/setup.h"

#include <algorithm>

#include "base/sql_text.h"
#include "capture/daemon/source_guard.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"
#include "capture/source_state.h"

namespace millrace {
namespace {

using State = TeardownStep::State;

/// A publication of tables that the application could then no longer update is worse than none.
bool keeps_from_publishing(const Finding& finding) {
  return finding.severity == Finding::Severity::kProblem &&
         (finding.subject.starts_with("table") || finding.subject.starts_with("outbox") ||
          finding.subject.starts_with("publication"));
}

Result<SourceState> state_of(const Path& store) {
  MILLRACE_ASSIGN_OR_RETURN(auto state, load_source_state(store));
  if (state) return *std::move(state);
  return Error(ErrorCode::kNotFound, store.string() + " is no store that a capture has fed")
      .hint("Name its folder with --store, or leave --store out.");
}

/// The store was fed from what is to be removed, and from nothing else.
Result<void> check_store(const SourceState& state, const TeardownOptions& options,
                         const SourceAddress& address) {
  const auto other = [](const std::string& what, const std::string& known) {
    return Error(ErrorCode::kFailedPrecondition,
                 "the store was fed from another " + what + ": " + known);
  };
  if (state.slot != options.slot) return other("slot", state.slot);
  if (state.publication != options.publication) return other("publication", state.publication);
  MILLRACE_ASSIGN_OR_RETURN(const auto connection, PostgresConnection::open(address, true, {}));
  MILLRACE_ASSIGN_OR_RETURN(const SystemIdentity system, identify_system(*connection));
  if (state.system_id != system.system_id)
    return other("server",
                 "system identifier " + state.system_id + ", this one's is " + system.system_id);
  if (state.database != system.database) return other("database", state.database);
  return {};
}

/// With names for what was not named.
TeardownOptions named(TeardownOptions options, const std::optional<SourceState>& state) {
  const CheckOptions usual;
  if (options.slot.empty()) options.slot = state ? state->slot : usual.slot;
  if (options.publication.empty())
    options.publication = state ? state->publication : usual.publication;
  return options;
}

Result<TeardownStep> remove_slot(Catalog& catalog, const TeardownOptions& options) {
  TeardownStep step{.subject = "slot " + options.slot};
  const std::string statement = "SELECT pg_drop_replication_slot('" + options.slot + "')";
  MILLRACE_ASSIGN_OR_RETURN(const auto slot, catalog.slot(options.slot));
  MILLRACE_ASSIGN_OR_RETURN(const ServerInfo server, catalog.server());
  if (!slot) {
    step.message = "There is none.";
    return step;
  }
  if (slot->plugin != "pgoutput" || slot->database != server.database) {
    step.state = State::kKept;
    step.message = "It is not capture's: plugin " + (slot->plugin.empty() ? "none" : slot->plugin) +
                   ", database " + (slot->database.empty() ? "none" : slot->database) + ".";
    step.fix = statement + ";";
    return step;
  }
  if (slot->active)
    return Error(ErrorCode::kLocked, in_use(*slot, options.slot))
        .hint("Stop that capture first. Nothing was removed.");
  if (!options.yes) {
    step.state = State::kWouldRemove;
    step.message = "It would be dropped: a store that is fed from it can't go on then.";
    return step;
  }
  MILLRACE_RETURN_IF_ERROR(catalog.execute(statement));
  step.state = State::kRemoved;
  step.message = "It is dropped.";
  return step;
}

Result<TeardownStep> remove_publication(Catalog& catalog, const TeardownOptions& options) {
  TeardownStep step{.subject = "publication " + options.publication};
  const std::string statement = "DROP PUBLICATION " + quote_identifier(options.publication);
  MILLRACE_ASSIGN_OR_RETURN(const auto publication, catalog.publication(options.publication));
  if (!publication) {
    step.message = "There is none.";
  } else if (!made_by_capture(*publication)) {
    step.state = State::kKept;
    step.message = "Capture has not made it: it stays.";
    step.fix = statement + ";";
  } else if (!options.yes) {
    step.state = State::kWouldRemove;
    step.message = "It would be dropped.";
  } else {
    MILLRACE_RETURN_IF_ERROR(catalog.execute(statement));
    step.state = State::kRemoved;
    step.message = "It is dropped.";
  }
  return step;
}

}  // namespace

Result<SetupReport> set_up_source(const CheckOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(options.tables));
  MILLRACE_RETURN_IF_ERROR(require_slot_name(options.slot));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<std::string> outbox, parse_table_names(options.outbox));
  Catalog catalog(address);
  const PreflightQuestion question{.patterns = patterns,
                                   .slot = options.slot,
                                   .publication = options.publication,
                                   .tells_mended = true,
                                   .outbox = std::move(outbox)};
  MILLRACE_ASSIGN_OR_RETURN(Preflight found, run_preflight(catalog, question));
  SetupReport report;
  if (!found.publication &&
      std::none_of(found.findings.begin(), found.findings.end(), keeps_from_publishing)) {
    MILLRACE_RETURN_IF_ERROR(make_publication(catalog, options.publication, found.published(),
                                              patterns, found.server.version));
    report.made_publication = true;
    MILLRACE_ASSIGN_OR_RETURN(found, run_preflight(catalog, question));
  }
  report.findings = std::move(found.findings);
  return report;
}

Result<std::vector<TeardownStep>> tear_down_source(const TeardownOptions& asked) {
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress address, SourceAddress::parse(asked.source));
  std::optional<SourceState> state;
  if (!asked.store.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(state, state_of(asked.store));
  }
  const TeardownOptions options = named(asked, state);
  MILLRACE_RETURN_IF_ERROR(require_slot_name(options.slot));
  if (state) MILLRACE_RETURN_IF_ERROR(check_store(*state, options, address));
  Catalog catalog(address);
  std::vector<TeardownStep> steps;
  // In this order: a slot without its publication could not be decoded any more.
  MILLRACE_ASSIGN_OR_RETURN(TeardownStep slot, remove_slot(catalog, options));
  steps.push_back(std::move(slot));
  MILLRACE_ASSIGN_OR_RETURN(TeardownStep publication, remove_publication(catalog, options));
  steps.push_back(std::move(publication));
  return steps;
}

}  // namespace millrace
