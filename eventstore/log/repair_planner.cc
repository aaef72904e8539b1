#include "eventstore/log/repair_planner.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "eventstore/consumers.h"
#include "eventstore/log/generation_file.h"
#include "eventstore/log/head.h"
#include "eventstore/log/recovery.h"
#include "eventstore/log/segment_check.h"

namespace millrace::log {
namespace {

std::string file_name(std::uint64_t segment) { return "log/" + StorePaths::segment_name(segment); }

bool is_before(const LogMark& mark, const LogMark& other) {
  return std::tie(mark.segment, mark.position) < std::tie(other.segment, other.position);
}

std::string describe(const RepairPlanner::Damage& damage) {
  std::string text = file_name(damage.segment);
  if (damage.position != 0) text += " at byte " + std::to_string(damage.position);
  return text + ": " + damage.what;
}

bool is_damage(const Error& error) { return error.code() == ErrorCode::kCorruption; }

}  // namespace

Result<RepairPlanner::Outcome> RepairPlanner::run() {
  RepairPlan& plan = outcome_.plan;
  MILLRACE_ASSIGN_OR_RETURN(plan.interrupted, files_.exists(paths_.repair_mark()));
  MILLRACE_RETURN_IF_ERROR(read_headers());
  MILLRACE_RETURN_IF_ERROR(identify());
  plan.store = id_;
  MILLRACE_RETURN_IF_ERROR(set_strangers_aside());
  MILLRACE_RETURN_IF_ERROR(read_head());
  MILLRACE_ASSIGN_OR_RETURN(const auto damage, find_damage());
  if (!cut_)
    return Error(ErrorCode::kFailedPrecondition, "nothing of the log in " +
                                                     paths_.directory.string() +
                                                     " can be kept: " + describe(*damage))
        .hint("Put the store back from a backup, or start a new one in another folder.");
  plan.end = plan.lost_end = cut_->next;
  if (cut_->mark.source.epoch != 0) plan.source = cut_->mark.source;
  plan.last_commit_time = cut_->mark.commit_time;
  bool is_cut = damage.has_value();
  if (!is_cut && claim_ && is_before(cut_->mark, *claim_)) {
    MILLRACE_ASSIGN_OR_RETURN(const bool was_cut, knows_of_lost_segment(*claim_));
    is_cut = !was_cut;
  }
  if (is_cut) MILLRACE_RETURN_IF_ERROR(cut(damage));
  move_head_away();
  return std::move(outcome_);
}

Result<void> RepairPlanner::read_headers() {
  auto segments = list_segments(files_, paths_);
  if (!segments && segments.error().code() != ErrorCode::kNotFound)
    return std::move(segments).error();
  if (segments) segments_ = *std::move(segments);
  for (const std::uint64_t segment : segments_) {
    MILLRACE_ASSIGN_OR_RETURN(const auto file,
                              files_.open(paths_.segment(segment), OpenMode::kRead));
    std::string page(kSegmentHeaderBytes, '\0');
    MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file->read_at(0, page));
    page.resize(count);
    const auto header = decode_segment_header(page);
    if (header)
      headers_.emplace(segment, *header);
    else if (!is_damage(header.error()))
      return header.error();
  }
  return {};
}

/// Whose segments these are: store.json says so, or all of them say the same.
Result<void> RepairPlanner::identify() {
  std::set<StoreId> ids;
  for (const auto& [segment, header] : headers_)
    if (header.segment == segment) ids.insert(header.store);
  auto description = read_description(files_, paths_);
  if (description) {
    id_ = description->id;
    if (segments_.empty()) return no_segments(paths_);
    if (ids.contains(id_) || ids.size() != 1) return {};
  } else {
    const ErrorCode code = description.error().code();
    const bool is_absent = code == ErrorCode::kFailedPrecondition && !ids.empty();
    if (!is_damage(description.error()) && !is_absent) return description.error();
    if (ids.size() != 1) return description.error();
  }
  id_ = *ids.begin();
  outcome_.description = StoreDescription{.id = id_, .created = headers_.begin()->second.created};
  outcome_.plan.steps.push_back({.kind = RepairStep::Kind::kRebuild,
                                 .file = "store.json",
                                 .reason = description ? "it names another store than every segment"
                                                       : description.error().message()});
  return {};
}

