#pragma once

#include <optional>
#include <string>
#include <vector>

#include "capture/check.h"
#include "capture/postgres/catalog.h"
#include "capture/table_patterns.h"

namespace millrace {

/// What a source looks like before anything is done to it.
struct Preflight {
  ServerInfo server;
  std::optional<PublicationInfo> publication;
  std::optional<SlotInfo> slot;
  /// What capture would read: the publication's tables, or those that match where it must be made.
  std::vector<SourceTable> tables;
  /// Those whose rows are domain events; none of `tables`.
  std::vector<SourceTable> outboxes;
  std::vector<Finding> findings;

  /// Both: all that is, or is to be, in the publication.
  std::vector<SourceTable> published() const;

  /// The warnings, and where asked for the problems, as lines of the log.
  void log_findings(bool problems_too = false) const;
  /// All problems in one error (kFailedPrecondition), or nothing; or only those of subjects that
  /// begin so.
  Result<void> require_no_problem(std::string_view subject = {}) const;
};

struct PreflightQuestion {
  const TablePatterns& patterns;
  std::string slot;
  std::string publication;
  /// A tail makes both for itself and only for a moment.
  bool temporary = false;
  std::vector<std::string> outbox = {};  ///< Sorted: see parse_table_names().
};

Result<Preflight> run_preflight(Catalog& catalog, const PreflightQuestion& question);

/// "CREATE PUBLICATION ... FOR TABLE ..." for `tables`.
std::string create_publication_statement(const std::string& name,
                                         const std::vector<SourceTable>& tables,
                                         int server_version);

/// The comment of a publication that capture has made: by it `capture teardown` knows it.
inline constexpr std::string_view kPublicationMark = "made by millrace capture";
/// Makes the publication, with that comment.
Result<void> make_publication(Catalog& catalog, const std::string& name,
                              const std::vector<SourceTable>& tables, int server_version);

}  // namespace millrace
