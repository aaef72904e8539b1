#include "projections/engine/continuation.h"

#include "base/clock.h"
#include "schemas/lsn.h"

namespace millrace::projections {
namespace {

/// The transaction of the event at `offset`, as the log has it; nothing where that is not there.
Result<std::optional<TransactionInfo>> transaction_at(const Path& store, Offset offset) {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                            LogReader::open(store, {.from = offset, .accepts_gaps = true}));
  MILLRACE_ASSIGN_OR_RETURN(Batch * batch, reader->next());
  if (batch == nullptr) return std::optional<TransactionInfo>();
  const EventView* event = batch->next();
  MILLRACE_RETURN_IF_ERROR(batch->status());
  if (event == nullptr || event->offset != offset) return std::optional<TransactionInfo>();
  return std::optional(batch->info);
}

/// Of an append the source's position says nothing: the checkpoint keeps that of the last captured
/// transaction.
bool is_folded_last(const TransactionInfo& transaction, const Checkpoint& checkpoint) {
  if (transaction.commit_time != checkpoint.commit_time) return false;
  return transaction.source.epoch == 0 || (transaction.source.epoch == checkpoint.source_epoch &&
                                           transaction.source.commit == checkpoint.source_lsn);
}

std::string text_of(const TransactionInfo& transaction) {
  return "of " + to_iso8601(transaction.commit_time) +
         (transaction.source.epoch == 0 ? ""
                                        : ", LSN " + to_string(Lsn{transaction.source.commit}));
}

}  // namespace

Result<std::unique_ptr<LogReader>> continue_from(const View& view, const Context& context,
                                                 const Checkpoint& checkpoint) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, context.open_reader(view, checkpoint.offset));
  MILLRACE_RETURN_IF_ERROR(check_continuation(view, checkpoint, reader->store_id(),
                                              reader->durable_end(), context.program));
  if (!checkpoint.last_event) return reader;
  MILLRACE_ASSIGN_OR_RETURN(const auto there,
                            transaction_at(context.store, *checkpoint.last_event));
  if (!there || is_folded_last(*there, checkpoint)) return reader;
  const TransactionInfo folded{
      .source = {.epoch = checkpoint.source_epoch, .commit = checkpoint.source_lsn},
      .commit_time = checkpoint.commit_time};
  return Error(ErrorCode::kFailedPrecondition,
               "view " + view.name() +
                   ": CHECKPOINT_DIVERGED: the transaction that it folded last (" +
                   text_of(folded) + ") is not the one that the store has at offset " +
                   std::to_string(checkpoint.last_event->value) + " (" + text_of(*there) +
                   "); an older copy of the store must have been put back, and has grown since")
      .hint("To make the view anew from the log, run: " + context.program + " rebuild " +
            view.name());
}

}  // namespace millrace::projections
