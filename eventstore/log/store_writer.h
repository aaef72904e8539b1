#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "eventstore/event_store.h"
#include "eventstore/log/batch_builder.h"
#include "eventstore/log/batch_packer.h"
#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/flush_groups.h"
#include "eventstore/log/head.h"
#include "eventstore/log/log_writer.h"
#include "eventstore/log/maintenance.h"
#include "eventstore/log/stream_appender.h"
#include "eventstore/log/upkeep.h"

namespace millrace::log {

/// The thin shell around BatchBuilder and LogWriter: group commit.
///
/// The appender encodes into `open_`; whole transactions (and the pieces of one that grows large)
/// move to `pending_`, where each gets its offsets. Append requests come from any thread and are
/// encoded apart; once a piece of the appender's transaction has moved they wait for the rest of
/// it, so that the log stays one transaction behind the other. The same holds once the appender's
/// transaction has given its events versions: whoever asked for some meanwhile asks again. The
/// flusher, the only one that does disk I/O, takes all of `pending_`, writes and syncs it;
/// meanwhile the next batches gather. It does not wait for more of them: callers that were woken
/// append while the next sync runs.
class StoreWriter final : public EventStore, private UpkeepHost {
 public:
  StoreWriter(const Path& directory, StoreOptions options, StoreId id,
              std::unique_ptr<FileLock> lock, HeadWriter head, LogWriter writer);
  ~StoreWriter() override;

  Result<void> begin(const TransactionInfo& info) override;
  Result<void> add(const NewEvent& event) override;
  Result<Offset> commit(std::uint64_t source_end) override;
  Result<void> rollback() override;
  Result<AppendResult> append(const AppendRequest& request) override;
  Result<AppendResult> append_durably(const AppendRequest& request) override;

  void request_flush() override;
  Result<bool> wait_durable(Offset end, std::uint64_t source_end,
                            std::chrono::milliseconds timeout) override;
  bool has_room() const override;
  bool wait_room(std::chrono::milliseconds timeout) override;

  Result<void> run_maintenance() override { return maintenance_.run(); }
  StoreMaintenance& maintenance() override { return upkeep_; }

  Offset appended_end() const override { return {appended_end_.load(std::memory_order_acquire)}; }
  Offset durable_end() const override { return {durable_end_.load(std::memory_order_acquire)}; }
  std::optional<SourcePosition> durable_source() const override;
  Result<void> status() const override;
  const StoreId& id() const override { return id_; }

 private:
  Result<LogMark> durable_mark() override;
  Result<LogMark> synced_mark() override;
  Result<LogMark> sync() override;
  Result<void> seal() override;
  Result<Offset> append_tombstones(std::span<const NewEvent> events) override;
  Result<void> note_swap() override;

  bool holds_less_than(std::size_t times) const;
  Result<void> wait_to_add();
  void spill();
  Result<std::uint64_t> give_version(const StreamName& stream);
  [[nodiscard]] bool move_to_pending(ByteBuffer& from, std::size_t bytes) MILLRACE_REQUIRES(mutex_);
  /// The flush that takes what an append has placed.
  using FlushNumber = std::optional<std::uint32_t>;
  Result<AppendResult> append(const AppendRequest& request, FlushNumber* durable_with);
  template <typename Work>
  auto with_versions(FlushNumber* durable_with, Work&& work) MILLRACE_REQUIRES(streams_mutex_);
  Result<bool> place(BatchBuilder& builder, ByteBuffer& batches, FlushNumber* durable_with,
                     std::uint64_t numbered_before);
  void end_transaction() MILLRACE_REQUIRES(mutex_);

  void run_flusher();
  bool is_flush_due() const MILLRACE_REQUIRES(mutex_);
  void request_flush_locked() MILLRACE_REQUIRES(mutex_);
  bool is_seal_due() const MILLRACE_REQUIRES(mutex_);
  void wait_for_work() MILLRACE_REQUIRES(mutex_);
  Result<void> wait_until_durable(Offset end);
  bool is_sync_due() const MILLRACE_REQUIRES(mutex_);
  Result<void> flush_in_flight();
  Result<void> sync_and_publish();
  void finish_flush(const Result<void>& flushed) MILLRACE_REQUIRES(mutex_);
  void poison(Error error) MILLRACE_REQUIRES(mutex_);
  bool is_durable(Offset end, std::uint64_t source_end) const MILLRACE_REQUIRES(mutex_);

