#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "capture/pgoutput/decoder.h"
#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/history_check.h"
#include "capture/pipeline/own_messages.h"
#include "capture/pipeline/transaction_spill.h"

namespace millrace {

/// Turns the bytes of a replication stream into whole transactions: a pure state machine.
///
/// Transactions whose commit LSN is at or below the last one that is already there are dropped
/// whole: the server may send them again after a crash. A transaction without events (all its
/// changes were in tables that are not captured) is not handed on at all: a busy database makes
/// very many of them. They move seen_end() only.
///
/// Transactional logical messages become events, but for capture's own; others are ignored, since
/// they belong to no transaction and come again after a restart.
///
/// What a transaction in progress sends (pgoutput's option `streaming`) is kept in a spill until
/// its Stream Commit. It is then replayed from there as if it had come at once at that moment:
/// replaying() is true, and replay_one() takes the place of apply() until it is whole. Parts that
/// were rolled back are not in it. Two-phase commit is refused: it is not asked for.
///
/// Errors: kCorruption for anything out of order (a change outside a transaction, a commit that is
/// not the begin's, commit LSNs that do not increase), and those of decoder, encoder, history and
/// `out`. After an error every apply() gives kFailedPrecondition until reset().
class StreamApplier {
 public:
  /// `last_commit`: of the last transaction of `epoch` that `out` already has. Without a `spill`
  /// streamed transactions are refused. `history`: holds what comes against what `out` has.
  StreamApplier(ChangeEncoder& encoder, EventOut& out, std::uint32_t epoch, Lsn last_commit,
                TransactionSpill* spill = nullptr, HistoryCheck history = {});

  /// Who hears capture's own messages; nobody without. Not those of transactions that are dropped.
  void set_own_messages(OwnMessages* listener) { own_messages_ = listener; }

  /// One pgoutput message, sent at `wal_start` (from the XLogData header). Not while replaying().
  Result<void> apply(std::string_view message, Lsn wal_start);
  /// A streamed transaction has committed and is being handed on, one message a call.
  bool replaying() const { return replayed_.has_value(); }
  Result<void> replay_one();
  /// The connection is gone: drops the open transaction, those in progress, and every table's
  /// shape. What was handed on stays known, so that the next connection may send it again.
  Result<void> reset();

  HistoryCheck& history() { return history_; }
  /// Something of a transaction has come and its end has not; one in progress counts only while it
  /// is sending.
  bool in_transaction() const {
    return in_transaction_ || (spill_ != nullptr && spill_->in_block());
  }
  Lsn last_commit() const {
    return last_commit_;
  }                                           ///< Commit LSN of the last transaction handed on.
  Lsn last_end() const { return last_end_; }  ///< Its end LSN; 0 before the first.
  /// End LSN of the last whole transaction that came, also of one that was empty or dropped. Once
  /// what was handed on (up to last_end()) is durable, the source may forget everything below this.
  Lsn seen_end() const { return seen_end_; }
  /// What capture sent itself last (a message of kOwnMessagePrefix), once the transaction that held
  /// it has ended; given once.
  struct OwnMessage {
    std::string content;
    Lsn end;  ///< Of the transaction.
  };
  std::optional<OwnMessage> take_own_message() { return std::exchange(own_message_, {}); }
  /// Somebody waits for what was committed so far to be confirmed, and has said so with a message
  /// of capture's own; forgotten by asking.
  bool take_confirm_wanted() { return std::exchange(confirm_wanted_, false); }
  /// It failed, since a part of a streamed transaction with messages was rolled back, and the
  /// server does not tell which of them were that part's: they must be sent again on a connection
  /// that asks for no transactions in progress. Until reset().
  bool needs_whole_transactions() const { return needs_whole_transactions_; }
  std::uint64_t transactions() const { return transactions_; }  ///< Handed on.
  std::uint64_t changes() const { return changes_; }            ///< Messages that became events.
  std::uint64_t repeated() const { return repeated_; }  ///< Transactions dropped as already there.
  std::uint64_t empty() const { return empty_; }        ///< Transactions without events.

 private:
  Result<void> dispatch(const pgoutput::Message& message, std::string_view bytes, Lsn wal_start);
  Result<void> begin(const pgoutput::Begin& begin);
  Result<void> commit(const pgoutput::Commit& commit);
  Result<void> relation(const pgoutput::Relation& relation, std::string_view bytes, Lsn wal_start);
  Result<void> learn_postponed();
  Result<void> own_message(const pgoutput::LogicalMessage& message);
  /// Makes ready for an event of a change: false where it belongs to a transaction that is dropped.
  Result<bool> open_for(std::string_view what);
  SourceCommit open_commit() const;

  Result<void> keep(const pgoutput::Message& message, std::string_view bytes, Lsn wal_start);
  Result<void> stream_start(const pgoutput::StreamStart& start);
  Result<void> stream_abort(const pgoutput::StreamAbort& abort);
  Result<void> stream_commit(const pgoutput::StreamCommit& commit);
  Result<void> outcome_of(Result<void> done, Lsn wal_start);

  ChangeEncoder& encoder_;
  EventOut& out_;
  OwnMessages* own_messages_ = nullptr;
  TransactionSpill* spill_;
  pgoutput::Decoder decoder_, replay_decoder_;
  std::uint32_t epoch_;
  HistoryCheck history_;
  Lsn last_commit_, last_end_, seen_end_;
  Lsn connection_commit_;  // of the last Begin or Stream Commit on this connection
  TransactionInfo info_;   // of the open transaction
  bool in_transaction_ = false;
  bool dropping_ = false;   // it is there already
  bool handed_on_ = false;  // out_.begin() was called for it
  bool failed_ = false;
  bool confirm_wanted_ = false;
  std::set<std::uint32_t> with_messages_;  // streamed transactions
  bool needs_whole_transactions_ = false;
  struct Replayed {
    pgoutput::StreamCommit end;
    std::uint64_t number = 0;                   // of the message that is being handled
    std::map<std::uint32_t, std::string> told;  // the shape in force in it, of each table
  };
  std::optional<Replayed> replayed_;

  /// The last Relation message that came for a table outside of streamed transactions, or in one
  /// that has committed: the shape that the server believes we know when it sends an ordinary
  /// transaction. What the encoder was told may be another: see relation().
  struct Shape {
    std::string bytes;  // without a transaction number
    Lsn lsn;
    std::uint64_t number = 0;  // its place among all that came
    bool learned = false;      // the encoder was told this one last
  };
  std::map<std::uint32_t, Shape> shapes_;
  bool postponed_ = false;   // some of them are not learned
  std::string own_content_;  // of an own message in the open transaction
  std::optional<OwnMessage> own_message_;
  std::uint64_t transactions_ = 0, changes_ = 0, repeated_ = 0, empty_ = 0;
};

}  // namespace millrace
