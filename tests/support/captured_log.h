#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"

namespace millrace::test {

/// Everything that a store holds, folded: the state that its events lead to, table by table.
struct CapturedLog {
  using Table = std::map<std::string, nlohmann::json>;  ///< Key text to row.

  std::map<std::string, Table> tables;  ///< By category.
  std::vector<nlohmann::json> events;   ///< In order, as `log tail --json` prints them.
  /// But for those that tell how far snapshots are, and of tables' shapes.
  std::vector<nlohmann::json> notes;
  std::size_t transactions = 0;
  std::size_t snapshot_events = 0;  ///< Rows that snapshots read.
  /// What is wrong with the log itself: a gap or repeat in offsets, positions out of order or not
  /// unique, a torn transaction; and, but for tables that a snapshot is reading at that place, an
  /// update or delete of a row that is not there, a create of one that is, a value left unchanged
  /// that was never told. Empty when it is sound.
  std::vector<std::string> faults;

  /// Events of one category and op ("c", "u", ...).
  std::vector<nlohmann::json> of(const std::string& category, const std::string& op) const;
};

/// Throws std::runtime_error if the store can't be read. Tables in `made_anew` are dropped and
/// created again meanwhile: what is changed between that and the reading of the new one's rows is
/// of rows that the log does not know, and no fault.
CapturedLog read_captured_log(const Path& store, const std::set<std::string>& made_anew = {});

/// How many events are durable but for those that `notes` holds; 0 if there is no store yet.
std::uint64_t count_changes(const Path& store);

}  // namespace millrace::test
