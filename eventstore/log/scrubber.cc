#include "eventstore/log/scrubber.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "eventstore/log/segment_check.h"

namespace millrace::log {
namespace {

/// How long to pause where there is nothing to read.
constexpr std::chrono::minutes kIdlePause{10};
constexpr std::string_view kMissingBefore = "the segments before it are missing";

std::string file_name(std::uint64_t segment) { return "log/" + StorePaths::segment_name(segment); }

}  // namespace

std::chrono::milliseconds Scrubber::step(std::uint64_t sealed_before) {
  load_report();
  // What was rewritten is read again from its start.
  if (reader_ && !reader_->is_in_place(*options_.files, paths_)) reader_.reset();
  if (!in_pass_) {
    if (!is_pass_due()) return kIdlePause;
    in_pass_ = true;
    report_.pass_began = options_.clock->wall();
  }
  // What is sealed later is of the next pass: else one that writes faster would keep it from
  // ending.
  if (!pass_end_) pass_end_ = sealed_before;
  if (!reader_) {
    const auto next = find_next(*pass_end_);
    if (!next) return kIdlePause;
    if (!*next && report_.next.value == 0 && *pass_end_ != 0) {
      // There were some, else the one behind them would be the first of the log.
      segment_ = *pass_end_;
      end_segment(Finding{0, std::string(kMissingBefore)});
      return std::chrono::milliseconds(1);
    }
    if (!*next) {
      end_pass();
      return kIdlePause;
    }
    segment_ = **next;
  }
  std::uint64_t bytes = 0;
  auto finding = read_on(bytes);
  // A disk that can't read what it holds, and a file that is gone, are what this is looking for; a
  // process without memory or descriptors is not.
  if (!finding && finding.error().code() != ErrorCode::kCorruption &&
      finding.error().code() != ErrorCode::kNotFound && finding.error().code() != ErrorCode::kIo) {
    reader_.reset();
    return kIdlePause;
  }
  if (!finding) finding = Finding{.position = 0, .what = finding.error().message()};
  if (*finding || !reader_) end_segment(*finding);
  return std::chrono::milliseconds(bytes * 1000 / options_.bytes_per_second + 1);
}

void Scrubber::load_report() {
  if (std::exchange(loaded_, true)) return;
  auto report = read_scrub_report(paths_.directory, *options_.files);
  if (!report || !*report) return;
  report_ = **std::move(report);
  in_pass_ = report_.next.value != 0;
}

bool Scrubber::is_pass_due() const {
  const std::int64_t passed = options_.clock->wall().value - report_.pass_began.value;
  return passed < 0 || std::chrono::microseconds(passed) >= kPassInterval;
}

/// Nothing at the end of the pass.
Result<std::optional<std::uint64_t>> Scrubber::find_next(std::uint64_t before) {
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, list_segments(*options_.files, paths_));
  const auto next = std::lower_bound(segments.begin(), segments.end(), report_.next.value);
  if (next == segments.end() || *next >= before) return std::optional<std::uint64_t>();
  return std::optional(*next);
}

/// Reads about a step's worth; without a reader_ the segment is at its end.
Result<std::optional<Scrubber::Finding>> Scrubber::read_on(std::uint64_t& bytes) {
  if (!reader_) {
    if (report_.next.value == 0 && segment_ != 0) return Finding{0, std::string(kMissingBefore)};
    MILLRACE_ASSIGN_OR_RETURN(
        reader_, SegmentReader::open(*options_.files, paths_, options_.store, segment_));
    bytes = kSegmentHeaderBytes;
  }
  while (bytes < kStepBytes) {
    MILLRACE_ASSIGN_OR_RETURN(const bool ends, reader_->at_end());
    if (ends) {
      MILLRACE_ASSIGN_OR_RETURN(auto finding, check_end());
      reader_.reset();
      return finding;
    }
    const std::uint64_t position = reader_->state().position();
    MILLRACE_ASSIGN_OR_RETURN(auto wrong, check_next_batch(*reader_, batch_));
    if (wrong) return Finding{position, *std::move(wrong)};
    bytes += reader_->state().position() - position;
  }
  return std::optional<Finding>();
}

/// Whether it ends as the segment after it says.
Result<std::optional<Scrubber::Finding>> Scrubber::check_end() {
  const std::uint64_t position = reader_->state().position(), end = reader_->end().value;
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, list_segments(*options_.files, paths_));
  const auto next = std::upper_bound(segments.begin(), segments.end(), segment_);
  if (next == segments.end() || *next > end)
    return Finding{position,
                   "the segment after it, from offset " + std::to_string(end) + ", is missing"};
  const auto after = SegmentReader::open(*options_.files, paths_, options_.store, *next);
  if (after && after->header().predecessor != reader_->link())
    return Finding{position, "the segment after it remembers another end"};
  return std::optional<Finding>();  // what is wrong with the next one is found there
}

void Scrubber::end_segment(const std::optional<Finding>& finding) {
  reader_.reset();
  const std::string file = file_name(segment_);
  const auto known = std::find_if(report_.faults.begin(), report_.faults.end(),
                                  [&](const ScrubFault& fault) { return fault.file == file; });
  const bool is_known = finding && known != report_.faults.end() &&
                        known->position == finding->position && known->what == finding->what;
  if (!is_known) {
    if (known != report_.faults.end()) report_.faults.erase(known);
    if (finding) {
      report_.faults.push_back({file, finding->position, finding->what, options_.clock->wall()});
      spdlog::error(
          "store {}: {} is damaged at byte {}: {}; it is sealed, so its disk has lost something. "
          "`millrace log verify` lists every fault; put the file back from a backup",
          paths_.directory.string(), file, finding->position, finding->what);
    }
  }
  report_.next = {segment_ + 1};
  save();
}

void Scrubber::end_pass() {
  in_pass_ = false;
  pass_end_.reset();
  if (std::exchange(report_.next, Offset{}).value == 0) return;  // nothing is sealed yet
  report_.completed = options_.clock->wall();
  save();
}

void Scrubber::save() {
  const auto saved = write_scrub_report(paths_.directory, report_, *options_.files);
  if (!saved)
    spdlog::warn("store {}: what the scrub found is not noted: {}", paths_.directory.string(),
                 saved.error().message());
}

}  // namespace millrace::log
