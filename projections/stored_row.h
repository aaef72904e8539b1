#pragma once

#include <deque>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/value.h"

namespace millrace::projections {

/// A row as the view has it now: row["orders"].integer(). A copy, valid for as long as it lives.
class StoredRow {
 public:
  /// Throws std::invalid_argument if the view has no such column.
  const Value& operator[](std::string_view column) const {
    for (const auto& [name, value] : values_)
      if (name == column) return value;
    throw std::invalid_argument("the view has no column '" + std::string(column) + "'");
  }

  /// For the writers of views.
  void add(std::string name, const Value& value) {
    const bool bytes = value.kind() == Value::Kind::kText || value.kind() == Value::Kind::kBlob;
    if (!bytes) return static_cast<void>(values_.emplace_back(std::move(name), value));
    const std::string& copy = copies_.emplace_back(value.text());
    values_.emplace_back(std::move(name),
                         value.kind() == Value::Kind::kBlob ? Value::blob(copy) : Value(copy));
  }

 private:
  std::vector<std::pair<std::string, Value>> values_;
  std::deque<std::string>
      copies_;  // a deque never moves what it holds: the values above are views of it
};

}  // namespace millrace::projections
