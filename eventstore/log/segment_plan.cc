#include "eventstore/log/segment_plan.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

namespace millrace::log {
namespace {

/// Where wanted batches lie further apart, reading what is between them costs more than asking the
/// kernel for each.
constexpr std::uint64_t kSparseBytes = 16 << 10;
constexpr std::uint64_t kSparseReadAheadMin = 512, kSparseReadAheadMax = 256 << 10;

/// Enough for most batches, and little of what is behind.
std::size_t sparse_read_ahead(const IndexHeader& index) {
  const std::uint64_t batch = index.used_bytes / std::max<std::uint64_t>(index.batches, 1);
  return static_cast<std::size_t>(
      std::clamp(batch + batch / 4, kSparseReadAheadMin, kSparseReadAheadMax));
}

/// Of the batches with an event of any of `categories`, ascending. By halves, so that each position
/// is looked at once for each doubling of their number.
Result<std::vector<std::uint64_t>> postings_of(const SegmentIndex& index,
                                               std::span<const std::string> categories) {
  if (categories.size() == 1) return index.postings(categories.front());
  const std::size_t half = categories.size() / 2;
  MILLRACE_ASSIGN_OR_RETURN(const auto some, postings_of(index, categories.first(half)));
  MILLRACE_ASSIGN_OR_RETURN(auto others, postings_of(index, categories.subspan(half)));
  if (some.empty()) return others;
  std::vector<std::uint64_t> all;
  all.reserve(some.size() + others.size());
  std::set_union(some.begin(), some.end(), others.begin(), others.end(), std::back_inserter(all));
  return all;
}

}  // namespace

std::optional<SegmentPlan> SegmentPlan::make(FileSystem& files, const StorePaths& paths,
                                             SegmentReader& segment, const Wanted& wanted) {
  const bool from_within = wanted.from.value > segment.header().segment;
  if (!from_within && !wanted.from_time && wanted.categories.empty()) return std::nullopt;
  const auto index = SegmentIndex::open(files, paths, segment);
  const auto no_plan = [&](std::string_view why) {
    spdlog::debug("store {}: log/{} is read without an index: {}", paths.directory.string(),
                  StorePaths::segment_name(segment.header().segment), why);
    return std::optional<SegmentPlan>();
  };
  if (!index) return no_plan("it has none of its own");
  SegmentPlan plan;
  plan.header_ = index->header();
  if (from_within) {
    const auto start = index->seek(wanted.from);
    if (!start) return no_plan(start.error().message());
    plan.start_ = *start;
  }
  if (wanted.from_time) {
    const auto start = index->seek_time(*wanted.from_time);
    if (!start) return no_plan(start.error().message());
    const bool none = plan.header_.commit_max < *wanted.from_time;
    plan.start_ = none ? plan.end_position() : std::max(plan.start_, *start);
  }
  if (wanted.categories.empty()) return plan;
  auto postings = postings_of(*index, wanted.categories);
  auto ends = index->transaction_ends();
  if (!postings || !ends) return no_plan((!postings ? postings : ends).error().message());
  plan.by_category_ = true;
  if (postings->size() * kSparseBytes < plan.end_position())
    plan.read_ahead_ = sparse_read_ahead(plan.header_);
  plan.postings_.positions = *std::move(postings);
  plan.ends_.positions = *std::move(ends);
  return plan;
}

std::uint64_t SegmentPlan::List::at_or_after(std::uint64_t position, std::uint64_t otherwise) {
  while (next < positions.size() && positions[next] < position) ++next;
  return next < positions.size() ? positions[next] : otherwise;
}

std::uint64_t SegmentPlan::next(std::uint64_t position, bool time_reached,
                                bool in_given_transaction) {
  position = std::max(position, start_);
  // Until then the very next batch may be the one from which on they count.
  if (!by_category_ || !time_reached) return position;
  const std::uint64_t posting = postings_.at_or_after(position, end_position());
  if (!in_given_transaction) return posting;
  return std::min(posting, ends_.at_or_after(position, end_position()));
}

}  // namespace millrace::log
