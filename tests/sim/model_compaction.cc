#include <algorithm>
#include <unordered_map>

#include "eventstore/log/liveness.h"
#include "tests/sim/model.h"

// What compaction and erasing may take out, as the policies tell it, by a way of its own: newest
// event first, with everything in memory. What may go need not, so it only sets flags.

namespace millrace::sim {
namespace {

bool is_older_than(std::int64_t time, std::int64_t now, std::chrono::seconds age) {
  return time < now - std::chrono::microseconds(age).count();
}

EventView view_of(const ModelEvent& event) {
  return {.offset = {},
          .category = event.category,
          .key = event.key,
          .type = event.type,
          .payload = event.payload,
          .metadata = event.metadata,
          .flags = event.flags,
          .version = event.version};
}

/// What is known of newer events.
struct Newer {
  struct OfKey {
    std::uint64_t count = 0;
    bool complete = false;
  };
  struct OfCategory {
    std::uint64_t bytes = 0;
    bool truncated = false;
  };
  std::unordered_map<std::string, OfKey> keys;
  std::unordered_map<std::string, OfCategory> categories;
};

bool is_limited(const ModelEvent& event, const StreamPolicy& policy, const Newer::OfKey& newer,
                std::int64_t now) {
  if (policy.max_count && newer.count >= *policy.max_count) return true;
  if (newer.count == 0) return false;
  return (policy.max_age && is_older_than(event.appended, now, *policy.max_age)) ||
         (policy.truncate_before && event.version && *event.version < *policy.truncate_before);
}

bool is_expired(const ModelEvent& event, const CategoryPolicy& policy, const Newer::OfKey& key,
                const Newer::OfCategory& category, std::int64_t now) {
  if (event.version && !key.complete) return false;
  return (policy.max_age && is_older_than(event.appended, now, *policy.max_age)) ||
         (policy.max_bytes && category.bytes >= *policy.max_bytes);
}

}  // namespace

Policies Model::policies_at(std::uint64_t end) const {
  Policies policies;
  for (std::uint64_t i = 0; i < end; ++i)
    if (events_[i].category == kPolicyCategory) policies.apply(view_of(events_[i]));
  return policies;
}

Fold Model::fold_at(std::uint64_t end) const {
  if (end == events_.size()) return fold_;
  Fold fold;
  for (std::uint64_t i = 0; i < end; ++i)
    fold.apply(events_[i].category, events_[i].key, events_[i].payload, events_[i].flags);
  return fold;
}

void Model::check_fold(const Reading& reading) const {
  if (is_whole() || !reading.fold) return;
  const std::string other = fold_at(reading.next).difference(*reading.fold, exempt_);
  check(other.empty(), "I15 the latest state of a key is not what it was", other);
}

bool Model::may_lack(const ModelTransaction& transaction) const {
  return may_lack_ && std::any_of(events_.begin() + static_cast<std::ptrdiff_t>(transaction.first),
                                  events_.begin() + static_cast<std::ptrdiff_t>(transaction.end),
                                  [](const ModelEvent& event) { return event.may_be_gone(); });
}

bool Model::may_be_told_of_loss(const Reading& reading) const {
  return reading.from < events_.size() &&
         std::any_of(
             events_.begin() + static_cast<std::ptrdiff_t>(reading.from), events_.end(),
             [&](const ModelEvent& event) { return event.lost && reading.wants(event.category); });
}

/// And what was moved from there, and from there ...
void Model::exempt(const std::string& name) {
  exempt_.insert(name);
  for (const ModelEvent& event : events_) {
    if (!Fold::is_table(event.category) || !has(event.flags, EventFlags::kPartial)) continue;
    const auto from = moved_from(event.payload);
    if (!from) continue;
    const std::string source = Fold::name_of(event.category, *from);
    if (source == name || exempt_.contains(source))
      exempt_.insert(Fold::name_of(event.category, event.key));
  }
}

void Model::may_compact(const CompactionRun& run) {
  if (run.policies.keep_everything()) return;
  may_lack_ = true;
  for (const auto& [name, policy] : run.policies.categories())
    if (policy.retention == Retention::kExpire) exempt_.insert(name);
  for (const auto& [stream, policy] : run.policies.streams())
    exempt(Fold::name_of(stream.first, stream.second));
  Newer newer;
  for (std::uint64_t i = run.end; i-- > 0;) {
    ModelEvent& event = events_[i];
    if (event.category.starts_with('$')) continue;
    const CategoryPolicy policy = run.policies.of(event.category);
    Newer::OfKey& key = newer.keys[Fold::name_of(event.category, event.key)];
    Newer::OfCategory& category = newer.categories[event.category];
    const bool truncates = has(event.flags, EventFlags::kCategoryTombstone);
    const bool may_be_lost = i < run.hold;
    if (const StreamPolicy* limits = run.policies.of(event.category, event.key))
      event.lost = event.lost || (may_be_lost && is_limited(event, *limits, key, run.now));
    if (policy.retention == Retention::kCompact) {
      event.superseded = event.superseded || category.truncated ||
                         (key.complete && !event.key.empty() && !truncates);
      event.lost =
          event.lost || (may_be_lost && (truncates || has(event.flags, EventFlags::kTombstone)) &&
                         is_older_than(event.appended, run.now, policy.tombstone_grace));
    } else if (policy.retention == Retention::kExpire) {
      event.lost = event.lost || (may_be_lost && is_expired(event, policy, key, category, run.now));
    }
    ++key.count;
    key.complete = key.complete || !has(event.flags, EventFlags::kPartial) || event.whole;
    category.truncated = category.truncated || truncates;
    category.bytes +=
        log::Liveness::bytes_of(view_of(event)) + (event.whole ? event.whole->size() : 0);
  }
  if (!run.merges) return;
  Fold fold;
  for (std::uint64_t i = 0; i < run.end; ++i) {
    ModelEvent& event = events_[i];
    fold.apply(event.category, event.key, event.payload, event.flags);
    if (!has(event.flags, EventFlags::kPartial) || event.whole) continue;
    if (run.policies.of(event.category).retention == Retention::kKeep) continue;
    if (const std::string* row = fold.find(Fold::name_of(event.category, event.key)))
      event.whole = *row;
  }
}

std::vector<std::string> Model::may_erase(const std::string& category, const std::string& key,
                                          std::uint64_t below) {
  std::vector<std::string> payloads;
  may_lack_ = true;
  const std::string name = Fold::name_of(category, key);
  const bool was_exempt = exempt_.contains(name);
  exempt(name);  // for those that came from there
  if (!was_exempt) exempt_.erase(name);
  for (std::uint64_t i = 0; i < below; ++i) {
    if (events_[i].category != category || events_[i].key != key) continue;
    events_[i].erased = true;
    // Those of rows have a number in them that nobody else has.
    if (Fold::is_table(category) && events_[i].payload.starts_with('a'))
      payloads.push_back(events_[i].payload);
  }
  return payloads;
}

void Model::was_erased(const std::string& category, const std::string& key, std::uint64_t below) {
  for (std::uint64_t i = 0; i < below; ++i)
    if (events_[i].category == category && events_[i].key == key) events_[i].surely_erased = true;
}

void Model::distrust() {
  exempt_.insert({"t0", "t1"});
  for (ModelEvent& event : events_) event.surely_erased = false;
}

}  // namespace millrace::sim
