#include "eventstore/log/compaction.h"

#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "base/check.h"
#include "eventstore/log/batch_file.h"
#include "eventstore/log/liveness.h"
#include "eventstore/policy.h"

namespace millrace::log {
namespace {

constexpr std::chrono::milliseconds kNapMax{50};

std::uint64_t random_secret() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

std::vector<SegmentRange> ranges_of(const LogExtent& log) {
  std::vector<SegmentRange> ranges;
  for (std::size_t i = 0; i < log.segments.size(); ++i)
    ranges.push_back({.first = log.segments[i],
                      .end = i + 1 < log.segments.size()
                                 ? log.segments[i + 1]
                                 : std::max(log.durable.end.value, log.segments[i] + 1)});
  return ranges;
}

class Compaction {
 public:
  Compaction(const StoreContext& store, const LogExtent& log, const CompactionOptions& options)
      : store_(store),
        log_(log),
        options_(options),
        ranges_(ranges_of(log)),
        pace_(options.bytes_per_second, options.progress, options.stop, *store.clock) {}

  Result<CompactionReport> run(Offset hold, RewriteOptions rewriting);

 private:
  std::size_t end_of_group(std::size_t from) const;
  Result<void> decide(Liveness& liveness);
  Result<void> do_group(Liveness& liveness, std::size_t from, std::size_t to,
                        const RewriteOptions& rewriting);
  bool is_worth_it(const Liveness& liveness, std::size_t segment) const;
  Result<void> read_parts(const Liveness& liveness, const std::vector<std::size_t>& segments);
  Result<Verdict> judge(const Liveness& liveness, const EventView& event);
  Result<std::optional<std::string>> complete(const Completion& completion, const EventView& event);
  Result<void> walk(std::size_t to,
                    const std::function<Result<void>(const EventView&, const Batch&)>& see);
  std::function<Result<void>(std::uint64_t)> paced() {
    return [this](std::uint64_t bytes) { return pace_(bytes); };
  }

