#include "capture/pipeline/stream_applier.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

// Streaming of transactions in progress, and the shapes of tables.
//
// A Stream Start opens a block: everything up to its Stream Stop belongs to one transaction, each
// message to that or to one of its parts (subtransactions). Blocks of several transactions take
// turns, ordinary transactions come between them, and so do Stream Aborts, of a transaction or of a
// part. Everything is decoded when it comes, so that what can't be read is found at once, and kept.
// At the Stream Commit it is read back and goes the way of ordinary messages.
//
// pgoutput sends a table's shape before the first change of an ordinary transaction that needs it,
// and then not again until the table changes. Before changes of a streamed transaction it sends it
// in that transaction, for a transaction sees its own DDL; again after the table has changed; and
// again after any part was rolled back, so that a shape which came in that part is not missed. Once
// the transaction has committed, the shape that it brought last counts as sent to all
// (cleanup_rel_sync_cache() in pgoutput.c), unless the table has changed since.
//
// A logical message in a block names the whole transaction, also where a part has sent it
// (pgoutput_message() in pgoutput.c). So once a part is rolled back nothing tells which messages
// were its: whatever is streamed then is asked for anew, as whole transactions.
//
// So of two shapes of a table, one sent in a streamed transaction and one beside it, the later one
// by arrival is right for the ordinary transactions after its commit, whereas a replay needs those
// of its own transaction, in its order. Every shape is numbered as it comes; a replay tells the
// encoder its own ones, and what it told over is told again before the next transaction begins.
namespace millrace {
namespace {

Error out_of_order(std::string what) { return Error(ErrorCode::kCorruption, std::move(what)); }

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;  // clang 14 asks for it

}  // namespace

StreamApplier::StreamApplier(ChangeEncoder& encoder, EventOut& out, std::uint32_t epoch,
                             Lsn last_commit, TransactionSpill* spill, HistoryCheck history)
    : encoder_(encoder),
      out_(out),
      spill_(spill),
      epoch_(epoch),
      history_(history),
      last_commit_(last_commit) {
  replay_decoder_.enter_stream();
}

SourceCommit StreamApplier::open_commit() const {
  return {.lsn = Lsn{info_.source.commit}, .xid = info_.source_xid, .time = info_.commit_time};
}

Result<void> StreamApplier::apply(std::string_view message, Lsn wal_start) {
  if (failed_)
    return Error(ErrorCode::kFailedPrecondition,
                 "the replication stream failed before: start it anew");
  MILLRACE_CHECK(!replaying());
  auto decoded = decoder_.decode(message);
  if (!decoded) return outcome_of(std::move(decoded).error(), wal_start);
  const bool kept = spill_ != nullptr && spill_->in_block() &&
                    !std::holds_alternative<const pgoutput::StreamStop*>(*decoded);
  return outcome_of(
      kept ? keep(*decoded, message, wal_start) : dispatch(*decoded, message, wal_start),
      wal_start);
}

Result<void> StreamApplier::outcome_of(Result<void> done, Lsn wal_start) {
  if (done) [[likely]]
    return {};
  failed_ = true;
  // A discontinuity, or a key that changed: says itself where.
  if (done.error().code() == ErrorCode::kFailedPrecondition) return done;
  std::string where = "replication message at " + to_string(wal_start);
  if (in_transaction_)
    where += " of the transaction that commits at " + to_string(Lsn{info_.source.commit});
  return std::move(done).error().context(where);
}

Result<void> StreamApplier::reset() {
  const bool roll_back = std::exchange(handed_on_, false);
  in_transaction_ = dropping_ = failed_ = false;
  needs_whole_transactions_ = false;
  with_messages_.clear();
  connection_commit_ = Lsn{};
  own_content_.clear();
  own_message_.reset();
  shapes_.clear();
  postponed_ = false;
  replayed_.reset();
  decoder_.reset();
  encoder_.reset();
  auto cleared = spill_ == nullptr ? Result<void>{} : spill_->clear();
  if (roll_back) MILLRACE_RETURN_IF_ERROR(out_.rollback());
  return cleared;
}

Result<void> StreamApplier::dispatch(const pgoutput::Message& message, std::string_view bytes,
                                     Lsn wal_start) {
  const auto change = [&](std::string_view what, auto&& encode) -> Result<void> {
    MILLRACE_ASSIGN_OR_RETURN(const bool wanted, open_for(what));
    if (!wanted) return {};
    ++changes_;
    return encode();
  };
  const auto two_phase = [](const auto*) -> Result<void> {  // all kinds that are not named below
    return out_of_order("a part of a two-phase commit, which millrace did not ask for");
  };
  return std::visit(
      Overloaded{
          [&](const pgoutput::Insert* insert) {
            return change("an INSERT", [&] { return encoder_.insert(*insert, wal_start); });
          },
          [&](const pgoutput::Update* update) -> Result<void> {
            if (encoder_.passes_over({&update->relation_oid, 1})) return {};
            return change("an UPDATE", [&] { return encoder_.update(*update, wal_start); });
          },
          [&](const pgoutput::Delete* remove) -> Result<void> {
            if (encoder_.passes_over({&remove->relation_oid, 1})) return {};
            return change("a DELETE", [&] { return encoder_.remove(*remove, wal_start); });
          },
          [&](const pgoutput::Truncate* truncate) -> Result<void> {
            if (encoder_.passes_over(truncate->relation_oids)) return {};
            return change("a TRUNCATE", [&] { return encoder_.truncate(*truncate, wal_start); });
          },
          [&](const pgoutput::LogicalMessage* logical) -> Result<void> {
            if (logical->prefix == kOwnMessagePrefix) return own_message(*logical);
            if (!logical->transactional) return {};
            return change("a transactional message",
                          [&] { return encoder_.message(*logical, wal_start); });
          },
          [&](const pgoutput::Begin* message_begin) { return begin(*message_begin); },
          [&](const pgoutput::Commit* message_commit) { return commit(*message_commit); },
          [&](const pgoutput::Relation* shape) { return relation(*shape, bytes, wal_start); },
          // The catalog tells of types what this does not; where a transaction came from is no
          // business of ours.
          [&](const pgoutput::Type*) -> Result<void> { return {}; },
          [&](const pgoutput::Origin*) -> Result<void> { return {}; },
          [&](const pgoutput::StreamStart* start) { return stream_start(*start); },
          [&](const pgoutput::StreamStop*) { return spill_->end_block(); },
          [&](const pgoutput::StreamAbort* abort) { return stream_abort(*abort); },
          [&](const pgoutput::StreamCommit* commit) { return stream_commit(*commit); },
          two_phase,
      },
      message);
}

Result<void> StreamApplier::begin(const pgoutput::Begin& begin) {
  if (in_transaction_) return out_of_order("a transaction begins inside another");
  if (begin.commit_lsn <= connection_commit_)  // also 0
    return out_of_order("a transaction that commits at " + to_string(begin.commit_lsn) +
                        " after one that commits at " + to_string(connection_commit_));
  in_transaction_ = true;
  handed_on_ = false;
  dropping_ = begin.commit_lsn <= last_commit_;
  connection_commit_ = begin.commit_lsn;
  info_ = {.source = {.epoch = epoch_, .commit = begin.commit_lsn.value, .end = 0},
           .source_xid = begin.xid,
           .commit_time = begin.commit_time,
           .snapshot = false};
  MILLRACE_RETURN_IF_ERROR(history_.sent(open_commit()));
  return dropping_ || !postponed_ ? Result<void>{} : learn_postponed();
}

Result<void> StreamApplier::learn_postponed() {
  pgoutput::Decoder decoder;
  for (auto& [oid, shape] : shapes_) {
    if (shape.learned) continue;
    MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Message message, decoder.decode(shape.bytes));
    MILLRACE_RETURN_IF_ERROR(
        encoder_.relation(*std::get<const pgoutput::Relation*>(message), shape.lsn));
    shape.learned = true;
  }
  postponed_ = false;
  return {};
}