  const StoreOptions options_;
  const StoreId id_;
  const std::size_t spill_bytes_, batch_bytes_;
  std::unique_ptr<FileLock> lock_;

  // The appender's.
  ByteBuffer open_;  // batches of the open transaction
  BatchBuilder builder_;
  bool in_transaction_ = false;
  bool spilled_ = false;    // some of them moved to pending_ before the commit
  bool versioned_ = false;  // some of its events
  std::atomic<std::thread::id> transaction_thread_;  // which has one open
  TransactionInfo info_;
  SourcePosition last_source_;

  StreamVersions versions_;
  Mutex streams_mutex_;  // before mutex_
  StreamAppender streams_ MILLRACE_GUARDED_BY(streams_mutex_);

  HeadWriter head_;

  // The flusher's, once it runs.
  LogWriter writer_;
  Clock::Monotonic place_checked_;
  BatchPacker packer_;
  ByteBuffer in_flight_;
  Clock::Monotonic unsynced_since_{};  // if the writer is not synced (kOs)

  mutable Mutex mutex_;
  ConditionVariable work_;      // for the flusher
  ConditionVariable progress_;  // for whoever waits for anything but a flush of his append
  FlushGroups flush_groups_;
  std::uint32_t flushes_begun_ MILLRACE_GUARDED_BY(mutex_) = 0;
  ByteBuffer pending_ MILLRACE_GUARDED_BY(mutex_);
  Clock::Monotonic oldest_pending_ MILLRACE_GUARDED_BY(mutex_){};
  /// Where in pending_ the spilled part of the open transaction starts.
  std::size_t spill_start_ MILLRACE_GUARDED_BY(mutex_) = 0;
  bool spill_taken_ MILLRACE_GUARDED_BY(mutex_) = false;  // some of it went to the disk
  /// The open transaction has a part in pending_ or on the disk: nothing else may come behind it.
  bool spilling_ MILLRACE_GUARDED_BY(mutex_) = false;
  /// The open transaction has given versions, which nobody else may give then.
  bool numbering_ MILLRACE_GUARDED_BY(mutex_) = false;
  std::uint64_t numbered_ MILLRACE_GUARDED_BY(mutex_) = 0;  // transactions that were so, committed
  bool noting_ MILLRACE_GUARDED_BY(mutex_) = false;  // an append is placed, its versions not noted
  bool flush_requested_ MILLRACE_GUARDED_BY(mutex_) = false;
  bool rewind_requested_ MILLRACE_GUARDED_BY(mutex_) = false;
  bool seal_requested_ MILLRACE_GUARDED_BY(mutex_) = false;
  bool sync_requested_ MILLRACE_GUARDED_BY(mutex_) = false;
  bool stopping_ MILLRACE_GUARDED_BY(mutex_) = false;
  std::optional<Error> poison_ MILLRACE_GUARDED_BY(mutex_);
  LogMark durable_ MILLRACE_GUARDED_BY(mutex_);
  LogMark synced_ MILLRACE_GUARDED_BY(mutex_);                // with kOs it may be behind
  std::uint32_t appended_epoch_ MILLRACE_GUARDED_BY(mutex_);  // of the last captured transaction

  std::atomic<bool> poisoned_ = false;
  std::atomic<std::size_t> open_bytes_ = 0;     // of open_, written by the appender
  std::atomic<std::size_t> pending_bytes_ = 0;  // of pending_, written under mutex_
  std::atomic<std::uint64_t> appended_end_ = 0;
  std::atomic<std::uint64_t> durable_end_ = 0;

  Upkeep upkeep_;
  Maintenance maintenance_;
  std::jthread flusher_;
};

}  // namespace millrace::log
