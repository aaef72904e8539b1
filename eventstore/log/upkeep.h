#pragma once

#include <optional>
#include <vector>

#include "base/mutex.h"
#include "eventstore/consumers.h"
#include "eventstore/log/auto_compaction.h"
#include "eventstore/log/compaction.h"
#include "eventstore/maintenance_api.h"

namespace millrace::log {

/// What maintenance asks of the writer that it runs in. Threads: any.
class UpkeepHost {
 public:
  virtual ~UpkeepHost() = default;
  /// How far the log is durable. Errors: what poisoned the store.
  virtual Result<LogMark> durable_mark() = 0;
  /// What of that has been synced: no power loss takes it back.
  virtual Result<LogMark> synced_mark() = 0;
  /// The same, after all that is durable now has been synced.
  virtual Result<LogMark> sync() = 0;
  /// Begins a new segment, so that all that is durable lies in sealed ones. Errors: kUnavailable (a
  /// transaction stays open too long), what poisons the store.
  virtual Result<void> seal() = 0;
  /// Appends events as a transaction of their own; durable on return. Gives the first one's offset.
  virtual Result<Offset> append_tombstones(std::span<const NewEvent> events) = 0;
  /// Lets all who keep segments open know that one was, or may have been, replaced.
  virtual Result<void> note_swap() = 0;
};

/// Maintenance of the store that this process holds.
class Upkeep final : public StoreMaintenance {
 public:
  /// Of what is compacted without being asked.
  struct Background {
    std::uint64_t bytes_per_second = 0;  ///< 0: nothing is.
    std::chrono::milliseconds rest{};
  };
  Upkeep(UpkeepHost& host, StoreContext store, const Background& background);

  /// Another segment is sealed.
  void note_sealed() { background_.note_sealed(); }
  /// Ends what goes on in the background, before the host goes.
  void stop() { background_.stop(); }

  Result<CompactionReport> compact(const CompactionOptions& options) override;
  Result<EraseReport> erase(const EraseRequest& request, const EraseOptions& options) override;
  Result<StoreCopyReport> snapshot(const Path& to, const CopyOptions& options) override;
  Result<void> register_consumer(std::string_view name, Offset offset,
                                 ConsumerPolicy policy) override;
  Result<void> advance_consumer(std::string_view name, Offset offset) override;
  Result<void> remove_consumer(std::string_view name) override;

 private:
  Result<CompactionReport> compact_now(CompactionOptions options) MILLRACE_REQUIRES(running_);
  Result<void> compact_gently(std::uint64_t bytes_per_second, const std::stop_token& stop);
  Result<LogExtent> extent_to(Result<LogMark> end);
  Result<void> swap(const std::vector<Removal>& removed, const std::function<Result<void>()>& swap);
  Result<void> check_swaps() const MILLRACE_REQUIRES(running_);
  Result<EraseReport> erase_from_log(const EraseRequest& request, const EraseOptions& options);
  Result<void> remove_snapshots(const EraseRequest& request);
  Result<Offset> held_offset();
  Result<void> tell_losers(const std::vector<Removal>& removed);
  Result<void> check_offset(Offset offset);

  UpkeepHost& host_;
  const StoreContext store_;
  Mutex running_;                     // compaction and erasing: one at a time
  std::optional<Error> swap_failed_;  // in a run
  Mutex files_;                       // the log's sealed files stay what they are; after running_
  Mutex consumers_;
  ConsumerFiles consumer_files_ MILLRACE_GUARDED_BY(consumers_);
  AutoCompaction background_;  // last: it uses all the others
};

}  // namespace millrace::log