  const StoreContext& store_;
  const LogExtent& log_;
  const CompactionOptions& options_;
  const std::vector<SegmentRange> ranges_;
  std::vector<std::uint64_t> segment_bytes_;  // of those with something durable
  Policies policies_;
  Pace pace_;
  std::map<std::uint64_t, std::string> parts_;  // payloads that complete others, by offset
  std::string completed_;
  CompactionReport report_;
};

/// As many segments as there is memory for the marks of: two bits for an offset, mostly.
std::size_t Compaction::end_of_group(std::size_t from) const {
  std::uint64_t bytes = 0;
  std::size_t to = from;
  for (; to < log_.sealed(); ++to) {
    bytes += (ranges_[to].end - ranges_[to].first) / 4;
    if (bytes > options_.memory_bytes / 2 && to != from) break;
  }
  return to;
}

Result<CompactionReport> Compaction::run(Offset hold, RewriteOptions rewriting) {
  report_.segments = log_.sealed();
  MILLRACE_ASSIGN_OR_RETURN(policies_,
                            load_policies(store_.paths.directory, *store_.files, log_.durable.end));
  if (policies_.keep_everything()) return std::move(report_);
  for (const std::uint64_t segment : log_.segments) {
    if (segment > log_.durable.segment) break;
    MILLRACE_ASSIGN_OR_RETURN(const auto file,
                              store_.files->open(store_.paths.segment(segment), OpenMode::kRead));
    MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t bytes, file->size());
    segment_bytes_.push_back(segment == log_.durable.segment ? log_.durable.position : bytes);
  }
  rewriting.pace = paced();
  for (std::size_t from = 0; from < log_.sealed();) {
    const std::size_t to = end_of_group(from);
    Liveness liveness({.policies = &policies_,
                       .now = store_.clock->wall(),
                       .hold = hold,
                       .complete_partials = options_.merge != nullptr,
                       .is_moved = options_.is_moved,
                       .memory_bytes = options_.memory_bytes / 2,
                       .secret = options_.hash_secret ? *options_.hash_secret : random_secret()},
                      ranges_, from, to);
    MILLRACE_RETURN_IF_ERROR(decide(liveness));
    MILLRACE_RETURN_IF_ERROR(do_group(liveness, from, to, rewriting));
    from = to;
  }
  report_.bytes_read = pace_.bytes();
  return std::move(report_);
}

/// The log from its start up to the segment `to`.
Result<void> Compaction::walk(
    std::size_t to, const std::function<Result<void>(const EventView&, const Batch&)>& see) {
  to = std::min(to, segment_bytes_.size());
  for (std::size_t segment = 0; segment < to; ++segment) pace_.expect(segment_bytes_[segment]);
  return walk_log(store_, log_, 0, to, see, paced());
}

Result<void> Compaction::decide(Liveness& liveness) {
  while (liveness.next_pass())
    MILLRACE_RETURN_IF_ERROR(
        walk(log_.segments.size(), [&](const EventView& event, const Batch& batch) -> Result<void> {
          liveness.see(event, batch.append_time);
          return {};
        }));
  report_.passes += liveness.passes();
  return {};
}

bool Compaction::is_worth_it(const Liveness& liveness, std::size_t segment) const {
  const std::uint64_t dead = liveness.dead_bytes(segment), all = liveness.event_bytes(segment);
  return dead != 0 &&
         static_cast<double>(dead) >= options_.dead_share_min * static_cast<double>(all);
}

Result<void> Compaction::do_group(Liveness& liveness, std::size_t from, std::size_t to,
                                  const RewriteOptions& rewriting) {
  std::vector<std::size_t> worth;
  for (std::size_t segment = from; segment < to; ++segment)
    if (is_worth_it(liveness, segment)) worth.push_back(segment);
  if (!options_.dry_run) MILLRACE_RETURN_IF_ERROR(read_parts(liveness, worth));
  const Judge decided = [&](const EventView& event, const Batch&) {
    return judge(liveness, event);
  };
  if (!options_.dry_run)
    for (const std::size_t segment : worth) pace_.expect(segment_bytes_[segment]);
  for (const std::size_t segment : worth) {
    RewrittenSegment done{.file = StorePaths::segment_name(log_.segments[segment])};
    if (options_.dry_run) {
      done.bytes_before = liveness.event_bytes(segment);
      done.bytes_after = done.bytes_before - liveness.dead_bytes(segment);
    } else {
      MILLRACE_ASSIGN_OR_RETURN(const RewriteReport rewritten,
                                rewrite_segment(store_.paths, store_.store, log_.segments[segment],
                                                log_.segments[segment + 1], decided, rewriting));
      done.bytes_before = rewritten.bytes_before;
      done.bytes_after = rewritten.bytes_after;
      done.events_removed = rewritten.events_removed;
      done.events_completed = rewritten.events_completed;
      add_removals(rewritten.removed, report_.removed);
      if (rewritten.events_removed + rewritten.events_completed == 0) continue;
    }
    report_.rewritten.push_back(std::move(done));
    report_.bytes_read = pace_.bytes();
    if (!options_.dry_run && options_.so_far) options_.so_far(report_);
  }
  return {};
}

/// Reads the payloads that partial events of `segments` are completed from, as far as there is
/// memory for them; the others stay partial until a later run.
Result<void> Compaction::read_parts(const Liveness& liveness,
                                    const std::vector<std::size_t>& segments) {
  parts_.clear();
  std::size_t last = 0;  // behind the last segment with a part
  for (const std::size_t segment : segments)
    liveness.for_each_completion(segment, [&](const Completion& completion) {
      for (const std::uint64_t part : completion.parts) parts_[part];
      last = std::max(last, segment + 1);
    });
  if (parts_.empty()) return {};
  std::size_t bytes = 0;
  return walk(last, [&](const EventView& event, const Batch&) -> Result<void> {
    const auto wanted = parts_.find(event.offset.value);
    if (wanted == parts_.end()) return {};
    if (bytes + event.payload.size() > options_.memory_bytes / 4) {
      parts_.erase(wanted);
      return {};
    }
    bytes += event.payload.size();
    wanted->second = event.payload;
    return {};
  });
}

Result<Verdict> Compaction::judge(const Liveness& liveness, const EventView& event) {
  Verdict verdict = liveness.judge(event);
  if (verdict.kind != Verdict::Kind::kCompleted) return verdict;
  MILLRACE_ASSIGN_OR_RETURN(auto payload, complete(*liveness.completion(event.offset), event));
  if (!payload) return Verdict{};  // it stays partial, and what completes it stays too
  completed_ = *std::move(payload);
  verdict.payload = completed_;
  return verdict;
}

Result<std::optional<std::string>> Compaction::complete(const Completion& completion,
                                                        const EventView& event) {
  std::optional<std::string> payload;
  for (const std::uint64_t part : completion.parts) {
    const auto found = parts_.find(part);
    if (found == parts_.end()) return std::optional<std::string>();
    if (!payload) {
      payload = found->second;
      continue;
    }
    MILLRACE_ASSIGN_OR_RETURN(payload, options_.merge(event.category, *payload, found->second));
    if (!payload) return payload;
  }
  MILLRACE_CHECK(payload.has_value());
  return options_.merge(event.category, *payload, event.payload);
}

Result<void> walk_segment(SegmentReader& reader, std::uint64_t limit, Batch& batch,
                          const std::function<Result<void>(const EventView&, const Batch&)>& see,
                          const std::function<Result<void>(std::uint64_t)>& pace) {
  std::uint64_t paced = reader.state().position();
  for (;;) {
    const std::uint64_t position = reader.state().position();
    MILLRACE_ASSIGN_OR_RETURN(const bool ends, limit == SegmentReader::kNoLimit
                                                   ? reader.at_end()
                                                   : Result<bool>(position >= limit));
    if (position - paced >= kPaceBytes || ends) {
      MILLRACE_RETURN_IF_ERROR(pace(position - paced));
      paced = position;
    }
    if (ends) return {};
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader.peek(limit));
    if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader.load(found, limit));
    if (found.fault != BatchFault::kNone)
      return fault_error(reader.header().segment, found.position, found.fault);
    batch.load(found.header, found.payload, Offset{0});
    while (const EventView* event = batch.next()) MILLRACE_RETURN_IF_ERROR(see(*event, batch));
    MILLRACE_RETURN_IF_ERROR(batch.status());
    reader.advance(found);
  }
}

}  // namespace

