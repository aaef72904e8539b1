#include "capture/pipeline/stream_applier.h"

#include <algorithm>
#include <utility>

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
                             Lsn last_commit)
    : encoder_(encoder), out_(out), epoch_(epoch), last_commit_(last_commit) {}

Result<void> StreamApplier::apply(std::string_view message, Lsn wal_start) {
  if (failed_)
    return Error(ErrorCode::kFailedPrecondition,
                 "the replication stream failed before: start it anew");
  auto done = dispatch(message, wal_start);
  if (done) [[likely]]
    return {};
  failed_ = true;
  std::string where = "replication message at " + to_string(wal_start);
  if (in_transaction_)
    where += " of the transaction that commits at " + to_string(Lsn{info_.source.commit});
  return std::move(done).error().context(where);
}

Result<void> StreamApplier::reset() {
  const bool roll_back = std::exchange(handed_on_, false);
  in_transaction_ = dropping_ = failed_ = false;
  connection_commit_ = Lsn{};
  postponed_.clear();
  decoder_.reset();
  encoder_.reset();
  return roll_back ? out_.rollback() : Result<void>{};
}

Result<void> StreamApplier::dispatch(std::string_view bytes, Lsn wal_start) {
  MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Message message, decoder_.decode(bytes));
  const auto change = [&](std::string_view what, auto&& encode) -> Result<void> {
    MILLRACE_ASSIGN_OR_RETURN(const bool wanted, open_for(what));
    if (!wanted) return {};
    ++changes_;
    return encode();
  };
  const auto streamed = [](const auto*) -> Result<void> {  // all kinds that are not named below
    return out_of_order("a part of a streamed transaction, which millrace did not ask for");
  };
  return std::visit(
      Overloaded{
          [&](const pgoutput::Insert* insert) {
            return change("an INSERT", [&] { return encoder_.insert(*insert, wal_start); });
          },
          [&](const pgoutput::Update* update) {
            return change("an UPDATE", [&] { return encoder_.update(*update, wal_start); });
          },
          [&](const pgoutput::Delete* remove) {
            return change("a DELETE", [&] { return encoder_.remove(*remove, wal_start); });
          },
          [&](const pgoutput::Truncate* truncate) {
            return change("a TRUNCATE", [&] { return encoder_.truncate(*truncate, wal_start); });
          },
          [&](const pgoutput::LogicalMessage* logical) -> Result<void> {
            if (!logical->transactional) return {};
            if (logical->prefix == kOwnMessagePrefix) return own_message(*logical);
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
          streamed,
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
  return dropping_ || postponed_.empty() ? Result<void>{} : learn_postponed();
}

Result<void> StreamApplier::learn_postponed() {
  pgoutput::Decoder decoder;
  for (const auto& [oid, shape] : postponed_) {
    MILLRACE_ASSIGN_OR_RETURN(const pgoutput::Message message, decoder.decode(shape.bytes));
    MILLRACE_RETURN_IF_ERROR(
        encoder_.relation(*std::get<const pgoutput::Relation*>(message), shape.lsn));
  }
  postponed_.clear();
  return {};
}

Result<void> StreamApplier::relation(const pgoutput::Relation& relation, std::string_view bytes,
                                     Lsn wal_start) {
  if (!in_transaction_) return out_of_order("a table's columns outside a transaction");
  if (wal_start == Lsn{}) wal_start = Lsn{info_.source.commit};  // the server need not tell
  if (!dropping_) return encoder_.relation(relation, wal_start);
  postponed_[relation.oid] = {std::string(bytes), wal_start};
  return {};
}

/// Its transaction holds nothing else: what is appended in its place is a snapshot's.
Result<void> StreamApplier::own_message(const pgoutput::LogicalMessage& message) {
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
  if (dropping_) return false;
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
    ++transactions_;
    last_commit_ = commit.commit_lsn;
    last_end_ = commit.end_lsn;
  } else {
    ++(dropping_ ? repeated_ : empty_);
  }
  seen_end_ = std::max(seen_end_, commit.end_lsn);
  in_transaction_ = dropping_ = handed_on_ = false;
  return {};
}

}  // namespace millrace
