#include "capture/keyed_state.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/progress.h"
#include "capture/state/spill_sorter.h"
#include "capture/state/stored_rows.h"
#include "eventstore/log_reader.h"

// Every change of the tables becomes a record, sorted by table, key and place in the log; then the
// changes of a key stand together and are folded. Where rows have no keys, a change is one row less
// and one row more, and the row itself, by a hash of 128 bits, is the key.
namespace millrace {
namespace {

constexpr std::size_t kTableBytes = 4;

std::string_view without_before(std::string_view payload, const RowChange& change,
                                std::string& buffer) {
  if (!change.before) return payload;
  // Its tag, its length, its bytes.
  const auto at = static_cast<std::size_t>(change.before->data() - payload.data());
  const std::size_t head = 1 + varint_size(change.before->size());
  buffer.assign(payload.substr(0, at - head));
  buffer += payload.substr(at + change.before->size());
  return buffer;
}

class State final : public KeyedState {
 public:
  explicit State(Options options)
      : options_(std::move(options)),
        sorter_(options_.spill_folder, options_.memory_bytes),
        truncated_(options_.tables.size()) {
    for (std::size_t i = 0; i < options_.tables.size(); ++i)
      numbers_[options_.tables[i].category] = i;
  }

  Result<void> read();
  Result<const KeyedRow*> next(std::size_t table) override;
  std::uint64_t events() const override { return events_; }

 private:
  Result<void> take(const EventView& event);
  Result<void> take_keyed(std::size_t table, const EventView& event, const RowChange& change);
  Result<void> take_row(std::size_t table, const EventView& event, const RowChange& change,
                        std::string_view row, bool more);
  Result<void> fold_keyed(std::size_t table, const SpillSorter::Record& record);
  Result<void> fold_row(const SpillSorter::Record& record);

  Options options_;
  SpillSorter sorter_;
  std::map<std::string, std::size_t, std::less<>> numbers_;
  std::vector<std::uint64_t> truncated_;  // by table: events below it are of rows that are gone
  std::uint64_t events_ = 0;
  std::unique_ptr<StoredRows> lookup_;  // once a row was moved

