#include "projections/relational/flow.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "base/bytes.h"
#include "projections/engine/envelope.h"

namespace millrace::projections::internal {
namespace {

constexpr std::uint64_t kPassesBetweenLooks = 64;  // at the memory in use

/// `row` with the fields in `unchanged` as `older` has them. Of a message that was written twice
/// the parts are joined (https://protobuf.dev/programming-guides/encoding/#last-one-wins), so they
/// are simply put behind it.
std::string completed(std::string_view row, std::string_view older,
                      const std::vector<std::uint32_t>& unchanged) {
  std::string whole(row);
  ByteReader in(older);
  while (in.remaining() > 0) {
    const std::string_view from = older.substr(older.size() - in.remaining());
    const std::uint64_t tag = in.varint();
    skip_field(in, tag);
    if (in.failed()) break;  // it was checked when it came
    if (std::find(unchanged.begin(), unchanged.end(), tag >> 3) != unchanged.end())
      whole += from.substr(0, from.size() - in.remaining());
  }
  return whole;
}

}  // namespace

std::optional<std::string_view> SourceTable::find(std::string_view key, When when) {
  if (when == When::kBefore && passing_ && key == key_) return before_;
  return rows_.find(key);
}

void SourceTable::take(const RawChange& change) {
  if (change.op == Op::kTruncate) {
    gathered_.clear();
    truncated_ = true;
    return;
  }
  if (change.op == Op::kDelete) {
    // Should the row come back under another key, its unchanged columns are still to be had.
    moved_ = newest(change.key);
    moved_offset_ = change.offset;
    return gather(change.key, std::nullopt);
  }
  if (change.unchanged.empty()) return gather(change.key, change.after);
  const std::optional<std::string_view> older = before(change);
  if (!older && !warned_) {
    warned_ = true;
    spdlog::warn(
        "row '{}' of {} came without columns that did not change and that the log does not have: "
        "declared views see null there until the row is written anew or read again, by "
        "`millrace capture resnapshot --tables {}`",
        printable(change.key), printable(category_), printable(category_));
  }
  gather(change.key, completed(change.after, older.value_or(std::string_view()), change.unchanged));
}

/// The row that a change made another of, also under another key: where that was not deleted, since
/// somebody skipped it, it is still there.
std::optional<std::string_view> SourceTable::before(const RawChange& change) {
  if (!change.moved_from) return newest(change.key);
  const bool came_just_now = moved_offset_.value + 1 == change.offset.value;
  return came_just_now ? moved_ : newest(*change.moved_from);
}

std::optional<std::string_view> SourceTable::newest(std::string_view key) {
  if (const auto* gathered = gathered_.find(key)) return gathered->value();
  return truncated_ ? std::nullopt : rows_.find(key);
}

Result<void> SourceTable::drain(const std::function<Result<void>()>& relieve) {
  const bool rows_are_needed = std::any_of(
      leaves_.begin(), leaves_.end(), [](const Leaf* leaf) { return leaf->rows_are_needed(); });
  std::vector<std::string> gone_keys;  // outlive what an error says of them
  try {
    gone_keys = gone();
    std::uint64_t passed = 0;
    for (const std::string& key : gone_keys) {
      pass(key, std::nullopt, rows_are_needed);
      if (++passed % kPassesBetweenLooks == 0) MILLRACE_RETURN_IF_ERROR(relieve());
    }
    const auto entries = gathered_.in_order();  // as SQLite likes to be given rows
    passed = 0;
    for (const ByteMap::Entry* entry : entries) {
      pass(entry->key(), entry->value(), rows_are_needed);
      if (++passed % kPassesBetweenLooks != 0) continue;
      passed_bytes_ = 2 * gathered_.bytes() / entries.size() * passed;
      MILLRACE_RETURN_IF_ERROR(relieve());
    }
  } catch (StateFailure& failure) {
    return failure.take();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const BadRow& bad) {
    return Error(ErrorCode::kCorruption, called(key_) + ": " + bad.what());
  } catch (const std::exception& thrown) {
    return Error(ErrorCode::kFailedPrecondition,
                 called(key_) + ": a function of the view threw: " + thrown.what())
        .hint("The view stays as of its last commit. Mend the function, then start again.");
  } catch (...) {
    return Error(ErrorCode::kFailedPrecondition,
                 called(key_) + ": a function of the view threw what is no std::exception")
        .hint("The view stays as of its last commit. Mend the function, then start again.");
  }
  truncated_ = false;
  gathered_.clear();
  passed_bytes_ = 0;
  return {};
}

std::vector<std::string> SourceTable::gone() {
  std::vector<std::string> keys;
  if (!truncated_) return keys;
  rows_.for_each([&](std::string_view key, std::string_view) {
    if (gathered_.find(key) == nullptr) keys.emplace_back(key);
  });
  return keys;
}

std::string SourceTable::called(std::string_view key) {
  return "row '" + printable(key) + "' of " + printable(category_);
}

void SourceTable::pass(std::string_view key, std::optional<std::string_view> row,
                       bool rows_are_needed) {
  key_ = key;
  before_.reset();
  if (!rows_are_needed) {  // the key is enough, and nobody asks for the row of before
    keep(key, row);
    for (Leaf* leaf : leaves_) leaf->changed(key, std::nullopt, std::nullopt);
    return;
  }
  if (const auto old = rows_.find(key)) before_.emplace(*old);
  if (before_ == row) return;
  passing_ = true;
  keep(key, row);
  for (Leaf* leaf : leaves_) leaf->changed(key, before_, row);
  passing_ = false;
}

void SourceTable::keep(std::string_view key, std::optional<std::string_view> row) {
  if (row)
    rows_.put(key, *row);
  else
    rows_.erase(key);
}

SourceTable* Flow::find_source(std::string_view category) {
  for (const auto& source : sources_)
    if (source->category() == category) return source.get();
  return nullptr;
}

template <typename State>
void Flow::prepare(State& state) {
  const std::string name = name_ + "_state_" + std::to_string(++states_);
  auto done =
      purpose_ == Purpose::kCreate ? State::create(database_, name) : state.open(database_, name);
  if (!done && !failure_) failure_ = std::move(done).error();
}

StateTable& Flow::state_table() {
  prepare(*tables_.emplace_back(std::make_unique<StateTable>()));
  return *tables_.back();
}

StateIndex& Flow::state_index() {
  prepare(*indexes_.emplace_back(std::make_unique<StateIndex>()));
  return *indexes_.back();
}

Result<void> Flow::made() const {
  if (failure_) return *failure_;
  return {};
}

void Flow::take(const RawChange& change) { find_source(change.category)->take(change); }

Result<void> Flow::drain(const std::function<Result<void>()>& relieve) {
  for (const auto& source : sources_) MILLRACE_RETURN_IF_ERROR(source->drain(relieve));
  return {};
}

Result<void> Flow::flush() {
  try {
    for (Cache* cache : caches_) cache->write_back();
  } catch (StateFailure& failure) {
    return failure.take();
  }
  for (const auto& table : tables_) MILLRACE_RETURN_IF_ERROR(table->flush());
  for (const auto& index : indexes_) MILLRACE_RETURN_IF_ERROR(index->flush());
  return {};
}

std::size_t Flow::bytes_in_memory() const {
  std::size_t bytes = 0;
  for (const auto& source : sources_) bytes += source->bytes_in_memory();
  for (const auto& table : tables_) bytes += table->bytes_in_memory();
  for (const auto& index : indexes_) bytes += index->bytes_in_memory();
  for (const Cache* cache : caches_) bytes += cache->bytes_in_memory();
  return bytes;
}

}  // namespace millrace::projections::internal