std::size_t LogExtent::sealed() const {
  const auto open = std::lower_bound(segments.begin(), segments.end(), durable.segment);
  return static_cast<std::size_t>(open - segments.begin());
}

Result<void> walk_log(const StoreContext& store, const LogExtent& log, std::size_t from,
                      std::size_t to,
                      const std::function<Result<void>(const EventView&, const Batch&)>& see,
                      const std::function<Result<void>(std::uint64_t)>& pace) {
  Batch batch;
  SegmentReader::Buffers buffers;
  for (std::size_t i = from; i < to && log.segments[i] <= log.durable.segment; ++i) {
    MILLRACE_ASSIGN_OR_RETURN(
        auto reader, SegmentReader::open(*store.files, store.paths, store.store, log.segments[i],
                                         std::move(buffers)));
    const bool last = log.segments[i] == log.durable.segment;
    MILLRACE_RETURN_IF_ERROR(walk_segment(
        reader, last ? log.durable.position : SegmentReader::kNoLimit, batch, see, pace));
    buffers = std::move(reader).take_buffers();
  }
  return {};
}

Result<void> Pace::operator()(std::uint64_t bytes) {
  told_.done_bytes += bytes;
  told_.total_bytes = std::max(told_.total_bytes, told_.done_bytes);
  for (;;) {
    if (progress_) progress_(told_);
    if (stop_.stop_requested()) return Error(ErrorCode::kCancelled, "asked to stop");
    if (bytes_per_second_ == 0) return {};
    const std::chrono::duration<double> due(static_cast<double>(told_.done_bytes) /
                                            static_cast<double>(bytes_per_second_));
    const auto ahead = due - (clock_.monotonic() - start_);
    if (ahead.count() <= 0) return {};
    std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(ahead, kNapMax));
  }
}

Result<CompactionReport> compact_log(const StoreContext& store, const LogExtent& log, Offset hold,
                                     const CompactionOptions& options,
                                     const AroundSwap& around_swap) {
  if (options.memory_bytes == 0 || !(options.dead_share_min >= 0 && options.dead_share_min <= 1))
    return Error(ErrorCode::kInvalidArgument,
                 "compaction needs memory, and a share of dead bytes from 0 to 1");
  return Compaction(store, log, options)
      .run(hold, {.files = store.files,
                  .clock = store.clock,
                  .compression = store.compression,
                  .around_swap = around_swap});
}

void add_removals(const std::vector<Removal>& removals, std::vector<RemovedEvents>& to) {
  for (const Removal& removal : removals)
    add_removed({.category = removal.category,
                 .reason = std::string(name_of(removal.kind)),
                 .first = removal.first,
                 .last = removal.last,
                 .count = removal.count},
                to);
}

}  // namespace millrace::log
