#include "eventstore/log/store_writer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::log {
namespace {

constexpr std::size_t kBatchBytes = 1 << 20;
constexpr std::size_t kBatchBytesMin = 1 << 10;
/// An open transaction larger than this goes to the disk before its commit.
constexpr std::size_t kSpillBytes = 4 << 20;
/// So often it is made sure that the files that are written to are still the store's.
constexpr std::chrono::seconds kPlaceInterval{1};
constexpr std::chrono::hours kLongest{24 * 365};
/// How long sealing waits for the end of a transaction.
constexpr std::chrono::seconds kSealPatience{30};
/// add() blocks at so many times pending_bytes_max.
constexpr std::size_t kOvershoot = 2;

std::chrono::steady_clock::time_point deadline_after(std::chrono::milliseconds timeout) {
  return std::chrono::steady_clock::now() +
         std::min(timeout, std::chrono::duration_cast<std::chrono::milliseconds>(kLongest));
}

Error invalid(std::string what) { return Error(ErrorCode::kInvalidArgument, std::move(what)); }

}  // namespace

StoreWriter::StoreWriter(const Path& directory, StoreOptions options, StoreId id,
                         std::unique_ptr<FileLock> lock, HeadWriter head, LogWriter writer)
    : options_(std::move(options)),
      id_(id),
      spill_bytes_(std::min(kSpillBytes, options_.pending_bytes_max / 2)),
      batch_bytes_(std::clamp(spill_bytes_ / 4, kBatchBytesMin, kBatchBytes)),
      lock_(std::move(lock)),
      builder_(open_, *options_.clock),
      last_source_(writer.mark().source),
      versions_(*options_.files, directory),
      streams_(versions_, *options_.clock, batch_bytes_),
      head_(std::move(head)),
      writer_(std::move(writer)),
      place_checked_(options_.clock->monotonic()),
      packer_(options_.compression),
      durable_(writer_.mark()),
      synced_(writer_.synced_mark()),
      appended_epoch_(durable_.source.epoch),
      appended_end_(durable_.end.value),
      durable_end_(durable_.end.value),
      upkeep_(*this,
              {.files = options_.files,
               .clock = options_.clock,
               .paths = StorePaths(directory),
               .store = id,
               .compression = options_.compression,
               .partials = options_.partials},
              {.bytes_per_second =
                   options_.background_maintenance ? options_.compaction_bytes_per_second : 0,
               .rest = options_.compaction_rest}),
      maintenance_(StorePaths(directory),
                   {.store = id,
                    .files = options_.files,
                    .clock = options_.clock,
                    .background = options_.background_maintenance,
                    .scrub_bytes_per_second = options_.scrub_bytes_per_second},
                   durable_.segment),
      flusher_([this] { run_flusher(); }) {}

StoreWriter::~StoreWriter() {
  upkeep_.stop();
  maintenance_.stop();
  static_cast<void>(rollback());  // what fails here poisons, and is told below
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    work_.notify_one();
  }
  flusher_.join();
  Result<void> ended = status();
  if (ended && !writer_.is_synced()) ended = sync_and_publish();
  if (ended) ended = writer_.close();
  if (ended) ended = head_.sync();
  if (!ended)
    spdlog::error("the store was closed after an error; its next opening recovers: {}",
                  ended.error().message());
}

Result<void> StoreWriter::begin(const TransactionInfo& info) {
  if (poisoned_) return status();
  if (in_transaction_)
    return Error(ErrorCode::kFailedPrecondition, "a transaction is open already: commit it first");
  if (info.source.epoch != 0 && info.source.epoch < last_source_.epoch)
    return invalid("source epoch " + std::to_string(info.source.epoch) + " after epoch " +
                   std::to_string(last_source_.epoch));
  if (info.source.epoch != 0 && info.source.epoch == last_source_.epoch &&
      info.source.commit <= last_source_.commit)
    return invalid("source commit " + std::to_string(info.source.commit) + " after commit " +
                   std::to_string(last_source_.commit) + ": they must increase");
  info_ = info;
  if (info_.source.epoch == 0) info_.source = {};
  builder_.begin(info_, appended_end(), batch_bytes_);
  in_transaction_ = true;
  spilled_ = versioned_ = false;
  transaction_thread_ = std::this_thread::get_id();
  return {};
}

