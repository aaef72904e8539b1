#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "eventstore/log_reader.h"
#include "eventstore/policy.h"
#include "eventstore/types.h"
#include "tests/sim/fold.h"

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
  std::optional<std::uint64_t> version{};  ///< In its stream, if it is an event of one.
  std::int64_t appended = 0;

  // What a run of compaction, or erasing, may have made of it. Whether it did depends on faults and
  // on what was worth it, and a crash may take it back.
  bool superseded = false;             ///< Gone, for newer ones stand for it.
  bool lost = false;                   ///< Gone for good: who comes back for it has to be told.
  bool erased = false;                 ///< Gone, a tombstone tells.
  bool surely_erased = false;          ///< No file of the log may hold it.
  std::optional<std::string> whole{};  ///< Partial, and may be complete now, with this payload.
  bool may_be_gone() const { return superseded || lost || erased; }

  NewEvent view() const {
    return {.category = category,
            .key = key,
            .type = type,
            .payload = payload,
            .metadata = metadata,
            .flags = flags,
            .versioned = version.has_value()};
  }
};

struct ModelTransaction {
  TransactionInfo info;     ///< `info.source.end` set; epoch 0 if it was not captured.
  std::uint64_t first = 0;  ///< Offset of its first event ...
  std::uint64_t end = 0;    ///< ... and after its last.
  std::string idempotency_key{};
};

/// How the events are read that a model checks.
struct Reading {
  std::uint64_t next = 0;                 ///< Everything below was given, or passed over.
  std::uint64_t from = 0;                 ///< Nothing below is wanted.
  std::vector<std::string> categories{};  ///< All else is passed over; empty: nothing.
  bool is_fresh = false;  ///< Began after all that happened: nothing erased may come.
  /// Of what was given, on top of what was before `from`; not if something is passed over.
  std::optional<Fold> fold = Fold{};

  bool wants(const std::string& category) const {
    return categories.empty() ||
           std::find(categories.begin(), categories.end(), category) != categories.end();
  }
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

  /// Checks a batch that a reader was given: its events, and what is missing before them.
  void check_batch(Batch& batch, Reading& reading) const;
  /// The reader got to `end`: what is missing before may be gone, or is not wanted.
  void check_end(std::uint64_t end, Reading& reading) const;
  /// The state of the tables after the events below `end`.
  Fold fold_at(std::uint64_t end) const;
  const Fold& fold() const { return fold_; }
  /// That of `reading`, which got to the end of what was given, is what the log says.
  void check_fold(const Reading& reading) const;

  // --- what takes events out: told before it begins
  // ------------------------------------------------

  /// Those that hold after the events below `end`.
  Policies policies_at(std::uint64_t end) const;
  struct CompactionRun {
    Policies policies{};
    std::int64_t now = 0;
    std::uint64_t end = 0, hold = 0;
    bool merges = false;
  };
  void may_compact(const CompactionRun& run);
  /// Gives payloads that no file of the log may hold when it is done.
  std::vector<std::string> may_erase(const std::string& category, const std::string& key,
                                     std::uint64_t below);
  /// An erasing that may have been told before has succeeded.
  void was_erased(const std::string& category, const std::string& key, std::uint64_t below);
  /// A sync has lied: what was erased may be there again, and what stood for older events may be
  /// gone.
  void distrust();
  /// True if nothing can have been taken out of the transactions, ever.
  bool is_whole() const { return !may_lack_; }
  bool may_lack(const ModelTransaction& transaction) const;
  /// True if all of [from, to) may be gone.
  bool may_all_be_gone(std::uint64_t from, std::uint64_t to) const;
  /// True if a reader may be told that it misses something.
  bool may_be_told_of_loss(const Reading& reading) const;

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
  void check_missing(std::uint64_t from, std::uint64_t to, const Reading& reading,
                     bool passes_over) const;
  void check_event(const EventView& event, const ModelEvent& wanted, const Reading& reading,
                   const std::string& where) const;
  void exempt(const std::string& name);

  std::vector<ModelEvent> events_;  // by offset
  std::vector<ModelTransaction> transactions_;
  std::size_t acknowledged_ = 0, honest_ = 0;
  std::uint64_t seen_end_ = 0;
  bool may_lack_ = false;
  Fold fold_;
  /// Tables with events that ever expired, rows that ever had limits, and what was moved from them:
  /// their state is not what it was.
  std::set<std::string> exempt_;
};

}  // namespace millrace::sim
