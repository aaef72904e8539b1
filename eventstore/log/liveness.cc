#include "eventstore/log/liveness.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace millrace::log {
namespace {

/// What a record has beside its parts, about.
constexpr std::size_t kRecordBytes = 8;
/// Of one key; then the last of them is taken for complete, for it will be.
constexpr std::size_t kPartsMax = 256;
constexpr std::size_t kBitsOfWord = 64;

/// How much of what lies evenly in `range` lies below `offset`.
std::uint64_t part_below(std::uint64_t bytes, const SegmentRange& range, std::uint64_t offset) {
  if (offset <= range.first) return 0;
  if (offset >= range.end) return bytes;
  const double part =
      static_cast<double>(offset - range.first) / static_cast<double>(range.end - range.first);
  return static_cast<std::uint64_t>(static_cast<double>(bytes) * part);
}

}  // namespace

Liveness::Liveness(const Rules& rules, std::vector<SegmentRange> segments, std::size_t from,
                   std::size_t to)
    : rules_(rules),
      segments_(std::move(segments)),
      from_(from),
      to_(to),
      totals_(segments_.size()),
      keys_(rules.memory_bytes) {}

std::uint32_t Liveness::bytes_of(const EventView& event) {
  const std::size_t bytes = kRecordBytes + event.key.size() + event.type.size() +
                            event.payload.size() + event.metadata.size();
  return static_cast<std::uint32_t>(
      std::min<std::size_t>(bytes, std::numeric_limits<std::uint32_t>::max()));
}

bool Liveness::next_pass() {
  constexpr std::uint64_t kLast = std::numeric_limits<std::uint64_t>::max();
  here_ = 0;
  if (passes_ == 0) {
    keys_.start(0, kLast);
  } else {
    finish_pass();
    if (keys_.high() == kLast) {
      finish();
      return false;
    }
    keys_.start(keys_.high() + 1, kLast);
  }
  ++passes_;
  return true;
}

Liveness::Category& Liveness::category(std::string_view name) {
  if (category_ != nullptr && category_->name == name) return *category_;
  auto found = categories_.find(name);
  if (found == categories_.end()) {
    found = categories_.emplace(std::string(name), Category{}).first;
    Category& made = found->second;
    made.name = name;
    made.index = static_cast<std::uint32_t>(by_index_.size());
    made.policy = rules_.policies->of(name);
    made.seed = checksum(name, rules_.secret);
    by_index_.push_back(&made);
  }
  return *(category_ = &found->second);
}

const Liveness::Category* Liveness::find_category(std::string_view name) const {
  if (category_ != nullptr && category_->name == name) return category_;
  const auto found = categories_.find(name);
  return found == categories_.end() ? nullptr : &found->second;
}

std::size_t Liveness::segment_of(std::uint64_t offset) const {
  const auto behind = std::upper_bound(
      segments_.begin(), segments_.end(), offset,
      [](std::uint64_t at, const SegmentRange& range) { return at < range.first; });
  MILLRACE_CHECK(behind != segments_.begin());
  return static_cast<std::size_t>(behind - segments_.begin()) - 1;
}

/// True if the mark is new, and of a segment that is asked about.
bool Liveness::mark(Mark mark, std::uint64_t offset) {
  const std::size_t segment = segment_of(offset);
  if (segment < from_ || segment >= to_) return false;
  auto& bits = totals_[segment].marks[mark];
  const SegmentRange& range = segments_[segment];
  if (bits.empty()) bits.resize((range.end - range.first + kBitsOfWord - 1) / kBitsOfWord);
  const std::uint64_t at = offset - range.first, bit = std::uint64_t{1} << (at % kBitsOfWord);
  if ((bits[at / kBitsOfWord] & bit) != 0) return false;
  bits[at / kBitsOfWord] |= bit;
  return true;
}

bool Liveness::is_marked(Mark mark, std::uint64_t offset) const {
  const std::size_t segment = segment_of(offset);
  const auto& bits = totals_[segment].marks[mark];
  if (bits.empty()) return false;
  const std::uint64_t at = offset - segments_[segment].first;
  return (bits[at / kBitsOfWord] >> (at % kBitsOfWord) & 1) != 0;
}

bool Liveness::is_older_than(UnixMicros time, std::chrono::seconds age) const {
  return time.value < rules_.now.value - std::chrono::microseconds(age).count();
}

void Liveness::see(const EventView& event, UnixMicros append_time) {
  while (here_ + 1 < segments_.size() && event.offset.value >= segments_[here_].end) ++here_;
  Category& of = category(event.category);
  if (passes_ == 1) {
    account(of, event, append_time);
    if (const StreamPolicy* policy = rules_.policies->of(event.category, event.key))
      see_stream(streams_[policy], *policy, event, append_time);
  }
  // Without a key nothing says what replaces what.
  if (of.policy.retention == Retention::kKeep || event.key.empty() ||
      has(event.flags, EventFlags::kCategoryTombstone))
    return;
  see_key(of, event, append_time);
}