Result<void> StoreWriter::add(const NewEvent& event) {
  if (poisoned_) [[unlikely]]
    return status();
  if (!in_transaction_) [[unlikely]]
    return Error(ErrorCode::kFailedPrecondition, "no transaction is open: begin one first");
  MILLRACE_RETURN_IF_ERROR(check_limits(event));
  if (!holds_less_than(kOvershoot)) [[unlikely]]
    MILLRACE_RETURN_IF_ERROR(wait_to_add());
  std::optional<std::uint64_t> version;
  if (event.versioned) {
    MILLRACE_ASSIGN_OR_RETURN(version, give_version({event.category, event.key}));
  }
  builder_.add(event, version);
  open_bytes_.store(open_.size(), std::memory_order_relaxed);
  if (open_.size() > spill_bytes_) spill();
  return {};
}

/// An append that asked for versions before is either noted by now, or not placed: then it will ask
/// again.
Result<std::uint64_t> StoreWriter::give_version(const StreamName& stream) {
  if (!versioned_) {
    MutexLock lock(mutex_);
    numbering_ = versioned_ = true;
    while (noting_) progress_.wait(mutex_);
  }
  return versions_.give(stream);
}

Result<Offset> StoreWriter::commit(std::uint64_t source_end) {
  if (poisoned_) return status().error();
  if (!in_transaction_)
    return Error(ErrorCode::kFailedPrecondition, "no transaction is open: begin one first");
  const bool captured = info_.source.epoch != 0;
  Offset end = builder_.commit(captured ? source_end : 0);
  if (captured) last_source_ = info_.source;
  if (versioned_) {  // nobody else gets a place meanwhile
    if (!spilled_) end = builder_.rebase(appended_end());
    versions_.keep_given(end);
  }
  bool wakes_flusher = false;
  {
    MutexLock lock(mutex_);
    end = builder_.rebase(spilled_ ? builder_.first() : appended_end());
    appended_epoch_ = last_source_.epoch;
    appended_end_.store(end.value, std::memory_order_release);
    wakes_flusher = move_to_pending(open_, open_.size());
    open_bytes_.store(open_.size(), std::memory_order_relaxed);
    if (versioned_) ++numbered_;
    end_transaction();
  }
  if (wakes_flusher) work_.notify_one();
  return end;
}

void StoreWriter::end_transaction() {
  in_transaction_ = false;
  transaction_thread_ = std::thread::id();
  if (!spilling_ && !numbering_) return;
  spilling_ = numbering_ = false;
  progress_.notify_all();
}

/// Does `work`, which asks for versions and then for a place, until no transaction gave others in
/// between.
template <typename Work>
auto StoreWriter::with_versions(FlushNumber* durable_with, Work&& work) {
  using Done = decltype(work(StreamAppender::Place()));
  for (;;) {
    std::uint64_t numbered_before = 0;
    {
      MutexLock lock(mutex_);
      if (poison_) return Done(*poison_);
      numbered_before = numbered_;
    }
    bool again = false;
    Done done = work([&](BatchBuilder& builder, ByteBuffer& batches) -> Result<Offset> {
      MILLRACE_ASSIGN_OR_RETURN(const bool placed,
                                place(builder, batches, durable_with, numbered_before));
      again = !placed;
      if (again) return Error(ErrorCode::kConflict, "other versions were given");
      return builder.end();
    });
    MutexLock lock(mutex_);
    if (std::exchange(noting_, false)) progress_.notify_all();
    if (!again) return done;
  }
}

Result<AppendResult> StoreWriter::append(const AppendRequest& request) {
  return append(request, nullptr);
}

Result<AppendResult> StoreWriter::append_durably(const AppendRequest& request) {
  FlushNumber flush;
  MILLRACE_ASSIGN_OR_RETURN(AppendResult result, append(request, &flush));
  if (flush)
    flush_groups_.wait(*flush);
  else
    request_flush();  // an earlier append, which may be on its way
  MILLRACE_RETURN_IF_ERROR(wait_until_durable(result.end));
  return result;
}

Result<AppendResult> StoreWriter::append(const AppendRequest& request, FlushNumber* durable_with) {
  MILLRACE_RETURN_IF_ERROR(StreamAppender::check(request));
  if (transaction_thread_ == std::this_thread::get_id())
    return Error(ErrorCode::kFailedPrecondition,
                 "this thread has a transaction open: commit it before it appends to streams");
  MutexLock lock(streams_mutex_);
  return with_versions(durable_with,
                       [&request, streams = &streams_](const StreamAppender::Place& put) {
                         return streams->append(request, put);
                       });
}