/// Files that are none of this log's, whatever they are called.
Result<void> RepairPlanner::set_strangers_aside() {
  std::vector<std::uint64_t> ours;
  std::uint64_t rewritten_until = 0;
  for (const std::uint64_t segment : segments_) {
    const auto header = headers_.find(segment);
    std::string reason;
    if (header != headers_.end() && header->second.store != id_)
      reason = "a segment of another store, " + to_string(header->second.store);
    else if (header != headers_.end() && header->second.segment != segment)
      reason = "the segment from offset " + std::to_string(header->second.segment) +
               " under another one's name";
    else if (outcome_.plan.interrupted && !ours.empty() && segment == rewritten_until) {
      MILLRACE_ASSIGN_OR_RETURN(const bool is_left, is_left_behind_loss(segment, ours.back()));
      if (is_left) reason = "an interrupted repair lost all before it, and does not go on in it";
    } else if (segment < rewritten_until)
      reason = "it lies within the one before, which ends at offset " +
               std::to_string(rewritten_until) + ": an interrupted repair left it";
    if (reason.empty()) {
      ours.push_back(segment);
      if (header != headers_.end() && header->second.rewritten)
        rewritten_until = header->second.rewritten->end.value;
      continue;
    }
    MILLRACE_ASSIGN_OR_RETURN(RepairStep step,
                              step_for(RepairStep::Kind::kMoveAway, segment, 0, std::move(reason)));
    outcome_.plan.steps.push_back(std::move(step));
  }
  segments_ = std::move(ours);
  return {};
}

/// True if `segment` is what a cut left of the log: it says that all up to its end is lost.
Result<bool> RepairPlanner::ends_in_loss(std::uint64_t segment) {
  auto reader = SegmentReader::open(files_, paths_, id_, segment);
  if (!reader) return is_damage(reader.error()) ? Result<bool>(false) : std::move(reader).error();
  if (!reader->header().rewritten) return false;
  const auto removals = removals_of(*reader);
  if (!removals) return is_damage(removals.error()) ? Result<bool>(false) : removals.error();
  const std::uint64_t end = reader->header().rewritten->end.value;
  return std::any_of(removals->begin(), removals->end(), [&](const Removal& removal) {
    return removal.kind == RemovalKind::kLost && removal.last.value + 1 == end;
  });
}

/// True if `segment`, where the loss in the one `before` it ends, is not the one that was begun
/// there. It holds nothing: else the loss would reach further.
Result<bool> RepairPlanner::is_left_behind_loss(std::uint64_t segment, std::uint64_t before) {
  const auto header = headers_.find(segment);
  const SegmentHeader::End origin = headers_.at(before).rewritten->origin;
  const SegmentHeader::Predecessor link{
      .segment = before, .bytes_used = origin.bytes_used, .chain = origin.chain};
  if (header != headers_.end() && header->second.predecessor == link) return false;
  return ends_in_loss(before);
}

/// True if `claim`, which HEAD makes, is of a segment without an offset of its own, in whose place
/// an interrupted repair has begun another one. It holds for all that is lost before.
Result<bool> RepairPlanner::knows_of_lost_segment(const LogMark& claim) {
  if (!outcome_.plan.interrupted || segments_.size() < 2) return false;
  const std::uint64_t begun = segments_.back(), before = segments_[segments_.size() - 2];
  if (claim.segment != begun || claim.end.value != begun) return false;
  const auto& rewritten = headers_.at(before).rewritten;
  if (!rewritten || rewritten->end.value != begun) return false;
  return ends_in_loss(before);
}

