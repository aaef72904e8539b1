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

bool Model::mentions(const std::string& category, std::uint64_t from, std::uint64_t to) const {
  return std::any_of(events_.begin() + static_cast<std::ptrdiff_t>(from),
                     events_.begin() + static_cast<std::ptrdiff_t>(to),
                     [&](const ModelEvent& event) { return event.category == category; });
}

void Model::check_batch(Batch& batch, std::uint64_t from) const {
  const std::uint64_t first = batch.first.value, end = first + batch.count;
  const std::string where = "batch of the events " + std::to_string(first) + " to " +
                            std::to_string(end) + ", byte " + std::to_string(batch.position) +
                            " of segment " + std::to_string(batch.segment);
  check(batch.count != 0 && end <= events_.size(), "I5 reader got what was never committed", where);
  const ModelTransaction& transaction = transaction_at(first);
  check(end <= transaction.end, "I3 batch of two transactions", where);
  check(batch.first_of_transaction == (first == transaction.first) &&
            batch.last_of_transaction == (end == transaction.end) &&
            batch.ordinal == first - transaction.first,
        "I3 bounds of a transaction", where);
  TransactionInfo expected = transaction.info;
  if (!batch.last_of_transaction) expected.source.end = 0;
  check(batch.info.source == expected.source && batch.info.source_xid == expected.source_xid &&
            batch.info.commit_time == expected.commit_time &&
            batch.info.snapshot == expected.snapshot,
        "I4 transaction's header", where);
  std::uint64_t offset = std::max(first, from);
  while (const EventView* event = batch.next()) {
    check(event->offset.value == offset && offset < end, "I2 offsets", where);
    const ModelEvent& wanted = events_[offset++];
    check(event->category == wanted.category && event->key == wanted.key &&
              event->type == wanted.type && event->payload == wanted.payload &&
              event->metadata == wanted.metadata && event->flags == wanted.flags &&
              event->version == wanted.version,
          "I8 event differs from what was appended", where);
  }
  check(batch.status().has_value() && offset == end, "I8 batch ends early", where);
}

}  // namespace millrace::sim
