#include "projections/relational/grouping.h"

#include "base/bytes.h"

namespace millrace::projections::internal {
namespace {

constexpr std::size_t kGroupBytes = 512;  // of one in memory, with its accumulators, about

[[noreturn]] void throw_damaged() {
  throw StateFailure(Error(ErrorCode::kCorruption, "a group in the view's state can't be read")
                         .hint("Make the view anew from the log: rebuild it."));
}

}  // namespace

std::string Groups::key_of(const std::vector<Datum>& columns) {
  std::string key;
  for (const Datum& column : columns) column.encode(key);
  return key;
}

std::vector<Datum> Groups::columns_of(std::string_view key) {
  std::vector<Datum> columns;
  while (!key.empty()) {
    auto column = Datum::take(key);
    if (!column) throw_damaged();
    columns.push_back(*std::move(column));
  }
  return columns;
}

Groups::Group& Groups::load(std::string_view key) {
  Group& group = loaded_[std::string(key)];
  loaded_bytes_ += kGroupBytes + 2 * key.size();
  group.columns = columns_of(key);
  for (std::size_t i = 0; i < shape_.make.size(); ++i)
    group.accumulators.push_back(
        shape_.make[i](Members(members_, std::string(key) + static_cast<char>(i))));
  return group;
}

Groups::Group* Groups::get(std::string_view key) {
  if (const auto there = loaded_.find(key); there != loaded_.end()) return &there->second;
  const auto stored = state_.find(key);
  if (!stored) return nullptr;
  std::string_view rest = *stored;
  if (rest.size() < sizeof(std::uint64_t)) throw_damaged();
  Group& group = load(key);
  group.rows = static_cast<std::int64_t>(load_be<std::uint64_t>(rest.data()));
  rest.remove_prefix(sizeof(std::uint64_t));
  for (const auto& accumulator : group.accumulators)
    if (!accumulator->restore(rest)) throw_damaged();
  if (!rest.empty()) throw_damaged();
  return &group;
}

Groups::Group& Groups::touch(std::string_view key) {
  Group* there = get(key);
  return there != nullptr ? *there : load(key);
}

std::optional<Record> Groups::find(std::string_view key) {
  const Group* group = get(key);
  return group == nullptr ? std::nullopt : row_of(*group);
}

std::optional<Record> Groups::row_of(const Group& group) const {
  if (group.rows == 0) return std::nullopt;
  Record row;
  for (std::size_t i = 0; i < shape_.columns.size(); ++i)
    row.add(shape_.columns[i], group.columns[i]);
  for (std::size_t i = 0; i < shape_.aggregates.size(); ++i)
    row.add(shape_.aggregates[i], group.accumulators[i]->result());
  return row;
}

void Groups::write_back() {
  for (const auto& [key, group] : loaded_) {
    if (group.rows == 0) {
      state_.erase(key);
      continue;
    }
    std::string bytes;
    append_be<std::uint64_t>(bytes, static_cast<std::uint64_t>(group.rows));
    for (const auto& accumulator : group.accumulators) accumulator->encode(bytes);
    state_.put(key, bytes);
  }
  loaded_.clear();
  loaded_bytes_ = 0;
}

std::size_t Groups::bytes_in_memory() const { return loaded_bytes_; }

}  // namespace millrace::projections::internal
