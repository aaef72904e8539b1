#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "capture/postgres/catalog.h"
#include "capture/table_patterns.h"

namespace millrace {

/// Keeps a publication that capture has made in step with --tables: tables that come in are added,
/// those that are left out are dropped from it. Which tables a publication is kept for stands in
/// its comment, so whoever starts without --tables goes on with the same.
///
/// A publication of somebody else's, one of all tables or a schema, one with column lists or row
/// filters, and one that we may not alter stay as they are. What matches and can't be captured is
/// told once, and so is a partition that was attached or detached with its rows: PostgreSQL sends
/// nothing of them. Errors: those of the catalog's connection. Threads: one.
class PublicationKeeper {
 public:
  struct Options {
    /// Without, the tables count that the publication was made for.
    std::optional<TablePatterns> given;
    /// Names of tables that belong to it besides, sorted. They never come or go by keeping: rows
    /// that were inserted before would be events that nobody reads.
    std::vector<std::string> outbox;
    /// Rows of tables that come in are read. Else a table that was made anew is not explained:
    /// nothing would tell that the old one's rows are gone.
    bool reads_rows = true;
  };
  PublicationKeeper(Catalog& catalog, std::string publication, Options options)
      : catalog_(catalog), name_(std::move(publication)), options_(std::move(options)) {}

  /// Whether `now` may have become of the `definition` before by what keeping it does, or by tables
  /// that were dropped or renamed: no change of a table that is captured was left out, and none
  /// that is meant is missing. True also of what a run that was killed has left.
  Result<bool> explains(const std::vector<std::string>& definition, const PublicationInfo& now);
  /// Which tables it is kept for; of one that is somebody else's, those that were asked for.
  std::string patterns(const PublicationInfo& now) const;
  /// True if it has altered the publication, which was `definition` when it was last noted. A lock
  /// that somebody else holds is no error: it is tried again at the next call.
  Result<bool> bring_in_step(const std::vector<std::string>& definition,
                             const PublicationInfo& now);

 private:
  struct Step {
    std::vector<SourceTable> come, go;
  };
  Result<Step> next_step(const std::vector<std::string>& definition, const PublicationInfo& now,
                         const TablePatterns& patterns);
  bool can_come(const SourceTable& table, const std::vector<SourceTable>& all,
                const PublicationInfo& now);
  Result<void> tell_unpublishable(const TablePatterns& patterns);
  void tell_partitions(const std::vector<SourceTable>& all, const PublicationInfo& now);
  bool reads_rows(const PublicationInfo& now) const;
  bool lacks_outbox(const std::vector<std::string>& definition, const PublicationInfo& now) const;
  bool may_alter(const PublicationInfo& now);
  Result<bool> take_over(const std::vector<SourceTable>& go, const TablePatterns& wanted);
  Result<bool> alter(const std::string& change, const std::string& what,
                     const std::string& more = {});
  void tell_once(const std::string& message);

  Catalog& catalog_;
  const std::string name_;
  const Options options_;
  bool took_over_ = false;                        ///< The comment was what we were given, once.
  std::map<std::uint32_t, std::uint32_t> roots_;  ///< Of each table, when we last looked.
  std::set<std::string> told_;
};

}  // namespace millrace
