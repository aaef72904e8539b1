#pragma once

#include <bitset>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "projections/sqlite/database.h"
#include "projections/view.h"

namespace millrace::projections::sqlite {

/// Columns of a view by their place; the key is not among them.
using Mask = std::bitset<kColumnsMax>;

/// Columns by name.
class ColumnNames {
 public:
  explicit ColumnNames(std::vector<std::string> names) : names_(std::move(names)) {}

  std::optional<std::size_t> place_of(std::string_view name) const {
    for (std::size_t place = 0; place < names_.size(); ++place)
      if (names_[place] == name) return place;
    return std::nullopt;
  }
  const std::vector<std::string>& all() const { return names_; }

 private:
  std::vector<std::string> names_;
};

/// Assignments with their names looked up and unchanged ones left out.
struct Resolved {
  Mask mask;
  bool any_unchanged = false;
  /// In the order of their places, each once: of a column that is named twice the last value.
  std::vector<std::pair<std::size_t, Value>> values;

  /// Quick where the columns come in their order, as code is usually written. kInvalidArgument,
  /// naming the columns that there are, if one is not there.
  Result<void> assign(const ColumnNames& columns, AssignmentList assignments);

 private:
  void put_in_order();
};

/// Statements of one kind, one for each set of columns that it is used with.
class StatementsByMask {
 public:
  /// `sql(mask)` is asked once per mask.
  template <typename Sql>
  Result<Statement*> get(Database& database, const Mask& mask, const Sql& sql) {
    if (last_ != nullptr && mask == last_mask_) return last_;
    auto found = statements_.find(mask);
    if (found == statements_.end()) {
      MILLRACE_ASSIGN_OR_RETURN(Statement statement, database.prepare(sql(mask)));
      found = statements_.emplace(mask, std::move(statement)).first;
    }
    last_mask_ = mask;
    return last_ = &found->second;
  }

 private:
  std::unordered_map<Mask, Statement> statements_;
  Mask last_mask_;
  Statement* last_ = nullptr;
};

/// An erase() that was put off: should the next event be the second half of a change of key, with
/// columns that were not sent, they are taken from the row that this would have removed.
class PendingErase {
 public:
  void set(const Value& key, Offset offset);
  bool is_set() const { return set_; }
  void reset() { set_ = false; }
  Value key() const;
  /// `change` is the second half of the change of key whose first half erased this.
  bool is_first_half_of(const internal::RawChange& change) const {
    return set_ && change.moved_from && offset_.value + 1 == change.offset.value;
  }

 private:
  bool set_ = false;
  Offset offset_;
  Value key_;
  std::string text_;
};

/// `key` as the key column of a view has it, whichever of number and text it was given as; its text
/// may be put into `buffer`. kInvalidArgument if it is neither, or a text that is no integer where
/// the column is one.
Result<Value> key_as(ColumnType type, const Value& key, std::string& buffer);
/// kInvalidArgument if a name is empty, or two are the same to SQLite.
Result<void> check_names(const std::vector<std::string>& names);
std::string_view type_name(ColumnType type);

}  // namespace millrace::projections::sqlite
