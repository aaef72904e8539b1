#include "eventstore/log_reader.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "eventstore/log/batch_file.h"
#include "eventstore/log/head.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_plan.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"

namespace millrace {
namespace {

using log::BatchFault;
using log::HeadReader;
using log::HeadView;
using log::LogMark;
using log::SegmentPlan;
using log::SegmentReader;
using log::StorePaths;

class Reader final : public LogReader {
 public:
  Reader(StorePaths paths, ReadOptions options, const StoreId& id)
      : paths_(std::move(paths)),
        options_(std::move(options)),
        id_(id),
        position_(options_.from),
        time_reached_(!options_.from_time),
        head_(*options_.files, paths_, id) {
    std::sort(options_.categories.begin(), options_.categories.end());
  }

  Result<void> start() {
    MILLRACE_RETURN_IF_ERROR(refresh());
    return open_first_segment();
  }

  Result<Batch*> next() override;
  Result<bool> wait(std::chrono::milliseconds timeout, const std::stop_token& stop) override;
  Offset position() const override { return position_; }
  Offset durable_end() override {
    static_cast<void>(refresh());  // next() tells what is wrong
    return end_.end;
  }
  const StoreId& store_id() const override { return id_; }

 private:
  Result<void> refresh();
  Result<void> move_end(const LogMark& end);
  Result<void> open_first_segment();
  Result<void> open_next_segment();
  Result<void> leave_finished();
  Result<void> enter(SegmentReader opened);
  Result<std::uint32_t> generation_of(std::uint64_t segment) const;
  Result<bool> has_read_what_went(const log::SegmentHeader& here) const;
  void make_plan();
  Result<void> follow_plan();
  Error damaged(const SegmentReader::Found& found) const;
  Error damaged(std::uint64_t segment, const SegmentReader::Found& found, Offset offset) const;
  Result<void> check_removals(SegmentReader& segment) const;
  bool at_end() const {
    return segment_->state().segment() == end_.segment &&
           segment_->state().position() >= end_.position;
  }
  std::uint64_t limit() const {
    return segment_->state().segment() == end_.segment ? end_.position : SegmentReader::kNoLimit;
  }
  bool is_passed_over(const log::BatchHeader& header, bool ends_given);
  bool wants(std::string_view category) const;
  bool is_wanted() const;

