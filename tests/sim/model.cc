#include "tests/sim/model.h"

#include <algorithm>

namespace millrace::sim {

void check(bool holds, const char* checker, const std::string& what) {
  if (!holds) throw CheckFailed(checker, what);
}

void Model::add(const TransactionInfo& info, std::vector<ModelEvent> events,
                const std::string& idempotency_key) {
  ModelTransaction transaction{.info = info,
                               .first = end(),
                               .end = end() + events.size(),
                               .idempotency_key = idempotency_key};
  transactions_.push_back(transaction);
  for (ModelEvent& event : events) {
    event.appended = info.commit_time.value;
    fold_.apply(event.category, event.key, event.payload, event.flags);
    const auto from = has(event.flags, EventFlags::kPartial) && Fold::is_table(event.category)
                          ? moved_from(event.payload)
                          : std::nullopt;
    if (from && exempt_.contains(Fold::name_of(event.category, *from)))
      exempt_.insert(Fold::name_of(event.category, event.key));
  }
  std::move(events.begin(), events.end(), std::back_inserter(events_));
}

void Model::acknowledge(bool honestly) {
  acknowledged_ = transactions_.size();
  if (honestly) honest_ = acknowledged_;
}

void Model::see(std::uint64_t end) { seen_end_ = std::max(seen_end_, end); }

std::uint64_t Model::promised_end(bool after_lie) const {
  return after_lie ? end_of(honest_) : std::max(end_of(acknowledged_), seen_end_);
}

std::size_t Model::reopen(Offset end, const std::optional<SourcePosition>& source, bool after_lie,
                          bool honestly) {
  check(end.value >= promised_end(after_lie), "I1 durable events lost",
        "the store ends at " + std::to_string(end.value) + ", promised was " +
            std::to_string(promised_end(after_lie)));
  const std::size_t promised = after_lie ? honest_ : acknowledged_;
  std::size_t count = transactions_.size();
  while (end_of(count) != end.value || source_at(count) != source) {
    check(count > promised, "I3 end is no end of a transaction that may be the last",
          "offset " + std::to_string(end.value));
    --count;
  }
  transactions_.resize(count);
  if (end.value != events_.size()) fold_ = fold_at(end.value);
  events_.resize(end.value);
  acknowledged_ = count;
  honest_ = honestly ? count : std::min(honest_, count);
  seen_end_ = std::min(seen_end_, end.value);
  return count;
}

std::optional<SourcePosition> Model::source_at(std::size_t count) const {
  while (count != 0 && transactions_[count - 1].info.source.epoch == 0) --count;
  if (count == 0) return std::nullopt;
  return transactions_[count - 1].info.source;
}

const ModelTransaction& Model::transaction_at(std::uint64_t offset) const {
  return *std::upper_bound(
      transactions_.begin(), transactions_.end(), offset,
      [](std::uint64_t at, const ModelTransaction& each) { return at < each.end; });
}

std::uint64_t Model::next_version(const std::string& category, const std::string& key) const {
  for (auto event = events_.rbegin(); event != events_.rend(); ++event)
    if (event->version && event->category == category && event->key == key)
      return *event->version + 1;
  return 0;
}

const ModelTransaction* Model::find_append(const std::string& idempotency_key) const {
  for (const ModelTransaction& transaction : transactions_)
    if (transaction.idempotency_key == idempotency_key) return &transaction;
  return nullptr;
}

bool Model::may_all_be_gone(std::uint64_t from, std::uint64_t to) const {
  return std::all_of(events_.begin() + static_cast<std::ptrdiff_t>(from),
                     events_.begin() + static_cast<std::ptrdiff_t>(to),
                     [](const ModelEvent& event) { return event.may_be_gone(); });
}

void Model::check_missing(std::uint64_t from, std::uint64_t to, const Reading& reading,
                          bool passes_over) const {
  for (std::uint64_t offset = from; offset < to; ++offset) {
    const ModelEvent& event = events_[offset];
    if (passes_over && !reading.wants(event.category)) continue;
    const auto what = [&] {
      return "offset " + std::to_string(offset) + ", " + event.category + "/" + event.key;
    };
    check(event.may_be_gone(), "I15 an event is missing that nothing allowed to go", what());
    if (reading.from != 0 && reading.wants(event.category))
      check(event.superseded || event.erased, "I12 a reader that came back was not told of a gap",
            what());
  }
}

void Model::check_event(const EventView& event, const ModelEvent& wanted, const Reading& reading,
                        const std::string& where) const {
  check(!reading.is_fresh || !wanted.surely_erased, "I15 an erased event is there", where);
  const bool completed =
      has(wanted.flags, EventFlags::kPartial) && !has(event.flags, EventFlags::kPartial);
  check(!completed || wanted.whole, "I15 a partial event is complete that can't be", where);
  const bool is_exempt = exempt_.contains(Fold::name_of(event.category, event.key));
  check(event.category == wanted.category && event.key == wanted.key && event.type == wanted.type &&
            (completed ? is_exempt || event.payload == *wanted.whole
                       : event.payload == wanted.payload) &&
            event.metadata == wanted.metadata && event.version == wanted.version &&
            event.flags == (completed ? without(wanted.flags, EventFlags::kPartial) : wanted.flags),
        completed ? "I15 a partial event was completed wrongly"
                  : "I8 event differs from what was appended",
        where);
}

void Model::check_batch(Batch& batch, Reading& reading) const {
  const std::uint64_t first = batch.first.value;
  const std::string where = "batch of " + std::to_string(batch.count) + " events from " +
                            std::to_string(first) + " on, byte " + std::to_string(batch.position) +
                            " of segment " + std::to_string(batch.segment);
  check(first < events_.size(), "I5 reader got what was never committed", where);
  const ModelTransaction& transaction = transaction_at(first);
  const bool lacks = may_lack(transaction);
  check(batch.ordinal == first - transaction.first, "I3 ordinal in the transaction", where);
  TransactionInfo expected = transaction.info;
  if (!batch.last_of_transaction) expected.source.end = 0;
  check(batch.info.source == expected.source && batch.info.source_xid == expected.source_xid &&
            batch.info.commit_time == expected.commit_time &&
            batch.info.snapshot == expected.snapshot,
        "I4 transaction's header", where);
  if (first > reading.next) check_missing(reading.next, first, reading, true);
  std::uint64_t next = std::max(first, reading.next), count = 0;
  while (const EventView* event = batch.next()) {
    const std::uint64_t offset = event->offset.value;
    check(offset >= next && offset < transaction.end, "I2 offsets", where);
    check(lacks || offset == next, "I2 offsets", where);
    check_missing(next, offset, reading, false);
    check_event(*event, events_[offset], reading, where);
    if (reading.fold)
      reading.fold->apply(event->category, event->key, event->payload, event->flags);
    next = offset + 1;
    ++count;
  }
  check(batch.status().has_value() && (first < reading.from || count == batch.count),
        "I8 batch ends early", where);
  if (!lacks) {
    check(count != 0 && (next == first + batch.count), "I8 batch ends early", where);
    check(batch.first_of_transaction == (first == transaction.first) &&
              batch.last_of_transaction == (next == transaction.end),
          "I3 bounds of a transaction", where);
  } else {
    check(count != 0 || batch.last_of_transaction || first < reading.from,
          "I8 batch without events", where);
    const bool first_may_be_gone =
        first != transaction.first && may_all_be_gone(transaction.first, first);
    const bool rest_may_be_gone = next != transaction.end && may_all_be_gone(next, transaction.end);
    check((batch.first_of_transaction ? first == transaction.first || first_may_be_gone
                                      : first != transaction.first) &&
              (batch.last_of_transaction ? next == transaction.end || rest_may_be_gone
                                         : next != transaction.end),
          "I3 bounds of a transaction", where);
  }
  reading.next = next;
}

void Model::check_end(std::uint64_t end, Reading& reading) const {
  if (end <= reading.next) return;
  check(end <= events_.size(), "I5 reader passed the end");
  check_missing(reading.next, end, reading, true);
  reading.next = end;
}

}  // namespace millrace::sim
