#include "eventstore/log/stream_lookup.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "eventstore/log/index_format.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/segment_reader.h"

namespace millrace::log {

namespace {

void take_in(Batch& batch, TailIndex& index) {
  if (!batch.idempotency_key.empty())
    index.add(idempotency_hash(batch.idempotency_key), batch.position);
  while (const EventView* event = batch.next())
    index.add(stream_hash(event->category, event->key), batch.position);
}

}  // namespace

Result<std::unique_ptr<StreamLookup>> StreamLookup::open(FileSystem& files, const Path& store) {
  std::unique_ptr<StreamLookup> lookup(new StreamLookup(files, StorePaths(store)));
  MILLRACE_RETURN_IF_ERROR(read_description(files, lookup->paths_));
  MILLRACE_RETURN_IF_ERROR(lookup->list_segments());
  ReadOptions options;
  options.from = {lookup->newest_};
  options.accepts_gaps = true;
  options.files = &files;
  MILLRACE_ASSIGN_OR_RETURN(lookup->tail_, LogReader::open(store, std::move(options)));
  return lookup;
}

/// The tail is read from the segment on that is the newest now; later ones come with its batches.
Result<void> StreamLookup::list_segments() {
  MILLRACE_ASSIGN_OR_RETURN(const auto list, log::list_segments(files_, paths_));
  if (list.empty()) return no_segments(paths_);
  for (const std::uint64_t first : list) segments_.try_emplace(first);
  newest_ = list.back();
  segments_[newest_].walked.emplace();
  return {};
}

Result<void> StreamLookup::refresh() {
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(Batch * batch, tail_->next());
    if (batch == nullptr) break;
    if (batch->segment > newest_) move_to(batch->segment);
    auto& walked = segments_[batch->segment].walked;
    if (walked) take_in(*batch, *walked);
    MILLRACE_RETURN_IF_ERROR(batch->status());
  }
  // The newest segment may begin in the middle of a transaction: the tail then waits beyond the
  // end.
  end_ = std::min(tail_->position(), tail_->durable_end());
  return {};
}

/// What was walked and is sealed now takes less memory once it has an index.
void StreamLookup::move_to(std::uint64_t newest) {
  for (auto& [first, segment] : segments_) {
    if (!segment.walked) continue;
    const auto opened = open_index(first, segment);
    if (opened && *opened) segment.walked.reset();
  }
  newest_ = newest;
  segments_[newest].walked.emplace();
}

Result<bool> StreamLookup::open_index(std::uint64_t first, Segment& segment) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            SegmentReader::open(files_, paths_, tail_->store_id(), first));
  auto index = SegmentIndex::open(files_, paths_, reader);
  if (!index) return false;
  segment.index.emplace(*std::move(index));
  return true;
}

Result<void> StreamLookup::walk(std::uint64_t first, Segment& segment) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            SegmentReader::open(files_, paths_, tail_->store_id(), first));
  TailIndex walked;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader.peek());
    if (found.fault == BatchFault::kAbsent) break;
    if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(reader.load(found));
    if (found.fault != BatchFault::kNone) return fault_error(first, found.position, found.fault);
    if (!found.header.has(kControl)) {
      batch_.segment = first;
      batch_.position = found.position;
      batch_.load(found.header, found.payload, Offset{0});
      take_in(batch_, walked);
      MILLRACE_RETURN_IF_ERROR(batch_.status());
    }
    reader.advance(found);
  }
  segment.walked.emplace(std::move(walked));
  return {};
}

void StreamLookup::close_least_used() {
  std::size_t open = 0;
  std::pair<const std::uint64_t, Segment>* least = nullptr;
  for (auto& one : segments_) {
    if (!one.second.file) continue;
    ++open;
    if (one.first != newest_ && (least == nullptr || one.second.used_at < least->second.used_at))
      least = &one;
  }
  if (open >= kOpenSegmentsMax && least != nullptr) least->second = {};
}

Result<StreamLookup::Segment*> StreamLookup::use(std::uint64_t first) {
  Segment& segment = segments_[first];
  segment.used_at = ++uses_;
  if (!segment.file) {
    close_least_used();
    MILLRACE_ASSIGN_OR_RETURN(segment.file,
                              BatchFile::open(files_, paths_, tail_->store_id(), first));
  }
  if (segment.index || segment.walked) return &segment;
  MILLRACE_ASSIGN_OR_RETURN(const bool indexed, open_index(first, segment));
  if (!indexed) MILLRACE_RETURN_IF_ERROR(walk(first, segment));
  return &segment;
}

/// Fills positions_.
Result<void> StreamLookup::find(Segment& segment, std::uint64_t first, std::uint64_t hash) {
  if (segment.index) {
    const auto found = segment.index->find(hash, positions_);
    if (found || found.error().code() != ErrorCode::kCorruption) return found;
    spdlog::debug("{}: {}; the segment is walked instead", paths_.segment(first).string(),
                  found.error().message());
    segment.index.reset();
    MILLRACE_RETURN_IF_ERROR(walk(first, segment));
  }
  segment.walked->find(hash, positions_);
  return {};
}

Result<void> StreamLookup::visit(std::uint64_t hash, bool newest_first, const Visit& visit) {
  std::vector<std::uint64_t> order;
  for (const auto& [first, segment] : segments_)
    if (first < end().value || first == newest_) order.push_back(first);
  if (newest_first) std::reverse(order.begin(), order.end());
  for (const std::uint64_t first : order) {
    MILLRACE_ASSIGN_OR_RETURN(Segment * segment, use(first));
    MILLRACE_RETURN_IF_ERROR(find(*segment, first, hash));
    if (newest_first) std::reverse(positions_.begin(), positions_.end());
    for (const std::uint64_t position : positions_) {
      MILLRACE_RETURN_IF_ERROR(segment->file->load(position, buffers_, batch_));
      // A sealed segment may end with a piece of a transaction that is not whole yet.
      if (batch_.first >= end()) continue;
      if (!visit(batch_)) return {};
    }
  }
  return {};
}

Result<bool> StreamLookup::wait(std::chrono::milliseconds timeout, const std::stop_token& stop) {
  return tail_->wait(timeout, stop);
}

}  // namespace millrace::log