void Liveness::account(Category& of, const EventView& event, UnixMicros append_time) {
  const std::uint32_t bytes = bytes_of(event);
  totals_[here_].bytes += bytes;
  if (of.policy.retention == Retention::kKeep) return;
  if (of.shares.empty() || of.shares.back().segment != here_)
    of.shares.push_back({.segment = here_});
  of.shares.back().bytes += bytes;
  if (has(event.flags, EventFlags::kCategoryTombstone)) {
    of.truncated_at = event.offset.value;
    of.truncation_goes = !of.seen && event.offset < rules_.hold &&
                         is_older_than(append_time, of.policy.tombstone_grace);
  }
  of.seen = true;
  // The first event that is young keeps all behind it: clocks may go back, offsets don't.
  if (!of.policy.max_age || of.young_seen) return;
  if (is_older_than(append_time, *of.policy.max_age))
    of.expired_before = event.offset.value + 1;
  else
    of.young_seen = true;
}

void Liveness::see_stream(Stream& stream, const StreamPolicy& policy, const EventView& event,
                          UnixMicros append_time) {
  if (!has(event.flags, EventFlags::kPartial)) {
    stream.last_complete = event.offset.value;
    for (const PartialEvent& held : stream.held) remove_from_stream(held);
    stream.held.clear();
  }
  if (stream.last && stream.last_goes) let_go(stream, *stream.last);
  const PartialEvent here{.offset = event.offset.value, .bytes = bytes_of(event)};
  stream.last = here;
  stream.last_goes =
      (policy.max_age && is_older_than(append_time, *policy.max_age)) ||
      (policy.truncate_before && event.version && *event.version < *policy.truncate_before);
  if (!policy.max_count) return;
  if (stream.newest.size() < *policy.max_count) return stream.newest.push_back(here);
  let_go(stream, stream.newest[stream.next]);
  stream.newest[stream.next] = here;
  stream.next = (stream.next + 1) % stream.newest.size();
}

/// A complete event, and the partial ones after it, stay until another complete one stands for
/// them.
void Liveness::let_go(Stream& stream, const PartialEvent& event) {
  if (event.offset < stream.last_complete)
    remove_from_stream(event);
  else
    stream.held.push_back(event);
}

void Liveness::remove_from_stream(const PartialEvent& event) {
  if (event.offset < rules_.hold.value && mark(kStreamGone, event.offset))
    totals_[segment_of(event.offset)].dead += event.bytes;
}

void Liveness::see_key(Category& of, const EventView& event, UnixMicros append_time) {
  const Hash128 hash = hash128(event.key, of.seed);
  if (!keys_.covers(hash)) return;
  KeyState& state = keys_.find(hash);
  const bool is_new = state.offset == KeyState::kNone;
  const bool is_partial = has(event.flags, EventFlags::kPartial);
  // A TRUNCATE came between: what is known of the key is of another row.
  const bool is_truncated = !is_new && of.truncated_at && state.offset < *of.truncated_at &&
                            *of.truncated_at < event.offset.value;
  const bool starts_anew = is_new || is_truncated;
  if (is_partial && (starts_anew || state.is_tombstone) && is_moved(of, event))
    moved_.insert(event.offset.value);
  if (!starts_anew && is_partial) return add_partial(event, state);
  if (!is_new) supersede(of, state);
  state.has_older = !is_new;
  state.offset = event.offset.value;
  state.bytes = bytes_of(event);
  state.category = of.index & 0xfffffff;
  state.is_complete = !is_partial;
  state.is_tombstone = has(event.flags, EventFlags::kTombstone);
  state.is_past_grace = state.is_tombstone && event.offset < rules_.hold &&
                        is_older_than(append_time, of.policy.tombstone_grace);
  keys_.fit();
}

bool Liveness::is_moved(const Category& of, const EventView& event) const {
  return of.policy.retention == Retention::kCompact &&
         (!rules_.is_moved || rules_.is_moved(event.category, event.payload));
}

/// It stands beside the complete event and the partial ones before it.
void Liveness::add_partial(const EventView& event, KeyState& state) {
  const Hash128 hash = state.hash;
  auto& parts = keys_.partials(hash);
  if (parts.size() == kPartsMax) {
    // It gets complete where it can; until it is, what is before it is left alone.
    finish_key(state);
    state.offset = parts.back().offset;
    state.bytes = parts.back().bytes;
    state.has_older = 1;
    keys_.drop_partials(hash);
    keys_.partials(hash).push_back({event.offset.value, bytes_of(event)});
  } else {
    parts.push_back({event.offset.value, bytes_of(event)});
  }
  keys_.fit();
}

/// A complete event came: it stands for all that is known of its key.
void Liveness::supersede(Category& of, const KeyState& state) {
  if (mark(kSuperseded, state.offset)) add_dead(of, state.offset, state.bytes);
  if (const auto* parts = keys_.partials_of(state.hash)) {
    for (const PartialEvent& part : *parts)
      if (mark(kSuperseded, part.offset)) add_dead(of, part.offset, part.bytes);
    keys_.drop_partials(state.hash);
  }
}