/// False if a transaction has given versions after those of `builder` were asked for. With
/// `durable_with` it also asks for a flush, and says which.
Result<bool> StoreWriter::place(BatchBuilder& builder, ByteBuffer& batches,
                                FlushNumber* durable_with, std::uint64_t numbered_before) {
  if (!holds_less_than(kOvershoot)) MILLRACE_RETURN_IF_ERROR(wait_to_add());
  bool wakes_flusher = false;
  {
    MutexLock lock(mutex_);
    while ((spilling_ || numbering_) && !poison_) progress_.wait(mutex_);
    if (poison_) return *poison_;
    if (numbered_ != numbered_before) return false;
    noting_ = true;
    const Offset end = builder.rebase(appended_end());
    appended_end_.store(end.value, std::memory_order_release);
    wakes_flusher = move_to_pending(batches, batches.size());
    if (durable_with != nullptr) {
      *durable_with = flushes_begun_ + 1;
      wakes_flusher |= !std::exchange(flush_requested_, true);
    }
  }
  // Without the lock, which is the first thing that it takes.
  if (wakes_flusher) work_.notify_one();
  return true;
}

void StoreWriter::spill() {
  const std::size_t closed = builder_.closed_bytes();
  if (closed == 0) return;  // one event larger than that; it goes with the next
  MutexLock lock(mutex_);
  if (!spilled_) {
    builder_.rebase(appended_end());
    spill_start_ = pending_.size();
    spill_taken_ = false;
  }
  spilled_ = spilling_ = true;
  if (move_to_pending(open_, closed)) work_.notify_one();
  open_bytes_.store(open_.size(), std::memory_order_relaxed);
  builder_.closed_taken(closed);
}

/// True if the flusher is to be woken.
bool StoreWriter::move_to_pending(ByteBuffer& from, std::size_t bytes) {
  const std::size_t before = pending_.size();
  if (before == 0) oldest_pending_ = options_.clock->monotonic();
  if (before == 0 && bytes == from.size()) {
    pending_.swap(from);
  } else {
    pending_.append(from.view().substr(0, bytes));
    from.erase_front(bytes);
  }
  if (from.empty()) from.clear(2 * kSpillBytes);
  pending_bytes_.store(pending_.size(), std::memory_order_relaxed);
  // The flusher sleeps without end while there is nothing, else until the interval is over.
  const bool now_enough = before < options_.flush_bytes && pending_.size() >= options_.flush_bytes;
  return before == 0 || now_enough;
}

Result<void> StoreWriter::rollback() {
  if (poisoned_) return status();
  if (!in_transaction_) return {};
  open_.clear(2 * kSpillBytes);
  open_bytes_.store(0, std::memory_order_relaxed);
  versions_.drop_given();
  MutexLock lock(mutex_);
  if (!spilled_) {
    end_transaction();
    return {};
  }
  // What was pending before the transaction stays, unless it went to the disk together with a part
  // of it.
  pending_.resize(spill_start_);
  pending_bytes_.store(spill_start_, std::memory_order_relaxed);
  if (spill_taken_) {
    rewind_requested_ = true;
    work_.notify_one();
    while (rewind_requested_ && !poison_) progress_.wait(mutex_);
  }
  end_transaction();
  if (poison_) return *poison_;
  return {};
}

/// What is open and pending, in whole `times` of pending_bytes_max.
bool StoreWriter::holds_less_than(std::size_t times) const {
  const std::size_t pending = pending_bytes_.load(std::memory_order_relaxed);
  // With nothing pending there is nothing to wait for.
  return pending == 0 || (open_bytes_.load(std::memory_order_relaxed) + pending) / times <
                             options_.pending_bytes_max;
}

bool StoreWriter::has_room() const { return holds_less_than(1); }

Result<void> StoreWriter::wait_to_add() {
  MutexLock lock(mutex_);
  while (!holds_less_than(kOvershoot) && !poison_) {
    request_flush_locked();
    progress_.wait(mutex_);
  }
  if (poison_) return *poison_;
  return {};
}

bool StoreWriter::wait_room(std::chrono::milliseconds timeout) {
  const auto deadline = deadline_after(timeout);
  MutexLock lock(mutex_);
  while (!has_room() && !poison_) {
    request_flush_locked();
    if (!progress_.wait_until(mutex_, deadline)) return has_room() || poison_.has_value();
  }
  return true;
}

void StoreWriter::request_flush() {
  MutexLock lock(mutex_);
  if (!pending_.empty()) request_flush_locked();
}

void StoreWriter::request_flush_locked() {
  if (!std::exchange(flush_requested_, true)) work_.notify_one();
}

bool StoreWriter::is_durable(Offset end, std::uint64_t source_end) const {
  if (durable_.end < end) return false;
  // Positions of an older epoch say nothing of those of the present one.
  return source_end == 0 ||
         (durable_.source.epoch == appended_epoch_ && durable_.source.end >= source_end);
}

