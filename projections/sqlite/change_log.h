#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "eventstore/types.h"
#include "projections/sqlite/database.h"
#include "projections/view.h"

// Which rows of a view each commit of its file has changed, kept in that file for as long as it
// takes to bring a sink up to date: the tables millrace_sink and millrace_sink_commits.

namespace millrace::projections::sqlite {

/// The newest commit of a file.
struct ChangeLogHead {
  std::string lineage;  ///< Of this file and no other; a new one where commits went unrecorded.
  std::uint64_t commit = 0;
};

/// The keys that changed, each once, in their order.
using ChangedKeys = std::vector<std::string>;

/// The recording side. Threads: one.
class ChangeLog {
 public:
  /// Makes the tables where they are missing.
  static Result<std::unique_ptr<ChangeLog>> open(Database& database, ColumnType key);
  /// For a file whose commits are not recorded any more: what there is would have a gap.
  static Result<void> remove(Database& database);

  void changed(const Value& key);
  void all_changed();
  /// What `before` has not written yet.
  void take_over_from(ChangeLog& before);
  /// Writes the next commit into the transaction that is open.
  Result<void> commit(Offset offset);

 private:
  ChangeLog(Database& database, ColumnType key) : database_(database), key_(key) {}
  Result<void> prune();

  Database& database_;
  const ColumnType key_;
  std::uint64_t commit_ = 0;
  std::vector<std::int64_t> numbers_;
  std::unordered_set<std::string> texts_;
  std::size_t text_bytes_ = 0;
  bool all_ = false;
  std::deque<std::pair<std::uint64_t, std::size_t>> kept_;  ///< Commits, with the bytes of theirs.
  std::size_t kept_bytes_ = 0;
  Statement insert_, prune_;
};

/// Nothing if commits of the file are not recorded.
Result<std::optional<ChangeLogHead>> read_change_log_head(Database& database);

/// The keys that changed after the commit with that number and offset, of the same lineage. Nothing
/// if that can't be told: it was too long ago, too much changed, or there was no such commit.
Result<std::optional<ChangedKeys>> changed_since(Database& database, ColumnType key,
                                                 std::uint64_t commit, Offset offset);

/// A key of changed_since(), in the view's type. A text is a view of `key`.
Value key_of(ColumnType type, const std::string& key);

}  // namespace millrace::projections::sqlite
