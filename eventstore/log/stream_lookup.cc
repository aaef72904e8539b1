#include "eventstore/log/stream_lookup.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "eventstore/log/index_format.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/segment_reader.h"

namespace millrace::log {

namespace {

/// So often one who waits for more looks whether what he has open was replaced.
constexpr std::chrono::milliseconds kReplacedPoll{1000};

void take_in(Batch& batch, TailIndex& index) {
  if (!batch.idempotency_key.empty())
    index.add(idempotency_hash(batch.idempotency_key), batch.position);
  if (const auto hash = hash_of_erased(batch.erased_key)) index.add(*hash, batch.position);
  while (const EventView* event = batch.next())
    index.add(stream_hash(event->category, event->key), batch.position);
}

/// The first of `count` of which `ask(index)` is not true. It is true up to some place and false
/// behind it, but for those where it can't tell; of these, too, what lies before that place is left
/// out.
template <typename Ask>
Result<std::size_t> first_not_before(std::size_t count, const Ask& ask) {
  std::size_t low = 0, high = count;
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    std::size_t known = middle;
    std::optional<bool> is_before;
    for (; known < high; ++known) {
      MILLRACE_ASSIGN_OR_RETURN(is_before, ask(known));
      if (is_before) break;
    }
    if (is_before.value_or(false))
      low = known + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace

Result<std::unique_ptr<StreamLookup>> StreamLookup::open(FileSystem& files, const Path& store) {
  const StorePaths paths(store);
  MILLRACE_ASSIGN_OR_RETURN(const StoreDescription description, read_description(files, paths));
  std::unique_ptr<StreamLookup> lookup(new StreamLookup(files, paths, description.id));
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
    Segment& segment = segments_[batch->segment];
    if (!segment.is_begun) segment.walked_generation = batch->generation;
    segment.is_begun = true;
    // Else it was rewritten, and walked whole, while the tail was on its way through the old one.
    if (segment.walked && segment.walked_generation == batch->generation)
      take_in(*batch, *segment.walked);
    MILLRACE_RETURN_IF_ERROR(batch->status());
  }
  // The newest segment may begin in the middle of a transaction: the tail then waits beyond the
  // end.
  MILLRACE_ASSIGN_OR_RETURN(const HeadView head, head_.read());
  end_ = std::min(tail_->position(), head.durable ? head.durable->end : tail_->durable_end());
  close_replaced(head);
  return {};
}

/// They are opened anew when they are used. What is opened after HEAD was read may be replaced,
/// too, but HEAD says so afterwards. Without a HEAD to trust each one is looked at, each time.
void StreamLookup::close_replaced(const HeadView& head) {
  if (head.swapped && head.swapped == swapped_) return;
  for (auto& [first, segment] : segments_) {
    if (!segment.file || segment.file->is_in_place(files_, paths_)) continue;
    segment.file.reset();
    segment.index.reset();
  }
  swapped_ = head.swapped;
}

/// What is sealed now may be rewritten, and may have an index: it is opened anew when it is used.
void StreamLookup::move_to(std::uint64_t newest) {
  const auto newest_now = segments_.find(newest_);
  newest_now->second.file.reset();
  // The one before it has an index by now, or is walked when it is asked: else a lookup that is
  // seldom asked would grow with the log.
  if (newest_now != segments_.begin()) {
    Segment& before = std::prev(newest_now)->second;
    if (!before.file) before.walked.reset();
  }
  newest_ = newest;
  segments_[newest].walked.emplace();
}

/// As it is now, with its index, or else with what was walked of this generation.
Result<void> StreamLookup::open_segment(std::uint64_t first, Segment& segment) {
  segment.index.reset();
  MILLRACE_ASSIGN_OR_RETURN(auto reader,
                            SegmentReader::open(files_, paths_, tail_->store_id(), first));
  auto index = first == newest_ ? std::nullopt : SegmentIndex::open(files_, paths_, reader);
  const bool was_walked =
      segment.walked && segment.walked_generation == reader.header().generation();
  if (index) {
    segment.index.emplace(*std::move(index));
    segment.walked.reset();
  } else if (!was_walked) {
    return walk(std::move(reader), segment);
  }
  segment.file.emplace(std::move(reader), tail_->store_id());
  return {};
}

/// Also opens its file.
Result<void> StreamLookup::walk(SegmentReader reader, Segment& segment) {
  const std::uint64_t first = reader.header().segment;
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
  // Of a sealed segment nothing may be missing at the end.
  if (const auto next = segments_.upper_bound(first); next != segments_.end()) {
    MILLRACE_ASSIGN_OR_RETURN(const bool at_end, reader.at_end());
    MILLRACE_ASSIGN_OR_RETURN(const auto after,
                              SegmentReader::open(files_, paths_, tail_->store_id(), next->first));
    if (!at_end || after.header().predecessor != reader.link())
      return fault_error(first, reader.state().position(), BatchFault::kAbsent);
  }
  segment.walked.emplace(std::move(walked));
  segment.walked_generation = reader.header().generation();
  segment.is_begun = true;
  segment.file.emplace(std::move(reader), tail_->store_id());
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
  if (segment.file) return &segment;
  close_least_used();
  MILLRACE_RETURN_IF_ERROR(open_segment(first, segment));
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
    MILLRACE_ASSIGN_OR_RETURN(auto reader,
                              SegmentReader::open(files_, paths_, tail_->store_id(), first));
    MILLRACE_RETURN_IF_ERROR(walk(std::move(reader), segment));
  }
  segment.walked->find(hash, positions_);
  return {};
}

/// Fills positions_ in the order of the visit.
Result<StreamLookup::Segment*> StreamLookup::find_in(std::uint64_t first, std::uint64_t hash,
                                                     bool newest_first) {
  MILLRACE_ASSIGN_OR_RETURN(Segment * segment, use(first));
  MILLRACE_RETURN_IF_ERROR(find(*segment, first, hash));
  if (newest_first) std::reverse(positions_.begin(), positions_.end());
  return segment;
}

Result<std::optional<bool>> StreamLookup::ask(const Segment& segment, std::uint64_t position,
                                              const IsBefore& is_before) {
  MILLRACE_RETURN_IF_ERROR(segment.file->load(position, buffers_, batch_));
  if (batch_.first >= end()) return std::optional<bool>();
  return is_before(batch_);
}

Result<void> StreamLookup::visit(std::uint64_t hash, bool newest_first, const Visit& visit,
                                 const IsBefore& is_before) {
  std::vector<std::uint64_t> order;
  for (const auto& [first, segment] : segments_)
    if (first < end().value || first == newest_) order.push_back(first);
  if (newest_first) std::reverse(order.begin(), order.end());
  std::size_t begin = 0;
  if (is_before) {
    const auto is_segment_before = [&](std::size_t i) -> Result<std::optional<bool>> {
      MILLRACE_ASSIGN_OR_RETURN(const Segment* segment, find_in(order[i], hash, newest_first));
      for (auto position = positions_.rbegin(); position != positions_.rend(); ++position) {
        MILLRACE_ASSIGN_OR_RETURN(const auto known, ask(*segment, *position, is_before));
        if (known) return known;
      }
      return std::optional<bool>();
    };
    MILLRACE_ASSIGN_OR_RETURN(begin, first_not_before(order.size(), is_segment_before));
  }
  for (std::size_t i = begin; i < order.size(); ++i) {
    MILLRACE_ASSIGN_OR_RETURN(Segment * segment, find_in(order[i], hash, newest_first));
    std::size_t at = 0;
    if (is_before && i == begin) {
      MILLRACE_ASSIGN_OR_RETURN(at, first_not_before(positions_.size(), [&](std::size_t k) {
                                  return ask(*segment, positions_[k], is_before);
                                }));
    }
    for (; at < positions_.size(); ++at) {
      MILLRACE_RETURN_IF_ERROR(segment->file->load(positions_[at], buffers_, batch_));
      // A sealed segment may end with a piece of a transaction that is not whole yet.
      if (batch_.first >= end()) continue;
      if (!visit(batch_)) return {};
    }
  }
  return {};
}

Result<bool> StreamLookup::wait(std::chrono::milliseconds timeout, const std::stop_token& stop) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const HeadView head, head_.read());
    close_replaced(head);
    const auto rest = timeout - std::chrono::duration_cast<std::chrono::milliseconds>(
                                    std::chrono::steady_clock::now() - start);
    const auto slice = std::clamp(rest, std::chrono::milliseconds(0), kReplacedPoll);
    MILLRACE_ASSIGN_OR_RETURN(const bool more, tail_->wait(slice, stop));
    if (more || rest <= slice || stop.stop_requested()) return more;
  }
}

}  // namespace millrace::log