Result<bool> StoreWriter::wait_durable(Offset end, std::uint64_t source_end,
                                       std::chrono::milliseconds timeout) {
  const auto deadline = deadline_after(timeout);
  MutexLock lock(mutex_);
  while (!is_durable(end, source_end)) {
    if (poison_) return *poison_;
    if (!progress_.wait_until(mutex_, deadline) && !is_durable(end, source_end)) {
      if (poison_) return *poison_;
      return false;
    }
  }
  return true;
}

Result<void> StoreWriter::wait_until_durable(Offset end) {
  while (durable_end() < end)
    MILLRACE_RETURN_IF_ERROR(wait_durable(end, 0, std::chrono::milliseconds(kLongest)));
  return {};
}

std::optional<SourcePosition> StoreWriter::durable_source() const {
  MutexLock lock(mutex_);
  if (durable_.source.epoch == 0) return std::nullopt;
  return durable_.source;
}

Result<LogMark> StoreWriter::durable_mark() {
  MutexLock lock(mutex_);
  if (poison_) return *poison_;
  return durable_;
}

Result<LogMark> StoreWriter::synced_mark() {
  MutexLock lock(mutex_);
  if (poison_) return *poison_;
  return synced_;
}

Result<LogMark> StoreWriter::sync() {
  MutexLock lock(mutex_);
  for (const Offset end = durable_.end; synced_.end < end && !poison_;) {
    sync_requested_ = true;
    work_.notify_one();
    progress_.wait(mutex_);
  }
  if (poison_) return *poison_;
  return synced_;
}

Result<Offset> StoreWriter::append_tombstones(std::span<const NewEvent> events) {
  std::uint64_t bytes = 0;
  for (const NewEvent& event : events) {
    MILLRACE_RETURN_IF_ERROR(check_limits(event));
    bytes += event.category.size() + event.key.size() + event.type.size() + event.payload.size();
  }
  if (bytes > kAppendBytesMax)
    return invalid("tombstones have at most " + std::to_string(kAppendBytesMax) +
                   " bytes together, not " + std::to_string(bytes) + ": erase fewer keys at once");
  if (transaction_thread_ == std::this_thread::get_id())
    return Error(ErrorCode::kFailedPrecondition,
                 "this thread has a transaction open: commit it first");
  for (const NewEvent& event : events)
    MILLRACE_RETURN_IF_ERROR(versions_.learn({event.category, event.key}));
  Offset end;
  {
    MutexLock lock(streams_mutex_);
    MILLRACE_ASSIGN_OR_RETURN(
        end,
        with_versions(nullptr, [events, streams = &streams_](const StreamAppender::Place& put) {
          return streams->append_tombstones(events, put);
        }));
  }
  request_flush();
  MILLRACE_RETURN_IF_ERROR(wait_until_durable(end));
  return Offset{end.value - events.size()};
}

/// What is open here is dropped after readers elsewhere have been told: HEAD tells both.
Result<void> StoreWriter::note_swap() {
  Result<void> told = head_.publish_swap();
  LogMark durable;
  {
    MutexLock lock(mutex_);
    durable = durable_;
  }
  versions_.drop_replaced(durable);
  return told;
}

Result<void> StoreWriter::seal() {
  const auto deadline = deadline_after(kSealPatience);
  MutexLock lock(mutex_);
  seal_requested_ = true;
  work_.notify_one();
  while (seal_requested_ && !poison_)
    if (!progress_.wait_until(mutex_, deadline)) break;
  if (poison_) return *poison_;
  if (!std::exchange(seal_requested_, false)) return {};
  return Error(ErrorCode::kUnavailable,
               "the newest segment can't be sealed: a large transaction is being written")
      .hint("Try again when it is committed.");
}

Result<void> StoreWriter::status() const {
  MutexLock lock(mutex_);
  if (poison_) return *poison_;
  return {};
}

void StoreWriter::poison(Error error) {
  spdlog::error("the store takes no more events: {}", error.message());
  poison_ = std::move(error);
  poisoned_ = true;
}

bool StoreWriter::is_flush_due() const {
  if (pending_.empty()) return false;
  return flush_requested_ || stopping_ || options_.durability == Durability::kAlways ||
         pending_.size() >= options_.flush_bytes ||
         options_.clock->monotonic() - oldest_pending_ >= options_.flush_interval;
}

/// A transaction that has a part on the disk must be in one piece with it.
bool StoreWriter::is_seal_due() const { return seal_requested_ && !writer_.in_transaction(); }

