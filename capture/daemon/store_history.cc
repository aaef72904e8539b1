#include "capture/daemon/store_history.h"

#include <chrono>
#include <utility>

namespace millrace {
namespace {

/// How long a lookup waits for the disk; that is asked for only after a connection has broken, a
/// TRUNCATE, or a transaction that was too large to be kept.
constexpr std::chrono::milliseconds kDurableWait{5000};
constexpr std::size_t kEntryBytes = 200;

/// The category ends at its NUL, which it may not hold.
std::string name_of(std::string_view category, std::string_view key) {
  std::string name(category);
  name += '\0';
  name += key;
  return name;
}

}  // namespace

bool StoreHistory::wants(const TableSchema& table) {
  if (!patterns_.match(table.schema_name, table.table_name)) return false;
  tables_.try_emplace(table.category);
  return true;
}

Result<void> StoreHistory::add(const NewEvent& event) {
  MILLRACE_RETURN_IF_ERROR(out_.add(event));
  const auto table = tables_.find(event.category);
  if (table == tables_.end() || !event.type.empty()) return {};
  if (has(event.flags, EventFlags::kCategoryTombstone)) {
    forget(event.category);
    table->second = {.from = std::nullopt, .truncated_just_now = true};
    return {};
  }
  MILLRACE_ASSIGN_OR_RETURN(const RowChange change, read_row_change(event.payload));
  RowState row;  // what could be completed was
  if (change.op != 'd' && change.after)
    row = {.exists = true,
           .schema = change.schema,
           .row = std::string(*change.after),
           .unknown = change.unchanged};
  put(name_of(event.category, event.key), std::move(row), kOpen);
  return {};
}

Result<void> StoreHistory::commit(std::uint64_t source_end) {
  MILLRACE_RETURN_IF_ERROR(out_.commit(source_end));
  const Offset end = store_.appended_end();
  for (Entry& entry : open_) entry.settled = end;
  settled_.splice(settled_.begin(), open_);
  bool truncated = false;
  for (auto& [category, table] : tables_)
    truncated = std::exchange(table.truncated_just_now, false) || truncated;
  if (std::exchange(lost_some_, false) || truncated) blind_until_ = end;
  return {};
}

/// What was kept of the open transaction never was; what it had replaced was not kept.
Result<void> StoreHistory::rollback() {
  MILLRACE_RETURN_IF_ERROR(out_.rollback());
  by_name_.clear();
  open_.clear();
  settled_.clear();
  bytes_ = 0;
  lost_some_ = false;
  for (auto& [category, table] : tables_) table = {};
  blind_until_ = store_.appended_end();
  return {};
}

Result<RowState> StoreHistory::latest(std::string_view category, std::string_view key) {
  std::string name = name_of(category, key);
  if (const auto known = by_name_.find(name); known != by_name_.end()) {
    const Entries::iterator entry = known->second;
    Entries& list = entry->settled == kOpen ? open_ : settled_;
    list.splice(list.begin(), list, entry);
    return entry->row;
  }
  const auto table = tables_.find(category);
  if (table == tables_.end() || table->second.truncated_just_now || lost_some_) return RowState{};
  MILLRACE_ASSIGN_OR_RETURN(const bool readable, all_is_durable());
  if (!readable) return RowState{};
  if (!rows_) {
    MILLRACE_ASSIGN_OR_RETURN(rows_, StoredRows::open(directory_, files_));
  }
  const Offset end = store_.durable_end();
  if (!table->second.from) {
    MILLRACE_ASSIGN_OR_RETURN(table->second.from, rows_->truncated_end(category, end));
  }
  MILLRACE_ASSIGN_OR_RETURN(RowState row, rows_->find(category, key, *table->second.from, end));
  put(std::move(name), row, end);
  return row;
}

/// What is not kept can be read: true at once but for rare cases.
Result<bool> StoreHistory::all_is_durable() {
  if (store_.durable_end() >= blind_until_) return true;
  store_.request_flush();
  return store_.wait_durable(blind_until_, 0, kDurableWait);
}

void StoreHistory::put(std::string name, RowState row, Offset settled) {
  if (const auto known = by_name_.find(name); known != by_name_.end()) drop(known->second);
  const std::size_t bytes = kEntryBytes + name.size() + row.row.size();
  Entries& list = settled == kOpen ? open_ : settled_;
  list.push_front(
      {.name = std::move(name), .row = std::move(row), .settled = settled, .bytes = bytes});
  by_name_.emplace(list.front().name, list.begin());
  bytes_ += bytes;
  make_room();
}

void StoreHistory::drop(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_name_.erase(entry->name);
  (entry->settled == kOpen ? open_ : settled_).erase(entry);
}

/// What was used longest ago goes, if it can be read again; else what the open transaction changed
/// longest ago.
void StoreHistory::make_room() {
  while (bytes_ > bytes_max_ && by_name_.size() > 1) {
    Entries& list = settled_.empty() ? open_ : settled_;
    const auto last = std::prev(list.end());
    if (last->settled == kOpen)
      lost_some_ = true;
    else if (last->settled > store_.durable_end())
      blind_until_ = std::max(blind_until_, last->settled);
    drop(last);
  }
}

void StoreHistory::forget(std::string_view category) {
  const std::string prefix = name_of(category, {});
  for (Entries* list : {&open_, &settled_})
    for (auto entry = list->begin(); entry != list->end();) {
      const auto here = entry++;
      if (here->name.starts_with(prefix)) drop(here);
    }
}

}  // namespace millrace