Result<std::optional<RepairPlanner::Damage>> RepairPlanner::find_damage() {
  std::optional<Offset> missing;
  for (const std::uint64_t segment : segments_) {
    auto reader = SegmentReader::open(files_, paths_, id_, segment);
    if (!reader) {
      if (!is_damage(reader.error())) return std::move(reader).error();
      return Damage{segment, 0, reader.error().message()};
    }
    if (std::string wrong = wrong_link(reader->header()); !wrong.empty())
      return Damage{segment, 0, std::move(wrong)};
    MILLRACE_ASSIGN_OR_RETURN(auto damage, check_segment(*reader, segment == segments_.back()));
    if (damage) return damage;
    before_ = reader->link();
    missing = reader->header().rewritten ? std::optional(reader->end()) : std::nullopt;
  }
  if (segments_.empty()) return Damage{0, 0, "no segment of this store is left"};
  // What was rewritten was not the last one.
  if (missing) return Damage{missing->value, 0, "missing"};
  return std::optional<Damage>();
}

/// Empty if it is the one that follows.
std::string RepairPlanner::wrong_link(const SegmentHeader& header) const {
  if (!before_)
    return header.predecessor ? "the segment before it, from offset " +
                                    std::to_string(header.predecessor->segment) + ", is missing"
                              : "";
  if (header.predecessor == before_) return "";
  if (!header.predecessor) return "it calls itself the first";
  if (header.predecessor->segment != before_->segment)
    return "the segment before it, from offset " + std::to_string(header.predecessor->segment) +
           ", is missing";
  return "it remembers another end of the segment before it, byte " +
         std::to_string(header.predecessor->bytes_used);
}

void RepairPlanner::note_cut(SegmentReader& reader, bool at_end) {
  const LogState& state = reader.state();
  if (state.in_transaction()) return;
  cut_ = Cut{.mark = state.mark(), .chain = state.chain(), .next = state.next()};
  // A segment is named by its first offset, so none can follow one that holds none.
  if (!at_end || reader.end().value == reader.header().segment) return;
  cut_->next = reader.end();
  cut_->behind = reader.link();
}

Result<std::optional<RepairPlanner::Damage>> RepairPlanner::check_segment(SegmentReader& reader,
                                                                          bool is_last) {
  const std::uint64_t segment = reader.header().segment;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const bool at_end, reader.at_end());
    note_cut(reader, at_end);
    if (at_end) return std::optional<Damage>();
    MILLRACE_ASSIGN_OR_RETURN(auto wrong, check_next_batch(reader, batch_));
    if (!wrong) continue;
    // The tail of the last segment may be what an ordinary crash left.
    if (is_last && !reader.header().rewritten && *wrong != "batch records")
      return check_tail(segment);
    return Damage{segment, reader.state().position(), *std::move(wrong)};
  }
}

Result<std::optional<RepairPlanner::Damage>> RepairPlanner::check_tail(std::uint64_t segment) {
  MILLRACE_ASSIGN_OR_RETURN(auto reader, SegmentReader::open(files_, paths_, id_, segment));
  MILLRACE_ASSIGN_OR_RETURN(const Tail tail, examine_tail(reader, claim_));
  if (judge(tail.evidence) != TailVerdict::kRefuse) return std::optional<Damage>();
  // Nothing is there to be taken out: only HEAD knows of more.
  if (tail.evidence.bytes == TailBytes::kNothing && !tail.evidence.synced_before &&
      !tail.state.in_transaction())
    return std::optional<Damage>();
  std::string what(describe(tail.fault));
  if (tail.evidence.below_durable || tail.evidence.synced_before) what += ", below what was synced";
  return Damage{segment, tail.state.position(), std::move(what)};
}

Result<void> RepairPlanner::read_head() {
  MILLRACE_ASSIGN_OR_RETURN(const HeadView head, HeadReader(files_, paths_, id_).read());
  claim_ = head.at_least;
  if (head.durable && (!claim_ || is_before(*claim_, *head.durable))) claim_ = head.durable;
  return {};
}