void StoreWriter::wait_for_work() {
  while (!is_flush_due() && !rewind_requested_ && !is_seal_due() && !stopping_ && !is_sync_due()) {
    const auto now = options_.clock->monotonic();
    std::optional<Clock::Monotonic::duration> rest;
    if (!pending_.empty()) rest = options_.flush_interval - (now - oldest_pending_);
    if (!writer_.is_synced()) {
      const Clock::Monotonic::duration until_sync =
          options_.os_sync_interval - (now - unsynced_since_);
      rest = std::min(rest.value_or(until_sync), until_sync);
    }
    if (rest)
      work_.wait_until(mutex_, std::chrono::steady_clock::now() + *rest);
    else
      work_.wait(mutex_);
  }
}

bool StoreWriter::is_sync_due() const {
  return !writer_.is_synced() &&
         (sync_requested_ ||
          options_.clock->monotonic() - unsynced_since_ >= options_.os_sync_interval);
}

void StoreWriter::run_flusher() {
  mutex_.lock();
  while (!poison_) {
    wait_for_work();
    if (rewind_requested_) {
      mutex_.unlock();
      const Result<void> rewound = writer_.rewind();
      mutex_.lock();
      if (!rewound) poison(rewound.error());
      rewind_requested_ = false;
    } else if (is_seal_due()) {
      mutex_.unlock();
      Result<void> sealed = writer_.seal();
      if (sealed) sealed = head_.publish(writer_.mark(), writer_.synced_mark());
      mutex_.lock();
      finish_flush(sealed);
      seal_requested_ = false;
    } else if (!pending_.empty() && (is_flush_due() || !sync_requested_)) {
      in_flight_.swap(pending_);
      pending_bytes_.store(0, std::memory_order_relaxed);
      flush_requested_ = false;
      const std::uint32_t flush = ++flushes_begun_;
      spill_start_ = 0;
      spill_taken_ = true;
      progress_.notify_all();  // there is room
      mutex_.unlock();
      const Result<void> flushed = flush_in_flight();
      in_flight_.clear(2 * options_.pending_bytes_max);
      mutex_.lock();
      finish_flush(flushed);
      mutex_.unlock();
      if (flushed) flush_groups_.end(flush);  // who is woken may append: it takes the lock
      mutex_.lock();
    } else if (stopping_) {
      break;
    }
    if (!poison_ && is_sync_due()) {
      progress_.notify_all();  // what was written need not wait for this
      mutex_.unlock();
      const Result<void> synced = sync_and_publish();
      mutex_.lock();
      if (synced)
        synced_ = writer_.synced_mark();
      else
        poison(synced.error());
    }
    if (!poison_ && writer_.is_synced()) {
      synced_ = writer_.synced_mark();  // taking a transaction back syncs, too
      sync_requested_ = false;
    }
    progress_.notify_all();
  }
  flush_groups_.end_all(flushes_begun_);
  mutex_.unlock();
}

Result<void> StoreWriter::flush_in_flight() {
  const LogMark before = writer_.mark();
  const bool was_synced = writer_.is_synced();
  if (options_.before_flush) MILLRACE_RETURN_IF_ERROR(options_.before_flush());
  MILLRACE_RETURN_IF_ERROR(writer_.write(packer_.pack(in_flight_.span())));
  if (options_.durability != Durability::kOs)
    MILLRACE_RETURN_IF_ERROR(writer_.sync());
  else if (was_synced)
    unsynced_since_ = options_.clock->monotonic();
  if (const auto now = options_.clock->monotonic(); now - place_checked_ >= kPlaceInterval) {
    MILLRACE_RETURN_IF_ERROR(writer_.check_place());
    place_checked_ = now;
  }
  if (writer_.mark() == before) return {};  // a piece of an open transaction
  return head_.publish(writer_.mark(), writer_.synced_mark());
}

/// kOs only.
Result<void> StoreWriter::sync_and_publish() {
  MILLRACE_RETURN_IF_ERROR(writer_.sync());
  return head_.publish(writer_.mark(), writer_.synced_mark());
}

void StoreWriter::finish_flush(const Result<void>& flushed) {
  if (!flushed) return poison(flushed.error());
  const LogMark& mark = writer_.mark();
  MILLRACE_CHECK(durable_.end <= mark.end && mark.end <= appended_end());
  // No transaction that may still be taken back reaches into those before it.
  if (mark.segment != durable_.segment) {
    maintenance_.set_sealed_before(mark.segment);
    upkeep_.note_sealed();
  }
  durable_ = mark;
  synced_ = writer_.synced_mark();
  durable_end_.store(mark.end.value, std::memory_order_release);
}

}  // namespace millrace::log