/// A shape of a transaction that is dropped is learned only when the first new one begins: one that
/// a later shape replaced long ago would become a schema version once more.
Result<void> StreamApplier::relation(const pgoutput::Relation& relation, std::string_view bytes,
                                     Lsn wal_start) {
  if (!in_transaction_) return out_of_order("a table's columns outside a transaction");
  encoder_.announce(relation);  // also of a transaction that is dropped
  if (wal_start == Lsn{}) wal_start = Lsn{info_.source.commit};  // the server need not tell
  std::string plain(bytes);
  bool in_force = false;  // sent again after a part was rolled back
  if (replaying()) {
    plain.erase(1, sizeof relation.xid);
    std::string& told = replayed_->told[relation.oid];
    in_force = told == plain;
    told = plain;
  }
  const std::uint64_t number = replaying()         ? replayed_->number
                               : spill_ != nullptr ? spill_->take_number()
                                                   : 0;
  Shape& shape = shapes_[relation.oid];
  if (number >= shape.number)
    shape = {std::move(plain), wal_start, number, !dropping_};
  else if (!dropping_)
    shape.learned = shape.bytes == plain;
  postponed_ = postponed_ || !shape.learned;
  return dropping_ || in_force ? Result<void>{} : encoder_.relation(relation, wal_start);
}

/// Its transaction holds nothing else: what is appended in its place is a snapshot's.
Result<void> StreamApplier::own_message(const pgoutput::LogicalMessage& message) {
  confirm_wanted_ = confirm_wanted_ || message.content == kConfirmMessage;
  if (!message.transactional) return {};
  own_content_ = message.content;
  if (own_messages_ == nullptr || dropping_ || !in_transaction_) return {};
  MILLRACE_ASSIGN_OR_RETURN(const bool wanted, own_messages_->heard(message.content));
  if (!wanted) return {};
  info_.snapshot = !handed_on_;
  MILLRACE_RETURN_IF_ERROR(open_for("a message of capture's own"));
  return own_messages_->append();
}

