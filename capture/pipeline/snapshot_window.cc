#include "capture/pipeline/snapshot_window.h"

#include "millrace/v1/change.pb.h"
#include "schemas/merge_change.h"

namespace millrace {
namespace {

constexpr std::size_t kIncompleteMax = 1 << 20;
constexpr std::size_t kIncompleteBytesMax = 32 << 20;

/// A change as the row that it leads to, read.
Result<std::string> as_read(const std::string& payload) {
  v1::Change change;
  if (!change.ParseFromString(payload))
    return Error(ErrorCode::kInternal, "a change that was merged is none");
  change.set_op(v1::Change::READ);
  change.clear_lsn();
  change.clear_before();
  change.clear_before_is_key();
  change.clear_unchanged();
  change.clear_moved_from();
  return change.SerializeAsString();
}

}  // namespace

void IncompleteRows::saw(std::string_view key, EventFlags flags) {
  if (has(flags, EventFlags::kCategoryTombstone)) return clear();
  if (!has(flags, EventFlags::kPartial)) return is_whole(key);
  if (overflowed_ || !keys_.emplace(key).second) return;
  bytes_ += key.size();
  if (keys_.size() <= kIncompleteMax && bytes_ <= kIncompleteBytesMax) return;
  clear();
  overflowed_ = true;
}

void IncompleteRows::is_whole(std::string_view key) {
  if (keys_.empty()) return;
  const auto found = keys_.find(std::string(key));
  if (found == keys_.end()) return;
  bytes_ -= found->size();
  keys_.erase(found);
}

void IncompleteRows::clear() {
  keys_.clear();
  bytes_ = 0;
  overflowed_ = false;
}

std::vector<std::string> IncompleteRows::some(std::size_t count) const {
  std::vector<std::string> keys;
  for (auto key = keys_.begin(); key != keys_.end() && keys.size() < count; ++key)
    keys.push_back(*key);
  return keys;
}

void SnapshotWindow::open(std::string category, EncodedRows rows, std::vector<std::string> wanted) {
  drop();
  open_ = true;
  category_ = std::move(category);
  rows_ = std::move(rows);
  wanted_ = std::move(wanted);
  for (const std::string& key : wanted_) names_.insert(key);
  static_cast<void>(
      rows_.for_each([&](std::string_view key, std::string_view payload) -> Result<void> {
        read_.emplace(key, payload);
        return {};
      }));
}

void SnapshotWindow::drop() {
  open_ = truncated_ = false;
  read_.clear();
  names_.clear();
  touched_.clear();
  wanted_.clear();
  rows_ = {};
}

void SnapshotWindow::saw(const NewEvent& event) {
  if (!open_ || !event.type.empty() || event.category != category_) return;
  if (has(event.flags, EventFlags::kCategoryTombstone)) {
    truncated_ = true;
    return;
  }
  const auto read = read_.find(event.key);
  if (read == read_.end() && !names_.contains(event.key)) return;
  State& state = touched_[std::string(event.key)];
  const bool partial = has(event.flags, EventFlags::kPartial);
  const bool has_base = read != read_.end() && state.seen != Seen::kInLog;
  if (partial && has_base) {
    const std::string_view base = state.seen == Seen::kMerged ? state.merged : read->second;
    auto merged = merge_change(base, event.payload);
    // Where it is not to be had (the table has other columns now) the row is read once more.
    if (merged && *merged) {
      state.merged = **std::move(merged);
      state.seen = Seen::kMerged;
      return;
    }
  }
  state.seen = Seen::kInLog;
  state.merged.clear();
}

Result<std::uint64_t> SnapshotWindow::close(EventOut& out, IncompleteRows& incomplete) {
  std::uint64_t count = 0;
  const auto append = [&](std::string_view key, std::string_view payload) -> Result<void> {
    ++count;
    incomplete.is_whole(key);
    return out.add(
        {.category = category_, .key = key, .type = {}, .payload = payload, .metadata = {}});
  };
  Result<void> appended;
  if (!truncated_)
    appended = rows_.for_each([&](std::string_view key, std::string_view payload) -> Result<void> {
      const auto touched = touched_.empty() ? touched_.end() : touched_.find(std::string(key));
      if (touched == touched_.end()) return append(key, payload);
      if (touched->second.seen != Seen::kMerged) return {};
      MILLRACE_ASSIGN_OR_RETURN(const std::string row, as_read(touched->second.merged));
      return append(key, row);
    });
  if (!appended) return std::move(appended).error();
  for (const std::string& key : wanted_)
    if (!read_.contains(key) && !touched_.contains(key)) incomplete.is_whole(key);
  drop();
  return count;
}

}  // namespace millrace
