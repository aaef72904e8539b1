#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "eventstore/log_reader.h"
#include "eventstore/types.h"

namespace millrace::sim {

/// An invariant does not hold. `checker` says which (RELIABILITY's I1 to I16, and what was looked
/// at); while a trace shrinks, the same checker has to fail.
struct CheckFailed : std::runtime_error {
  CheckFailed(std::string which, const std::string& what)
      : std::runtime_error(which + ": " + what), checker(std::move(which)) {}
  std::string checker;
};

void check(bool holds, const char* checker, const std::string& what = "");

struct ModelEvent {
  std::string category, key, type, payload, metadata;
  EventFlags flags = EventFlags::kNone;
  std::optional<std::uint64_t> version{};  ///< In its stream, if it was appended to one.
  NewEvent view() const {
    return {.category = category,
            .key = key,
            .type = type,
            .payload = payload,
            .metadata = metadata,
            .flags = flags};
  }
};

struct ModelTransaction {
  TransactionInfo info;     ///< `info.source.end` set; epoch 0 if it was not captured.
  std::uint64_t first = 0;  ///< Offset of its first event ...
  std::uint64_t end = 0;    ///< ... and after its last.
  std::string idempotency_key{};
};

/// What the store has to be like: every transaction that was committed, in order, and how far they
/// were promised to be durable.
class Model {
 public:
  void add(const TransactionInfo& info, std::vector<ModelEvent> events,
           const std::string& idempotency_key = {});
  /// All that was committed has been called durable. `honestly`: no sync lied.
  void acknowledge(bool honestly);
  /// Readers were given everything below `end`.
  void see(std::uint64_t end);
  /// A store was opened that ends at `end` with `source`: gives how many transactions survived, and
  /// forgets the others. Checks that it is a whole number of them, and at least what was promised;
  /// `after_lie`: only what was promised before a sync lied. `honestly`: no lie is left that could
  /// still cost something.
  std::size_t reopen(Offset end, const std::optional<SourcePosition>& source, bool after_lie,
                     bool honestly);

  /// Checks a batch that a reader was given, all of its events that lie at or after `from`.
  void check_batch(Batch& batch, std::uint64_t from) const;
  /// True if an event of `category` lies in [from, to).
  bool mentions(const std::string& category, std::uint64_t from, std::uint64_t to) const;
  /// That the next event of a stream gets.
  std::uint64_t next_version(const std::string& category, const std::string& key) const;
  /// The append that had this idempotency key, if there is one.
  const ModelTransaction* find_append(const std::string& idempotency_key) const;
  /// The position of the last captured transaction among the first `count`.
  std::optional<SourcePosition> source_at(std::size_t count) const;

  const std::vector<ModelTransaction>& transactions() const { return transactions_; }
  std::uint64_t end() const { return events_.size(); }
  std::size_t acknowledged() const { return acknowledged_; }
  std::uint64_t acknowledged_end() const { return end_of(acknowledged_); }
  /// What no crash may take back.
  std::uint64_t promised_end(bool after_lie) const;

 private:
  std::uint64_t end_of(std::size_t count) const {
    return count == 0 ? 0 : transactions_[count - 1].end;
  }
  const ModelTransaction& transaction_at(std::uint64_t offset) const;

  std::vector<ModelEvent> events_;  // by offset
  std::vector<ModelTransaction> transactions_;
  std::size_t acknowledged_ = 0, honest_ = 0;
  std::uint64_t seen_end_ = 0;
};

}  // namespace millrace::sim