/// Plans what makes the log end at cut_.
Result<void> RepairPlanner::cut(const std::optional<Damage>& damage) {
  RepairPlan& plan = outcome_.plan;
  const std::string where = damage ? describe(*damage) : "HEAD knows of more";
  const std::uint64_t here = cut_->behind ? cut_->next.value : cut_->mark.segment;
  std::vector<RepairStep> behind;
  std::optional<RepairStep> present;
  for (const std::uint64_t segment : segments_) {
    if (segment < here) continue;
    const bool is_here = segment == here;
    const bool is_damaged = !damage || segment == damage->segment;
    const bool lies_before = !is_damaged && segment < damage->segment;
    MILLRACE_ASSIGN_OR_RETURN(
        RepairStep step, step_for(is_here ? RepairStep::Kind::kCut : RepairStep::Kind::kMoveAway,
                                  segment, is_here && !cut_->behind ? cut_->mark.position : 0,
                                  (is_damaged    ? ""
                                   : lies_before ? "a transaction without its end: "
                                                 : "behind ") +
                                      where));
    MILLRACE_RETURN_IF_ERROR(count_lost(segment, step));
    plan.lost_bytes += step.to - step.from;
    plan.lost_events += step.events;
    plan.lost_transactions += step.transactions;
    (is_here ? present.emplace() : behind.emplace_back()) = std::move(step);
  }
  if (claim_) plan.lost_end = std::max(plan.lost_end, claim_->end);
  // No consumer has read more than there was. One whose file is damaged tells nothing.
  MILLRACE_ASSIGN_OR_RETURN(const auto names, consumer_names(paths_.directory, files_));
  for (const std::string& name : names)
    if (const auto consumer = find_consumer(paths_.directory, name, files_))
      plan.lost_end = std::max(plan.lost_end, consumer->offset);
  // All that is wrong may be that a repair was interrupted before it began the next segment.
  bool nothing_lost = plan.interrupted && cut_->behind && !present && plan.lost_end == plan.end;
  if (nothing_lost) {
    MILLRACE_ASSIGN_OR_RETURN(nothing_lost, ends_in_loss(cut_->behind->segment));
  }
  if (!nothing_lost) {
    // Whatever it was that can't be read, it was more than nothing.
    plan.lost_end = std::max(plan.lost_end, Offset{plan.end.value + 1});
    if (!present)
      present =
          RepairStep{.kind = RepairStep::Kind::kCut, .file = file_name(here), .reason = where};
    plan.steps.push_back(*std::move(present));
    MILLRACE_RETURN_IF_ERROR(make_lost_segment());
  }
  plan.steps.insert(plan.steps.end(), behind.begin(), behind.end());
  begin_next();
  return {};
}

Result<void> RepairPlanner::make_lost_segment() {
  LostSegment lost;
  SegmentHeader header{.store = id_,
                       .segment = cut_->next.value,
                       .created = {},
                       .predecessor = cut_->behind,
                       .mark = start_mark(cut_->next)};
  SegmentHeader::End origin{.bytes_used = kSegmentHeaderBytes};
  Offset first = cut_->next;
  if (cut_->behind) {
    lost.exists = std::binary_search(segments_.begin(), segments_.end(), header.segment);
  } else {
    MILLRACE_ASSIGN_OR_RETURN(auto reader,
                              SegmentReader::open(files_, paths_, id_, cut_->mark.segment));
    header = reader.header();
    origin = {.bytes_used = cut_->mark.position, .chain = cut_->chain};
    lost.exists = true;
    lost.keep_until = cut_->mark.position;
    auto removals = removals_of(reader);
    if (!removals && !is_damage(removals.error())) return std::move(removals).error();
    // What compaction took from it is not known any more: as if it were all of it.
    if (!removals) first = {header.segment};
    if (removals) lost.removals = *std::move(removals);
  }
  const Offset end = outcome_.plan.lost_end;
  lost.header = next_generation(header, end, origin, {});
  lost.header.rewritten->end = end;
  RemovalList removals(std::move(lost.removals));
  removals.add({.category = {},
                .kind = RemovalKind::kLost,
                .first = first,
                .last = {end.value - 1},
                .count = end.value - cut_->next.value});
  lost.removals = removals.all();
  outcome_.lost = std::move(lost);
  return {};
}

