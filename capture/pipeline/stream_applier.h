#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "capture/pgoutput/decoder.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/own_messages.h"

namespace millrace {

/// Turns the bytes of a replication stream into whole transactions: a pure state machine.
///
/// Transactions whose commit LSN is at or below the last one that is already there are dropped
/// whole: the server may send them again after a crash. A transaction without events (all its
/// changes were in tables that are not captured) is not handed on at all: a busy database makes
/// very many of them. They move seen_end() only.
///
/// Transactional logical messages become events, but for capture's own; others are ignored, since
/// they belong to no transaction and come again after a restart. Streamed transactions in progress
/// (pgoutput's option `streaming`) are refused.
///
/// Errors: kCorruption for anything out of order (a change outside a transaction, a commit that is
/// not the begin's, commit LSNs that do not increase), and those of decoder, encoder and `out`.
/// After an error every apply() gives kFailedPrecondition until reset().
class StreamApplier {
 public:
  /// `last_commit`: of the last transaction of `epoch` that `out` already has.
  StreamApplier(ChangeEncoder& encoder, EventOut& out, std::uint32_t epoch, Lsn last_commit);

  /// Who hears capture's own messages; nobody without. Not those of transactions that are dropped.
  void set_own_messages(OwnMessages* listener) { own_messages_ = listener; }

  /// One pgoutput message, sent at `wal_start` (from the XLogData header).
  Result<void> apply(std::string_view message, Lsn wal_start);
  /// The connection is gone: drops the open transaction and every table's shape. What was handed on
  /// stays known, so that the next connection may send it again.
  Result<void> reset();

  bool in_transaction() const { return in_transaction_; }
  Lsn last_commit() const {
    return last_commit_;
  }                                           ///< Commit LSN of the last transaction handed on.
  Lsn last_end() const { return last_end_; }  ///< Its end LSN; 0 before the first.
  /// End LSN of the last whole transaction that came, also of one that was empty or dropped. Once
  /// what was handed on (up to last_end()) is durable, the source may forget everything below this.
  Lsn seen_end() const { return seen_end_; }
  std::uint64_t transactions() const { return transactions_; }  ///< Handed on.
  std::uint64_t changes() const { return changes_; }            ///< Messages that became events.
  std::uint64_t repeated() const { return repeated_; }  ///< Transactions dropped as already there.
  std::uint64_t empty() const { return empty_; }        ///< Transactions without events.

 private:
  Result<void> dispatch(std::string_view bytes, Lsn wal_start);
  Result<void> begin(const pgoutput::Begin& begin);
  Result<void> commit(const pgoutput::Commit& commit);
  Result<void> relation(const pgoutput::Relation& relation, std::string_view bytes, Lsn wal_start);
  Result<void> learn_postponed();
  Result<void> own_message(const pgoutput::LogicalMessage& message);
  /// Makes ready for an event of a change: false where it belongs to a transaction that is dropped.
  Result<bool> open_for(std::string_view what);

  ChangeEncoder& encoder_;
  EventOut& out_;
  OwnMessages* own_messages_ = nullptr;
  pgoutput::Decoder decoder_;
  std::uint32_t epoch_;
  Lsn last_commit_, last_end_, seen_end_;
  Lsn connection_commit_;  // of the last Begin on this connection
  TransactionInfo info_;   // of the open transaction
  bool in_transaction_ = false;
  bool dropping_ = false;   // it is there already
  bool handed_on_ = false;  // out_.begin() was called for it
  bool failed_ = false;
  /// Relation messages of dropped transactions: learned when the first new transaction begins. A
  /// shape that a later one replaced long ago would become a schema version once more.
  struct Postponed {
    std::string bytes;
    Lsn lsn;
  };
  std::map<std::uint32_t, Postponed> postponed_;
  std::uint64_t transactions_ = 0, changes_ = 0, repeated_ = 0, empty_ = 0;
};

}  // namespace millrace