  StorePaths paths_;
  ReadOptions options_;
  StoreId id_;
  Offset position_;
  bool time_reached_;  // ReadOptions::from_time lies behind
  HeadReader head_;
  std::uint32_t head_sequence_ = 0;
  LogMark end_;             // of what may be read
  bool end_found_ = false;  // end_ comes from the segments themselves
  std::optional<SegmentReader> segment_;
  // Of readers from the start: what was rewritten before that, and in which generation each was
  // read.
  std::map<std::uint64_t, std::uint32_t> generations_at_start_;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> read_;
  std::optional<SegmentPlan> plan_;  // of segment_
  Batch batch_;
  bool in_given_transaction_ = false;
};

Result<void> Reader::refresh() {
  MILLRACE_ASSIGN_OR_RETURN(HeadView head, head_.read());
  if (!head.durable && !end_found_) {
    const auto found = log::find_end(*options_.files, paths_, id_, head.at_least);
    // A writer may have started meanwhile: what was found need not be durable, and what looked
    // damaged may have been half of a write. It publishes HEAD before it writes anything, so a HEAD
    // that still says nothing settles it.
    MILLRACE_ASSIGN_OR_RETURN(head, head_.read());
    if (!head.durable && !found) return found.error();
    if (!head.durable) MILLRACE_RETURN_IF_ERROR(move_end(*found));
  }
  end_found_ = !head.durable;
  head_sequence_ = head.sequence;
  return head.durable ? move_end(*head.durable) : Result<void>{};
}

Result<void> Reader::move_end(const LogMark& end) {
  if (end.end < end_.end)
    return Error(ErrorCode::kFailedPrecondition,
                 "store " + paths_.directory.string() + " went back from offset " +
                     std::to_string(end_.end.value) + " to " + std::to_string(end.end.value))
        .hint("It was replaced by an older copy: rebuild what was made from it.");
  end_ = end;
  return {};
}

Result<void> Reader::open_first_segment() {
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, log::list_segments(*options_.files, paths_));
  const std::uint64_t wanted = std::min(options_.from, end_.end).value;
  std::optional<std::uint64_t> best;
  for (const std::uint64_t first : segments)
    if (first <= wanted && first <= end_.segment) best = first;
  if (!best) {
    if (segments.empty()) return log::no_segments(paths_);
    return Error(ErrorCode::kCorruption, paths_.log().string() + ": the events " +
                                             std::to_string(wanted) + " to " +
                                             std::to_string(segments.front()) + " are missing")
        .hint("Put the segment back from a backup.");
  }
  if (options_.from.value == 0 && !options_.accepts_gaps)
    for (const std::uint64_t first : segments) {
      MILLRACE_ASSIGN_OR_RETURN(const std::uint32_t generation, generation_of(first));
      if (generation != 0) generations_at_start_[first] = generation;
    }
  auto opened = SegmentReader::open(*options_.files, paths_, id_, *best);
  if (!opened) return std::move(opened).error();
  return enter(*std::move(opened));
}

Result<void> Reader::enter(SegmentReader opened) {
  // What is rewritten has been sealed: the end that was known lies in an older generation of it.
  if (opened.header().rewritten && opened.header().segment == end_.segment)
    MILLRACE_RETURN_IF_ERROR(refresh());
  MILLRACE_RETURN_IF_ERROR(check_removals(opened));
  if (options_.from.value == 0)
    read_.emplace_back(opened.header().segment, opened.header().generation());
  segment_.emplace(std::move(opened));
  make_plan();
  return {};
}

Result<void> Reader::open_next_segment() {
  const log::SegmentHeader::Predecessor here = segment_->link();
  const Offset end = segment_->end();
  MILLRACE_ASSIGN_OR_RETURN(const auto segments, log::list_segments(*options_.files, paths_));
  const auto next = std::upper_bound(segments.begin(), segments.end(), here.segment);
  const auto missing = [&](const std::string& before) {
    return Error(ErrorCode::kCorruption, paths_.log().string() + ": the events from " +
                                             std::to_string(end.value) + " to " + before +
                                             " are missing")
        .hint("Put the segment back from a backup.");
  };
  if (next == segments.end()) return missing(std::to_string(end_.end.value));
  MILLRACE_ASSIGN_OR_RETURN(auto opened, SegmentReader::open(*options_.files, paths_, id_, *next,
                                                             std::move(*segment_).take_buffers()));
  if (*next != end.value || opened.header().predecessor != here)
    return missing(std::to_string(*next));
  MILLRACE_RETURN_IF_ERROR(enter(std::move(opened)));
  position_ = std::max(position_, end);
  return {};
}

/// Goes on from sealed segments of which nothing is left to read: one who waits in them would keep
/// what is rewritten meanwhile.
Result<void> Reader::leave_finished() {
  while (segment_->state().segment() != end_.segment) {
    MILLRACE_ASSIGN_OR_RETURN(const bool ends, segment_->at_end());
    if (!ends) break;
    MILLRACE_RETURN_IF_ERROR(open_next_segment());
  }
  return {};
}

void Reader::make_plan() {
  plan_.reset();
  if (segment_->state().segment() == end_.segment) return;
  plan_ = SegmentPlan::make(*options_.files, paths_, *segment_,
                            {.from = options_.from,
                             .from_time = time_reached_ ? std::nullopt : options_.from_time,
                             .categories = options_.categories});
  if (plan_) segment_->set_read_ahead(plan_->read_ahead());
}

/// Goes to the next batch that needs a look, if that is not the very next one.
Result<void> Reader::follow_plan() {
  const std::uint64_t position = segment_->state().position();
  const std::uint64_t next = plan_->next(position, time_reached_, in_given_transaction_);
  if (next == position) return {};
  if (next == plan_->end_position()) {
    const log::IndexHeader& index = plan_->header();
    segment_->skip_to_end(index.used_bytes, index.chain, index.end);
    position_ = std::max(position_, index.end);
    return {};
  }
  MILLRACE_ASSIGN_OR_RETURN(const auto found, segment_->peek_at(next));
  if (found.fault == BatchFault::kNone) {
    segment_->resume_at(found);
    position_ = std::max(position_, Offset{found.header.base});
    return {};
  }
  // Damage, or an index that lies. The walk finds out.
  spdlog::debug("store {}: the index of log/{} leads to byte {}: {}", paths_.directory.string(),
                StorePaths::segment_name(segment_->state().segment()), next, describe(found.fault));
  plan_.reset();
  segment_->set_read_ahead(SegmentReader::kReadAhead);
  return {};
}

Error Reader::damaged(const SegmentReader::Found& found) const {
  return damaged(segment_->state().segment(), found, segment_->state().next());
}

Error Reader::damaged(std::uint64_t segment, const SegmentReader::Found& found,
                      Offset offset) const {
  return log::fault_error(segment, found.position, found.fault, offset);
}

Error gone(const StorePaths& paths, const log::Removal& removal, Offset from) {
  const auto text = [&]() -> std::string {
    const std::string count = std::to_string(removal.count);
    const std::string of = " of " + printable(removal.category);
    const std::string where = " between the offsets " + std::to_string(removal.first.value) +
                              " and " + std::to_string(removal.last.value);
    switch (removal.kind) {
      case log::RemovalKind::kTombstone:
        return count + " deletions" + of + where + ", which are past their grace";
      case log::RemovalKind::kLost:
        return "what was" + where + ", which was damaged and went when the store was repaired";
      default: return count + " events" + of + where + ", which have expired";
    }
  };
  Error error(ErrorCode::kGone, "OFFSET_GONE: reading " + paths.directory.string() +
                                    " from offset " + std::to_string(from.value) + " on lacks " +
                                    text());
  constexpr std::string_view kAnew =
      "Start from the beginning: rebuild what was made from this store (`rebuild` of a view), or "
      "read from offset 0.";
  if (removal.kind == log::RemovalKind::kLost) return std::move(error).hint(std::string(kAnew));
  return std::move(error).hint(std::string(kAnew) +
                               " A consumer registered with the policy `hold` keeps retention from "
                               "overtaking it.");
}

/// Whether the reader misses what a rewritten segment lacks.
Result<void> Reader::check_removals(SegmentReader& segment) const {
  if (!segment.header().rewritten || options_.accepts_gaps) return {};
  const std::string where = "log/" + StorePaths::segment_name(segment.header().segment);
  MILLRACE_ASSIGN_OR_RETURN(const auto control, segment.read_control());
  if (control.fault != BatchFault::kNone)
    return damaged(segment.header().segment, control, segment.header().rewritten->end);
  auto removals = log::decode_removals(control.payload);
  if (!removals) return std::move(removals).error().context(where);
  for (const log::Removal& removal : *removals) {
    const bool matters = removal.kind != log::RemovalKind::kErased &&
                         (removal.kind == log::RemovalKind::kLost || wants(removal.category));
    if (!matters || removal.last < options_.from) continue;
    MILLRACE_ASSIGN_OR_RETURN(const bool misses, options_.from.value != 0
                                                     ? Result<bool>(true)
                                                     : has_read_what_went(segment.header()));
    if (misses) return gone(paths_, removal, options_.from.value != 0 ? options_.from : position_);
    return {};
  }
  return {};
}

Result<std::uint32_t> Reader::generation_of(std::uint64_t segment) const {
  MILLRACE_ASSIGN_OR_RETURN(const auto reader,
                            SegmentReader::open(*options_.files, paths_, id_, segment));
  return reader.header().generation();
}

/// From the start nothing is missed of what went before that. But what goes for good goes after
/// what it stands for: who has read that while it was there, and comes to where the rest was, has
/// read a part of what happened.
Result<bool> Reader::has_read_what_went(const log::SegmentHeader& here) const {
  const auto at_start = generations_at_start_.find(here.segment);
  if (at_start != generations_at_start_.end() && at_start->second == here.generation())
    return false;
  for (const auto& [segment, generation] : read_) {
    MILLRACE_ASSIGN_OR_RETURN(const std::uint32_t now, generation_of(segment));
    if (now != generation) return true;
  }
  return false;
}

/// True for a batch of which nothing is wanted, by its header.
bool Reader::is_passed_over(const log::BatchHeader& header, bool ends_given) {
  if (header.base + header.span <= options_.from.value) return true;
  if (header.count == 0 && !ends_given) return true;
  time_reached_ = time_reached_ || header.commit_time >= *options_.from_time;
  return !time_reached_;
}

bool Reader::wants(std::string_view category) const {
  const auto& wanted = options_.categories;
  return wanted.empty() || std::binary_search(wanted.begin(), wanted.end(), category);
}

bool Reader::is_wanted() const {
  if (options_.categories.empty() || batch_.mentions(options_.categories)) return true;
  return in_given_transaction_ && batch_.last_of_transaction;
}

Result<Batch*> Reader::next() {
  for (;;) {
    if (at_end()) {
      MILLRACE_RETURN_IF_ERROR(refresh());
      if (at_end()) return nullptr;
    }
    if (plan_) MILLRACE_RETURN_IF_ERROR(follow_plan());
    MILLRACE_ASSIGN_OR_RETURN(auto found, segment_->peek(limit()));
    if (found.fault == BatchFault::kAbsent && segment_->state().segment() != end_.segment) {
      MILLRACE_ASSIGN_OR_RETURN(const bool ends, segment_->at_end());
      if (ends) {
        MILLRACE_RETURN_IF_ERROR(open_next_segment());
        continue;
      }
    }
    if (found.fault != BatchFault::kNone) return damaged(found);
    const Offset batch_end{found.header.base + found.header.span};
    if (found.header.has(log::kControl)) {
      segment_->advance(found);
      continue;
    }
    if (found.header.has(log::kFirstOfTransaction)) in_given_transaction_ = false;
    // Of a transaction that was given, the end is given too, also if compaction left nothing in
    // it.
    const bool ends_given = in_given_transaction_ && found.header.has(log::kLastOfTransaction);
    if (is_passed_over(found.header, ends_given)) {
      segment_->advance(found);
      position_ = std::max(position_, batch_end);
      continue;
    }
    MILLRACE_RETURN_IF_ERROR(segment_->load(found, limit()));
    if (found.fault != BatchFault::kNone) return damaged(found);
    batch_.segment = segment_->state().segment();
    batch_.position = found.position;
    batch_.generation = segment_->header().generation();
    batch_.load(found.header, found.payload, options_.from);
    segment_->advance(found);
    position_ = batch_end;
    if (!is_wanted()) continue;
    in_given_transaction_ = !batch_.last_of_transaction;
    return &batch_;
  }
}

Result<bool> Reader::wait(std::chrono::milliseconds timeout, const std::stop_token& stop) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    MILLRACE_RETURN_IF_ERROR(refresh());
    MILLRACE_RETURN_IF_ERROR(leave_finished());
    if (end_.end > position_) return true;
    const auto passed = std::chrono::steady_clock::now() - start;
    if (passed >= timeout || stop.stop_requested()) return false;
    head_.wait(head_sequence_, timeout - passed, stop);
  }
}

}  // namespace

Result<std::unique_ptr<LogReader>> LogReader::open(const Path& directory, ReadOptions options) {
  const StorePaths paths(directory);
  auto description = log::read_description(*options.files, paths);
  if (!description)
    return std::move(description).error().context("read store " + directory.string());
  auto reader = std::make_unique<Reader>(paths, std::move(options), description->id);
  if (auto started = reader->start(); !started)
    return std::move(started).error().context("read store " + directory.string());
  return reader;
}

}  // namespace millrace