void RepairPlanner::begin_next() {
  const Offset first = outcome_.plan.lost_end;
  SegmentHeader header{.store = id_,
                       .segment = first.value,
                       .created = {},
                       .predecessor = cut_->behind,
                       .mark = start_mark(first)};
  if (outcome_.lost) {
    const SegmentHeader& before = outcome_.lost->header;
    header.predecessor = {.segment = before.segment,
                          .bytes_used = before.rewritten->origin.bytes_used,
                          .chain = before.rewritten->origin.chain};
  }
  outcome_.next = header;
  outcome_.plan.steps.push_back({.kind = RepairStep::Kind::kBegin,
                                 .file = file_name(first.value),
                                 .reason = "the log goes on in it"});
}

/// Of a segment that follows the last transaction that stays.
LogMark RepairPlanner::start_mark(Offset first) const {
  LogMark mark = cut_->mark;
  mark.end = first;
  mark.segment = first.value;
  mark.position = kSegmentHeaderBytes;
  return mark;
}

Result<RepairStep> RepairPlanner::step_for(RepairStep::Kind kind, std::uint64_t segment,
                                           std::uint64_t from, std::string reason) {
  MILLRACE_ASSIGN_OR_RETURN(const auto file, files_.open(paths_.segment(segment), OpenMode::kRead));
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, file->size());
  return RepairStep{.kind = kind,
                    .file = file_name(segment),
                    .from = std::min(from, size),
                    .to = size,
                    .reason = std::move(reason)};
}

/// What can still be read of what goes, and how far its offsets reach.
Result<void> RepairPlanner::count_lost(std::uint64_t segment, RepairStep& step) {
  auto reader = SegmentReader::open(files_, paths_, id_, segment);
  if (!reader) return is_damage(reader.error()) ? Result<void>{} : std::move(reader).error();
  Offset& lost_end = outcome_.plan.lost_end;
  lost_end = std::max(lost_end, Offset{segment});
  if (reader->header().rewritten) lost_end = std::max(lost_end, reader->header().rewritten->end);
  for (std::uint64_t at = std::max<std::uint64_t>(step.from, kSegmentHeaderBytes);;) {
    MILLRACE_ASSIGN_OR_RETURN(auto found, reader->find_header(at));
    if (found.fault != BatchFault::kNone) return {};
    MILLRACE_RETURN_IF_ERROR(reader->load(found));
    const bool is_good = found.fault == BatchFault::kNone;
    at = found.position + (is_good ? found.header.length : kBatchAlignment);
    if (found.header.base < cut_->next.value) continue;
    lost_end = std::max(lost_end, Offset{found.header.base + found.header.span});
    if (!is_good) continue;
    step.events += found.header.count;
    if (found.header.has(kLastOfTransaction)) ++step.transactions;
  }
}

/// A HEAD that knows of what is gone keeps the store from being opened, and leads readers astray.
void RepairPlanner::move_head_away() {
  if (!claim_) return;
  const auto there = headers_.find(claim_->segment);
  const bool was_cut = there == headers_.end() || there->second.rewritten;
  if (!outcome_.next && !is_before(cut_->mark, *claim_) && !(outcome_.plan.interrupted && was_cut))
    return;
  outcome_.plan.steps.push_back({.kind = RepairStep::Kind::kMoveAway,
                                 .file = "HEAD",
                                 .to = kHeadBytes,
                                 .reason = "it says that the log was durable up to offset " +
                                           std::to_string(claim_->end.value) + " (" +
                                           file_name(claim_->segment) + ", byte " +
                                           std::to_string(claim_->position) + ")"});
}

}  // namespace millrace::log
