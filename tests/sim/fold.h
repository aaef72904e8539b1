#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "eventstore/types.h"

namespace millrace::sim {

// Rows of tables, the categories t0 and t1. A row's payload is "a" with a number and "b" with one;
// a change that lacks "b" is partial. One that ends in "m" and a key is of a row that was moved
// here from that key, which was deleted just before.

/// Nothing if they do not fit together; as MergeFunction.
std::optional<std::string> merge_rows(std::string_view older, std::string_view newer);
/// Where the row came from; nothing if it was not moved.
std::optional<std::string_view> moved_from(std::string_view payload);

/// What a view of the tables holds.
class Fold {
 public:
  /// Rows, by category and key with a '/' between.
  using Rows = std::map<std::string, std::string>;

  static bool is_table(std::string_view category) { return category.starts_with('t'); }
  static std::string name_of(std::string_view category, std::string_view key);

  void apply(std::string_view category, std::string_view key, std::string_view payload,
             EventFlags flags);
  const std::string* find(const std::string& name) const;
  const Rows& rows() const { return rows_; }
  /// The name of a row that is not the same in both, of those that count; empty if there is none.
  std::string difference(const Fold& other, const std::set<std::string>& without) const;

 private:
  Rows rows_;
  Rows deleted_;  // as they were last
};

}  // namespace millrace::sim