void Liveness::add_dead(Category& of, std::uint64_t offset, std::uint32_t bytes) {
  if (of.policy.retention != Retention::kCompact) return;
  const auto share =
      std::lower_bound(of.shares.begin(), of.shares.end(), segment_of(offset),
                       [](const Share& one, std::size_t segment) { return one.segment < segment; });
  share->dead += bytes;
}

void Liveness::finish_pass() {
  if (passes_ == 1)
    for (auto& [name, of] : categories_) find_expiry(of);
  keys_.for_each([&](const KeyState& state) { finish_key(state); });
}

/// Everything older than the segment with which the newest ones have max_bytes goes.
void Liveness::find_expiry(Category& of) const {
  if (of.policy.retention != Retention::kExpire) return;
  std::uint64_t bytes = 0;
  for (auto share = of.shares.rbegin(); of.policy.max_bytes && share != of.shares.rend(); ++share) {
    bytes += share->bytes;
    if (bytes < *of.policy.max_bytes) continue;
    of.expired_before = std::max(of.expired_before, segments_[share->segment].first);
    break;
  }
  of.expired_before = std::min(of.expired_before, rules_.hold.value);
}

/// What is known of a key when all its events have gone by.
void Liveness::finish_key(const KeyState& state) {
  Category& of = *by_index_[state.category];
  const auto* const parts = keys_.partials_of(state.hash);
  const bool compacts = of.policy.retention == Retention::kCompact;
  if (!state.is_complete && moved_.contains(state.offset))
    of.needed_below = std::max(of.needed_below, state.offset);
  if (parts != nullptr && moved_.contains(parts->front().offset))
    of.needed_below = std::max(of.needed_below, parts->front().offset);
  if (parts == nullptr) {
    const bool goes = compacts && state.is_past_grace && !state.has_older;
    if (goes && mark(kTombstoneGone, state.offset)) add_dead(of, state.offset, state.bytes);
    return;
  }
  const PartialEvent& last = parts->back();
  const bool outdated = of.truncated_at && state.offset < *of.truncated_at;
  if (!state.is_complete || state.is_tombstone || (compacts && outdated)) return;
  if (!compacts && last.offset < of.expired_before) return;
  // What an event that stays is a part of stays with it.
  std::uint64_t freed = state.bytes;
  Completion completion{.parts = {state.offset}};
  for (const PartialEvent& part : *parts) {
    if (&part == &last) break;
    completion.parts.push_back(part.offset);
    freed += part.bytes;
  }
  if (!compacts)
    for (const std::uint64_t part : completion.parts) mark(kPinned, part);
  const std::size_t segment = segment_of(last.offset);
  const bool room = (completion_parts_ + completion.parts.size()) * sizeof(std::uint64_t) <=
                    rules_.memory_bytes / 8;
  if (!rules_.complete_partials || !room || segment < from_ || segment >= to_) return;
  completion_parts_ += completion.parts.size();
  totals_[segment].dead += freed;
  completions_[last.offset] = std::move(completion);
}

void Liveness::finish() {
  for (auto& [name, of] : categories_) {
    const bool compacts = of.policy.retention == Retention::kCompact;
    const std::uint64_t below = compacts ? of.truncated_at.value_or(0) : of.expired_before;
    for (const Share& share : of.shares) {
      const SegmentRange& range = segments_[share.segment];
      const std::uint64_t dead = std::max(share.dead, part_below(share.bytes, range, below));
      totals_[share.segment].dead +=
          std::min(dead, share.bytes - part_below(share.bytes, range, of.needed_below));
    }
  }
  for (Totals& totals : totals_) totals.dead = std::min(totals.dead, totals.bytes);
}

Verdict Liveness::judge(const EventView& event) const {
  const std::uint64_t offset = event.offset.value;
  const auto removed = [](RemovalKind kind) {
    return Verdict{.kind = Verdict::Kind::kRemoved, .removal = kind};
  };
  if (is_marked(kStreamGone, offset)) return removed(RemovalKind::kExpired);
  const Category* const of = find_category(event.category);
  if (of == nullptr) return {};
  if (of->policy.retention == Retention::kCompact) {
    if (offset < of->needed_below) return {};
    if (of->truncated_at && offset < *of->truncated_at) return {.kind = Verdict::Kind::kSuperseded};
    if (offset == of->truncated_at && of->truncation_goes) return removed(RemovalKind::kTombstone);
    if (is_marked(kTombstoneGone, offset)) return removed(RemovalKind::kTombstone);
    if (is_marked(kSuperseded, offset)) return {.kind = Verdict::Kind::kSuperseded};
  } else if (of->policy.retention == Retention::kExpire && offset < of->expired_before &&
             !is_marked(kPinned, offset) && (!event.version || is_marked(kSuperseded, offset))) {
    // The last event of a stream with versions stays, so that its versions go on.
    return removed(RemovalKind::kExpired);
  }
  if (has(event.flags, EventFlags::kPartial) && completion(event.offset) != nullptr)
    return {.kind = Verdict::Kind::kCompleted};
  return {};
}

const Completion* Liveness::completion(Offset offset) const {
  const auto found = completions_.find(offset.value);
  return found == completions_.end() ? nullptr : &found->second;
}

}  // namespace millrace::log
