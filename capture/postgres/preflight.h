#pragma once

#include <optional>
#include <string>
#include <string_view>
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
  /// All rows are read first, under one snapshot.
  bool reads_rows = true;
  /// What capture has made is brought in step with the patterns by whoever asks.
  bool brings_in_step = false;
  /// Who asks only looks: what a capture would bring in step is told as a note.
  bool tells_mended = false;
  std::vector<std::string> outbox = {};  ///< Sorted: see parse_table_names().
};

Result<Preflight> run_preflight(Catalog& catalog, const PreflightQuestion& question);

/// "CREATE PUBLICATION ... FOR TABLE ..." for `tables`.
std::string create_publication_statement(const std::string& name,
                                         const std::vector<SourceTable>& tables,
                                         int server_version);

/// Whether `patterns` mean `table`, one of `all`: whoever names a partitioned table means its
/// partitions too.
bool is_meant(const SourceTable& table, const std::vector<SourceTable>& all,
              const TablePatterns& patterns);
/// `table` itself, or those of its partitions, whose updates and deletes PostgreSQL would refuse
/// once it is published. It asks the partition that holds the row, whatever its root has.
std::vector<SourceTable> without_identity(const SourceTable& table,
                                          const std::vector<SourceTable>& all);

/// What whoever captures `table` must know of it, a sentence: that it has no key. Empty if it has.
std::string_view weakness_of(const SourceTable& table);

/// The comment of a publication that capture has made. By it `capture teardown` knows it, and
/// `capture run` the tables that it is to be kept in step with.
std::string publication_mark(const TablePatterns& patterns);
bool made_by_capture(const PublicationInfo& publication);
/// What publication_mark() was told; nothing of a publication that somebody else, or an early
/// version, has made.
std::optional<TablePatterns> patterns_of(const PublicationInfo& publication);
/// The --tables in force, as one text: what is `given`, else what the publication is kept for;
/// empty if neither is.
std::string patterns_in_force(const std::optional<TablePatterns>& given,
                              const PublicationInfo& publication);
/// Makes the publication, with that comment.
Result<void> make_publication(Catalog& catalog, const std::string& name,
                              const std::vector<SourceTable>& tables, const TablePatterns& patterns,
                              int server_version);

}  // namespace millrace
