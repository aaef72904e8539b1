#include "capture/daemon/store_out.h"

#include <chrono>

#include "base/clock.h"

namespace millrace {
namespace {

/// How soon a wait for the disk sees that it should stop.
constexpr std::chrono::milliseconds kLook{1000};

}  // namespace

Result<void> StoreOut::begin(const TransactionInfo& info) {
  commit_time_ = info.commit_time;
  return store_.begin(info);
}

Result<void> StoreOut::add(const NewEvent& event) {
  if (tally_) tally_->add(event.category);
  return store_.add(event);
}

Result<void> StoreOut::commit(std::uint64_t source_end) {
  auto end = store_.commit(source_end);
  if (!end) return std::move(end).error();
  end_ = Lsn{source_end};
  if (tally_) tally_->commit(end_, commit_time_);
  return {};
}

Result<void> StoreOut::rollback() {
  if (tally_) tally_->rollback();
  return store_.rollback();
}

Result<void> StoreOut::record_position(std::uint32_t epoch, Lsn end) {
  MILLRACE_RETURN_IF_ERROR(begin({.source = {.epoch = epoch, .commit = end.value - 1, .end = 0},
                                  .source_xid = 0,
                                  .commit_time = Clock::system().wall()}));
  return commit(end.value);
}

Result<void> wait_until_durable(EventStore& store, Offset end, std::uint64_t source_end,
                                const std::stop_token& stop) {
  store.request_flush();
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool durable, store.wait_durable(end, source_end, kLook));
    if (durable) return {};
    if (stop.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
  }
}

}  // namespace millrace
