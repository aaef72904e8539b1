#include "projections/sqlite/columns.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/bytes.h"

namespace millrace::projections::sqlite {

namespace {

Error no_column(const ColumnNames& columns, std::string_view name) {
  std::string there;
  for (const auto& column : columns.all()) there += (there.empty() ? "" : ", ") + column;
  return Error(ErrorCode::kInvalidArgument,
               "the view has no column '" + printable(name) + "' to write to; it has: " + there);
}

}  // namespace

Result<void> Resolved::assign(const ColumnNames& columns, AssignmentList assignments) {
  mask.reset();
  any_unchanged = false;
  values.clear();
  const std::vector<std::string>& names = columns.all();
  std::size_t place = 0;
  bool in_order = true;
  for (const auto& [name, value] : assignments) {
    if (place >= names.size() || names[place] != name) [[unlikely]] {
      const auto found = columns.place_of(name);
      if (!found) return no_column(columns, name);
      place = *found;
    }
    const std::size_t here = place++;
    if (value.is_unchanged()) {
      any_unchanged = true;
      continue;
    }
    mask.set(here);
    in_order = in_order && (values.empty() || values.back().first < here);
    values.emplace_back(here, value);
  }
  if (!in_order) [[unlikely]]
    put_in_order();
  return {};
}

void Resolved::put_in_order() {
  std::stable_sort(values.begin(), values.end(),
                   [](const auto& left, const auto& right) { return left.first < right.first; });
  std::size_t kept = 0;
  for (const auto& value : values) {
    if (kept == 0 || values[kept - 1].first != value.first) ++kept;
    values[kept - 1] = value;
  }
  values.resize(kept);
}

void PendingErase::set(const Value& key, Offset offset) {
  set_ = true;
  offset_ = offset;
  key_ = key;
  text_ = key.text();
}

Value PendingErase::key() const { return key_.kind() == Value::Kind::kText ? Value(text_) : key_; }

Result<Value> key_as(ColumnType type, const Value& key, std::string& buffer) {
  const bool is_number = key.kind() == Value::Kind::kInteger;
  if (!is_number && key.kind() != Value::Kind::kText) [[unlikely]]
    return Error(ErrorCode::kInvalidArgument,
                 key.is_null() ? "a row of the view was written with null as its key"
                               : "the key of a row of the view must be a number or text")
        .hint("Use change.key(), or a column that is part of the table's key.");
  if (is_number == (type == ColumnType::kInteger)) return key;
  if (is_number) return Value(buffer = std::to_string(key.integer()));
  const std::string_view text = key.text();
  std::int64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure == std::errc() && end == text.data() + text.size()) [[likely]]
    return Value(number);
  return Error(ErrorCode::kInvalidArgument, "the key '" + printable(text) + "' is no integer")
      .hint("Declare the view with .key = text(\"...\"), raise its version and rebuild it.");
}

Result<void> check_names(const std::vector<std::string>& names) {
  if (names.size() > kColumnsMax)
    return Error(ErrorCode::kInvalidArgument,
                 "it has more than " + std::to_string(kColumnsMax) + " columns");
  std::set<std::string> seen;
  for (std::string name : names) {
    if (name.empty()) return Error(ErrorCode::kInvalidArgument, "a column has no name");
    if (name.find('\0') != std::string::npos)
      return Error(ErrorCode::kInvalidArgument, "a column's name holds a NUL");
    std::transform(name.begin(), name.end(), name.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c;
    });
    if (!seen.insert(name).second)
      return Error(ErrorCode::kInvalidArgument,
                   "two of its columns are named '" + printable(name) + "'");
  }
  return {};
}

std::string_view type_name(ColumnType type) {
  switch (type) {
    case ColumnType::kInteger: return "INTEGER";
    case ColumnType::kReal: return "REAL";
    case ColumnType::kText: return "TEXT";
    case ColumnType::kBlob:
    case ColumnType::kNumeric: return "BLOB";  // SQLite's NUMERIC would make a real of a decimal
  }
  return "";
}

}  // namespace millrace::projections::sqlite