  const SpillSorter::Record* record_ = nullptr;  // the next one, once begun_
  bool begun_ = false;
  std::string sort_key_, key_, buffer_;
  RowState state_;
  Offset offset_;
  std::uint64_t count_ = 0;
  std::optional<KeyedRow> row_;
};

Result<void> State::read() {
  ReadOptions read_options;
  read_options.accepts_gaps = true;
  read_options.files = options_.files;
  if (options_.tables.size() == 1) read_options.categories = {options_.tables[0].category};
  MILLRACE_ASSIGN_OR_RETURN(const auto reader, LogReader::open(options_.store, read_options));
  const Offset end = reader->durable_end();
  Progress progress("read the log", end.value, ProgressUnit::kEvents);
  for (;;) {
    if (options_.stop.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
    if (batch == nullptr || batch->first >= end) break;
    if (options_.includes && !options_.includes(batch->info)) continue;
    while (const EventView* event = batch->next())
      if (auto taken = take(*event); !taken)
        return std::move(taken).error().context("event at offset " +
                                                std::to_string(event->offset.value));
    MILLRACE_RETURN_IF_ERROR(batch->status());
    progress.update(batch->first.value + batch->count);
  }
  return {};
}

Result<void> State::take(const EventView& event) {
  if (!event.type.empty()) return {};
  const auto found = numbers_.find(event.category);
  if (found == numbers_.end()) return {};
  ++events_;
  const std::size_t table = found->second;
  if (has(event.flags, EventFlags::kCategoryTombstone)) {
    truncated_[table] = event.offset.value + 1;
    return {};
  }
  MILLRACE_ASSIGN_OR_RETURN(const RowChange change, read_row_change(event.payload));
  sort_key_.clear();
  append_be(sort_key_, static_cast<std::uint32_t>(table));
  if (options_.tables[table].rows_are_keys == nullptr) return take_keyed(table, event, change);
  if (change.before && !change.before_is_key)
    MILLRACE_RETURN_IF_ERROR(take_row(table, event, change, *change.before, false));
  if (change.after && change.unchanged.empty())
    MILLRACE_RETURN_IF_ERROR(take_row(table, event, change, *change.after, true));
  return {};
}

Result<void> State::take_keyed(std::size_t, const EventView& event, const RowChange& change) {
  sort_key_ += event.key;
  return sorter_.add({.key = sort_key_,
                      .order = event.offset.value,
                      .replaces = !has(event.flags, EventFlags::kPartial),
                      .value = without_before(event.payload, change, buffer_)});
}

/// Value: u8(more) varint(schema) varint(key size) key row.
Result<void> State::take_row(std::size_t table, const EventView& event, const RowChange& change,
                             std::string_view row, bool more) {
  MILLRACE_ASSIGN_OR_RETURN(
      const std::string plain,
      row_of_columns(row, *options_.tables[table].rows_are_keys, /*keys_only=*/false));
  sort_key_.resize(kTableBytes);
  sort_key_ += key_of_row(plain);
  buffer_.assign(1, static_cast<char>(more));
  append_varint(buffer_, change.schema);
  append_varint(buffer_, event.key.size());
  buffer_ += event.key;
  buffer_ += plain;
  return sorter_.add({.key = sort_key_,
                      .order = event.offset.value * 2 + (more ? 1 : 0),
                      .replaces = false,
                      .value = buffer_});
}

Result<void> State::fold_keyed(std::size_t table, const SpillSorter::Record& record) {
  if (record.order < truncated_[table]) return {};
  MILLRACE_ASSIGN_OR_RETURN(const RowChange change, read_row_change(record.value));
  RowState moved;
  if (change.moved_from && !change.unchanged.empty()) {
    if (!lookup_) {
      MILLRACE_ASSIGN_OR_RETURN(lookup_, StoredRows::open(options_.store, *options_.files));
    }
    MILLRACE_ASSIGN_OR_RETURN(
        moved, lookup_->find(options_.tables[table].category, *change.moved_from,
                             Offset{truncated_[table]}, before_move(Offset{record.order})));
  }
  offset_ = Offset{record.order};
  MILLRACE_RETURN_IF_ERROR(state_.apply(change, &moved));
  count_ = state_.exists ? 1 : 0;
  return {};
}

/// What is taken away without being there takes nothing away.
Result<void> State::fold_row(const SpillSorter::Record& record) {
  ByteReader in(record.value);
  const bool more = in.u8() != 0;
  const auto schema = static_cast<std::uint32_t>(in.varint());
  const std::string_view key = in.bytes(in.varint());
  const std::string_view row = in.bytes(in.remaining());
  offset_ = Offset{record.order / 2};
  if (more) {
    ++count_;
    key_ = key;
    state_ = {.exists = true, .schema = schema, .row = std::string(row), .unknown = {}};
  } else if (count_ > 0) {
    --count_;
  }
  return {};
}

Result<const KeyedRow*> State::next(std::size_t table) {
  if (!begun_) {
    begun_ = true;
    MILLRACE_ASSIGN_OR_RETURN(record_, sorter_.next());
  }
  const bool by_row = options_.tables[table].rows_are_keys != nullptr;
  while (record_ != nullptr) {
    const auto of = load_be<std::uint32_t>(record_->key.data());
    if (of > table) return nullptr;
    if (of < table) {
      MILLRACE_ASSIGN_OR_RETURN(record_, sorter_.next());
      continue;
    }
    sort_key_ = record_->key;
    key_ = sort_key_.substr(kTableBytes);
    state_ = {};
    count_ = 0;
    while (record_ != nullptr && record_->key == sort_key_) {
      const bool gone = by_row && record_->order / 2 < truncated_[table];
      if (!gone)
        MILLRACE_RETURN_IF_ERROR(by_row ? fold_row(*record_) : fold_keyed(table, *record_));
      MILLRACE_ASSIGN_OR_RETURN(record_, sorter_.next());
    }
    if (count_ == 0) continue;
    row_.emplace(KeyedRow{.key = key_, .state = state_, .offset = offset_, .count = count_});
    return &*row_;
  }
  return nullptr;
}

}  // namespace

std::string key_of_row(std::string_view row) {
  const Hash128 hash = hash128(row, 0);
  std::string key;
  append_be(key, hash.high);
  append_be(key, hash.low);
  return key;
}

Result<std::unique_ptr<KeyedState>> KeyedState::read(Options options) {
  auto state = std::make_unique<State>(std::move(options));
  if (auto done = state->read(); !done) return std::move(done).error().context("read the store");
  return state;
}

}  // namespace millrace