Result<bool> StreamApplier::open_for(std::string_view what) {
  if (!in_transaction_) [[unlikely]]
    return out_of_order(std::string(what) + " outside a transaction");
  if (dropping_) {
    MILLRACE_RETURN_IF_ERROR(history_.sent_again(open_commit()));
    return false;
  }
  if (!handed_on_) {
    MILLRACE_RETURN_IF_ERROR(out_.begin(info_));
    handed_on_ = true;
  }
  return true;
}

Result<void> StreamApplier::commit(const pgoutput::Commit& commit) {
  if (!in_transaction_) return out_of_order("a commit outside a transaction");
  if (commit.commit_lsn.value != info_.source.commit)
    return out_of_order("a commit at " + to_string(commit.commit_lsn) +
                        " that is not the open transaction's");
  if (commit.end_lsn <= commit.commit_lsn)
    return out_of_order("a commit at " + to_string(commit.commit_lsn) + " that ends at " +
                        to_string(commit.end_lsn));
  if (handed_on_) {
    MILLRACE_RETURN_IF_ERROR(out_.commit(commit.end_lsn.value));
    history_.taken(open_commit());
    ++transactions_;
    last_commit_ = commit.commit_lsn;
    last_end_ = commit.end_lsn;
  } else {
    ++(dropping_ ? repeated_ : empty_);
  }
  if (!own_content_.empty())
    own_message_ = {.content = std::exchange(own_content_, {}), .end = commit.end_lsn};
  seen_end_ = std::max(seen_end_, commit.end_lsn);
  in_transaction_ = dropping_ = handed_on_ = false;
  return {};
}

Result<void> StreamApplier::stream_start(const pgoutput::StreamStart& start) {
  if (spill_ == nullptr)
    return out_of_order("a part of a streamed transaction, which millrace did not ask for");
  if (in_transaction_) return out_of_order("a stream block inside a transaction");
  return spill_->start_block(start.xid, start.first_segment);
}

/// A message inside a stream block.
Result<void> StreamApplier::keep(const pgoutput::Message& message, std::string_view bytes,
                                 Lsn wal_start) {
  if (const auto* logical = std::get_if<const pgoutput::LogicalMessage*>(&message)) {
    if (!(*logical)->transactional) return {};  // belongs to no transaction, wherever it stands
    if ((*logical)->prefix != kOwnMessagePrefix) with_messages_.insert((*logical)->xid);
  }
  const std::uint32_t part = std::visit(
      [](const auto* inside) -> std::uint32_t {
        if constexpr (requires { inside->xid; }) return inside->xid;
        return 0;  // an Origin: of all of it
      },
      message);
  return spill_->add(part, wal_start, bytes);
}

Result<void> StreamApplier::stream_abort(const pgoutput::StreamAbort& abort) {
  if (spill_ == nullptr)
    return out_of_order("an abort of a streamed transaction, which millrace did not ask for");
  if (in_transaction_) return out_of_order("a stream abort inside a transaction");
  if (!spill_->has(abort.xid)) return {};  // nothing of it is here
  if (abort.xid == abort.sub_xid) {
    with_messages_.erase(abort.xid);
    return spill_->drop(abort.xid);
  }
  if (with_messages_.contains(abort.xid)) {
    needs_whole_transactions_ = true;
    return Error(ErrorCode::kUnavailable,
                 "a part of transaction " + std::to_string(abort.xid) +
                     " was rolled back, and PostgreSQL does not tell which of its messages were in "
                     "it: they are asked for again, without transactions in progress");
  }
  spill_->leave_out(abort.xid, abort.sub_xid);
  return {};
}

Result<void> StreamApplier::stream_commit(const pgoutput::StreamCommit& commit) {
  if (spill_ == nullptr || !spill_->has(commit.xid))
    return out_of_order("a commit of streamed transaction " + std::to_string(commit.xid) +
                        ", which never began");
  MILLRACE_RETURN_IF_ERROR(begin(
      {.commit_lsn = commit.commit_lsn, .commit_time = commit.commit_time, .xid = commit.xid}));
  with_messages_.erase(commit.xid);
  MILLRACE_RETURN_IF_ERROR(spill_->start_reading(commit.xid));
  replayed_ = Replayed{.end = commit, .told = {}};
  return {};
}

Result<void> StreamApplier::replay_one() {
  MILLRACE_CHECK(replaying());
  if (failed_)
    return Error(ErrorCode::kFailedPrecondition,
                 "the replication stream failed before: start it anew");
  auto next = spill_->next();
  if (!next) return outcome_of(std::move(next).error(), Lsn{info_.source.commit});
  if (*next) {
    replayed_->number = (*next)->number;
    auto message = replay_decoder_.decode((*next)->bytes);
    return outcome_of(message ? dispatch(*message, (*next)->bytes, (*next)->wal_start)
                              : Result<void>(std::move(message).error()),
                      (*next)->wal_start);
  }
  const pgoutput::StreamCommit end = replayed_->end;
  auto committed = commit(
      {.commit_lsn = end.commit_lsn, .end_lsn = end.end_lsn, .commit_time = end.commit_time});
  if (committed) {
    replayed_.reset();
    committed = spill_->drop(end.xid);
  }
  return outcome_of(std::move(committed), end.commit_lsn);
}

}  // namespace millrace
