#include "eventstore/log/maintenance.h"

#include <spdlog/spdlog.h>

#include "eventstore/log/scrubber.h"
#include "eventstore/log/segment_index.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/stream_snapshots.h"

namespace millrace::log {
namespace {

/// A writer that is there for a moment only does not begin to scrub.
constexpr std::chrono::seconds kFirstScrub{1};
/// To index a segment: once, and again where it was rewritten in between.
constexpr int kAttempts = 3;

/// Nothing that another attempt would mend.
bool is_final(const Error& error) {
  return error.code() == ErrorCode::kCorruption || error.code() == ErrorCode::kUnsupported;
}

}  // namespace

Maintenance::Maintenance(StorePaths paths, const Options& options, std::uint64_t sealed_before)
    : paths_(std::move(paths)), options_(options), sealed_before_(sealed_before) {
  if (options_.background) thread_ = std::jthread([this] { run_background(); });
}

Maintenance::~Maintenance() { stop(); }

void Maintenance::stop() {
  {
    MutexLock lock(mutex_);
    stop_.request_stop();
    due_changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void Maintenance::set_sealed_before(std::uint64_t segment) {
  MutexLock lock(mutex_);
  sealed_before_ = segment;
  due_ = true;
  due_changed_.notify_all();
}

/// Sleeps until an index is due, or until `scrub_at`: then it gives what is sealed.
std::optional<std::uint64_t> Maintenance::wait_for_work(std::optional<Deadline> scrub_at) {
  MutexLock lock(mutex_);
  while (!due_ && !stop_.stop_requested()) {
    if (!scrub_at)
      due_changed_.wait(mutex_);
    else if (!due_changed_.wait_until(mutex_, *scrub_at))
      return sealed_before_;
  }
  return std::nullopt;
}

void Maintenance::run_background() {
  std::optional<Scrubber> scrubber;
  std::optional<Deadline> scrub_at;
  if (options_.scrub_bytes_per_second != 0) {
    scrubber.emplace(paths_,
                     Scrubber::Options{.store = options_.store,
                                       .files = options_.files,
                                       .clock = options_.clock,
                                       .bytes_per_second = options_.scrub_bytes_per_second});
    scrub_at = std::chrono::steady_clock::now() + kFirstScrub;
  }
  for (;;) {
    const auto scrub_before = wait_for_work(scrub_at);
    if (stop_.stop_requested()) return;
    if (scrub_before)
      scrub_at = std::chrono::steady_clock::now() + scrubber->step(*scrub_before);
    else
      static_cast<void>(run());  // it has told
  }
}

Result<void> Maintenance::run() {
  MutexLock lock(work_);
  return run_once();
}

Result<void> Maintenance::run_once() {
  std::uint64_t sealed_before;
  {
    MutexLock lock(mutex_);
    due_ = false;
    sealed_before = sealed_before_;
  }
  Result<void> done = remove_leftovers();
  auto segments = list_segments(*options_.files, paths_);
  if (!segments) return std::move(segments).error();
  for (const std::uint64_t segment : *segments) {
    if (segment >= sealed_before) break;
    if (segment < checked_before_ && !failed_.contains(segment)) continue;
    Result<void> kept = keep_index(segment);
    if (!kept && kept.error().code() == ErrorCode::kCancelled) return kept;
    if (!kept && done) done = std::move(kept);
  }
  checked_before_ = sealed_before;
  return done;
}

/// Here and not when the store is opened, for there may be many files beside them.
Result<void> Maintenance::remove_leftovers() {
  if (leftovers_removed_) return {};
  const StreamSnapshots snapshots(paths_.directory, options_.store, *options_.files);
  Result<void> removed = snapshots.remove_leftovers();
  leftovers_removed_ = removed.has_value();
  if (!removed && !std::exchange(leftovers_told_, true))
    spdlog::warn("store {}: unfinished snapshots of streams stay for now: {}",
                 paths_.directory.string(), removed.error().message());
  return removed;
}

/// Tells of a failure when it is new.
Result<void> Maintenance::keep_index(std::uint64_t segment) {
  Result<void> built = build_index(segment);
  if (built) {
    failed_.erase(segment);
    return built;
  }
  const Error& error = built.error();
  if (error.code() == ErrorCode::kCancelled) return built;
  const bool is_new =
      is_final(error) ? (failed_.erase(segment), true) : failed_.insert(segment).second;
  if (is_new)
    spdlog::warn("store {}: log/{} gets no index; reading it takes longer: {}",
                 paths_.directory.string(), StorePaths::segment_name(segment), error.message());
  return built;
}

Result<void> Maintenance::build_index(std::uint64_t segment) {
  FileSystem& files = *options_.files;
  if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "the store is closed");
  // The segment may be rewritten meanwhile: then the index is of what is no longer there.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto reader = SegmentReader::open(files, paths_, options_.store, segment);
    if (!reader) return std::move(reader).error();
    if (SegmentIndex::open(files, paths_, *reader)) return {};
    auto bytes = SegmentIndex::build(*reader, stop_.get_token());
    if (!bytes) return std::move(bytes).error();
    const Result<void> written = write_file_atomically(files, paths_.index(segment), *bytes);
    // A rewriting writes its own under the same temporary name and may have taken ours.
    if (!written && written.error().code() != ErrorCode::kNotFound) return written;
  }
  return {};
}

}  // namespace millrace::log
