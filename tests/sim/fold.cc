#include "tests/sim/fold.h"

namespace millrace::sim {

std::optional<std::string> merge_rows(std::string_view older, std::string_view newer) {
  const std::size_t b = older.find('b');
  if (b == std::string_view::npos || newer.find('b') != std::string_view::npos) return std::nullopt;
  return std::string(newer) + std::string(older.substr(b));
}

std::optional<std::string_view> moved_from(std::string_view payload) {
  const std::size_t m = payload.find('m');
  if (m == std::string_view::npos) return std::nullopt;
  return payload.substr(m + 1);
}

std::string Fold::name_of(std::string_view category, std::string_view key) {
  std::string name(category);
  name += '/';
  return name += key;
}

void Fold::apply(std::string_view category, std::string_view key, std::string_view payload,
                 EventFlags flags) {
  if (!is_table(category)) return;
  const std::string name = name_of(category, key);
  if (has(flags, EventFlags::kCategoryTombstone)) {
    const std::string first = name_of(category, ""), behind = name_of(category, "\x7f");
    rows_.erase(rows_.lower_bound(first), rows_.lower_bound(behind));
  } else if (has(flags, EventFlags::kTombstone)) {
    const auto row = rows_.find(name);
    if (row == rows_.end()) return;
    deleted_[name] = std::move(row->second);
    rows_.erase(row);
  } else if (!has(flags, EventFlags::kPartial)) {
    rows_[name] = payload;
  } else if (const auto old_key = moved_from(payload)) {
    const auto old = deleted_.find(name_of(category, *old_key));
    if (old == deleted_.end()) return;
    const std::string_view values = payload.substr(0, payload.find('m'));
    if (auto row = merge_rows(old->second, values)) rows_[name] = *std::move(row);
  } else if (const auto row = rows_.find(name); row != rows_.end()) {
    if (auto whole = merge_rows(row->second, payload)) row->second = *std::move(whole);
  }
}

const std::string* Fold::find(const std::string& name) const {
  const auto row = rows_.find(name);
  return row == rows_.end() ? nullptr : &row->second;
}

std::string Fold::difference(const Fold& other, const std::set<std::string>& without) const {
  const auto counts = [&](const std::string& name) {
    return !without.contains(name) && !without.contains(name.substr(0, name.find('/')));
  };
  for (const auto& [name, row] : rows_) {
    const std::string* same = other.find(name);
    if (counts(name) && (same == nullptr || *same != row)) return name;
  }
  for (const auto& [name, row] : other.rows_)
    if (counts(name) && find(name) == nullptr) return name;
  return {};
}

}  // namespace millrace::sim
