#include <algorithm>
#include <array>
#include <cstdio>

#include "eventstore/consumers.h"
#include "eventstore/policy.h"
#include "tests/sim/probes.h"
#include "tests/sim/simulation.h"

// What takes events out of the log: policies and compaction, erasing; and the consumers that hold
// it back. The model is told before what may go, so that a run may be interrupted anywhere.

namespace millrace::sim {
namespace {

constexpr std::uint64_t kEnd = ~std::uint64_t{0};

/// Numbers of its own for a step; the arguments are too few for its events.
class Draw {
 public:
  explicit Draw(std::uint64_t state) : state_(state) {}
  std::uint32_t below(std::uint32_t limit) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return static_cast<std::uint32_t>(state_ >> 33) % limit;
  }

 private:
  std::uint64_t state_;
};

/// What became of something that may fail: it did, or a fault was met and is over.
template <typename T>
bool worked(Simulation& sim, const Result<T>& result, const char* checker) {
  const bool was_hit = sim.files.fault_was_hit();
  const bool in_doubt =
      !result && result.error().message().find("could not be put in place before") !=
                     std::string::npos;  // until the store is opened again
  const bool may_fail =
      in_doubt ||
      (was_hit && !result &&
       (result.error().code() == ErrorCode::kIo || result.error().code() == ErrorCode::kNoSpace));
  if (!result) check(may_fail, checker, result.error().to_string());
  // What poisoned the store is settled after the step.
  if (was_hit && !sim.files.is_down() && sim.store().status()) sim.files.clear_faults();
  if (in_doubt) sim.close();
  return result.has_value();
}

std::string row_of(std::uint64_t serial, std::size_t i, std::size_t padding) {
  const std::string number = std::to_string(serial) + "." + std::to_string(i) + ",";
  return "a" + number + "b" + number + std::string(padding, 'x');
}

void add_row(Draw& draw, const Fold& rows, const std::string& category, std::string row,
             std::vector<ModelEvent>& events) {
  const auto key = [&] { return "k" + std::to_string(draw.below(8)); };
  ModelEvent event{.category = category, .key = key(), .type = {}, .payload = {}, .metadata = {}};
  const bool is_there = rows.find(Fold::name_of(category, event.key)) != nullptr;
  const std::uint32_t dice = draw.below(32);
  if (dice < 9 && is_there) {
    event.flags = EventFlags::kPartial;
    event.payload = row.substr(0, row.find('b'));
  } else if (dice < 13) {
    event.flags = EventFlags::kTombstone;
  } else if (const std::string to = key();
             dice < 15 && is_there && rows.find(Fold::name_of(category, to)) == nullptr) {
    event.flags = EventFlags::kTombstone;
    events.push_back(event);
    event.payload = row.substr(0, row.find('b')) + "m" + event.key;
    event.key = to;
    event.flags = EventFlags::kPartial;
  } else if (dice == 15) {
    event.key.clear();
    event.flags = EventFlags::kCategoryTombstone;
  } else {
    event.payload = std::move(row);
  }
  events.push_back(std::move(event));
}

PolicyEvent draw_policy(const Arguments& a) {
  constexpr std::array categories{"t0", "t0", "t1", "t1", "t1", "c0", "c1", "streams"};
  constexpr std::array graces{0, 60, 3600};
  const std::string category = categories[a[0] % categories.size()];
  CategoryPolicy policy;
  const bool may_compact = category != "streams";
  const std::uint32_t kind = a[1] % 16;
  if (kind < 10 && may_compact) {
    policy.retention = Retention::kCompact;
    policy.tombstone_grace = std::chrono::seconds(graces[a[2] % graces.size()]);
  } else if (kind < 13) {
    policy.retention = Retention::kExpire;
    if (a[2] % 3 != 0) policy.max_age = std::chrono::seconds(1 + a[3] % 7200);
    if (a[2] % 3 != 1) policy.max_bytes = 1 + a[3] % 30'000;
  } else if (kind == 13) {
    policy.retention = Retention::kKeep;
  } else {
    StreamPolicy limits;
    if (a[2] % 3 == 0) limits.max_count = 1 + a[3] % 4;
    if (a[2] % 3 == 1) limits.max_age = std::chrono::seconds(1 + a[3] % 7200);
    if (a[2] % 3 == 2) limits.truncate_before = 1 + a[3] % 6;
    const std::string key = (category == "streams" ? "s" : "k") + std::to_string(a[3] / 16 % 5);
    return policy_event(category, key, limits).value();
  }
  return policy_event(category, policy).value();
}

bool merges(const Arguments& a) { return a[0] % 4 != 0; }

CompactionOptions draw_options(const Arguments& a) {
  constexpr std::array<std::size_t, 4> budgets{1 << 10, 1 << 10, 16 << 10, 1 << 20};
  CompactionOptions options{.dead_share_min = a[1] % 3 == 0 ? 0.3 : 0,
                            .memory_bytes = budgets[a[1] / 3 % budgets.size()],
                            .hash_secret = a[3]};
  if (merges(a))
    options.merge = [](std::string_view, std::string_view older,
                       std::string_view newer) -> Result<std::optional<std::string>> {
      return merge_rows(older, newer);
    };
  if (a[0] / 4 % 4 != 0)
    options.is_moved = [](std::string_view, std::string_view payload) {
      return moved_from(payload).has_value();
    };
  return options;
}

void count(const CompactionReport& report) {
  hit(Probe::kCompacted);
  if (report.passes > 1) hit(Probe::kCompactedInPasses);
  for (const RewrittenSegment& segment : report.rewritten) {
    if (segment.events_removed != 0) hit(Probe::kSegmentRewritten);
    if (segment.events_completed != 0) hit(Probe::kPartialCompleted);
  }
  for (const RemovedEvents& removed : report.removed)
    hit(removed.reason == "expired" ? Probe::kExpired : Probe::kTombstoneRemoved);
}

void remove_consumer(Simulation& sim, const std::string& name) {
  sim.consumers.erase(name);
  const auto removed = sim.store().maintenance().remove_consumer(name);
  if (!removed && removed.error().code() == ErrorCode::kNotFound) return;
  static_cast<void>(worked(sim, removed, "I9 removing a consumer"));
}

/// Below it nothing is held; nothing if a fault kept that from being found out.
std::optional<std::uint64_t> held_offset(Simulation& sim) {
  const auto consumers = list_consumers(Simulation::kStore, sim.files);
  if (!consumers && consumers.error().code() == ErrorCode::kCorruption && sim.has_ever_lied()) {
    for (const char* name : {"holder", "loser"}) remove_consumer(sim, name);
    return std::nullopt;
  }
  if (!worked(sim, consumers, "I9 consumers")) return std::nullopt;
  std::uint64_t hold = kEnd;
  std::size_t known = 0;
  for (const Consumer& consumer : *consumers) {
    if (consumer.policy == ConsumerPolicy::kHold) hold = std::min(hold, consumer.offset.value);
    const auto sure = sim.consumers.find(consumer.name);
    if (sure == sim.consumers.end()) continue;
    ++known;
    check(sure->second == consumer.offset.value, "I1 a consumer moved by itself", consumer.name);
  }
  check(known == sim.consumers.size(), "I1 a consumer is forgotten");
  return hold;
}

void check_erased(Simulation& sim, const std::vector<std::string>& secrets) {
  for (const std::string& name : sim.files.names(Simulation::kStore / "log")) {
    const std::string bytes = sim.files.content(Simulation::kStore / "log" / name);
    for (const std::string& secret : secrets)
      check(bytes.find(secret) == std::string::npos, "I15 an erased event is in a file", name);
  }
}

}  // namespace

void append_rows(Simulation& sim, const Arguments& a) {
  const std::string category = "t" + std::to_string(a[1] % 2);
  Draw draw(a[2]);
  ++sim.serial;
  std::vector<ModelEvent> events;
  Fold rows = sim.model.fold();
  // Some reach into the next segment; then all of what lies on one side may go.
  const std::size_t rows_added = 1 + a[0] % (a[0] / 64 % 4 == 3 ? 64 : 12);
  for (std::size_t i = 0; i < rows_added; ++i) {
    const std::size_t before = events.size();
    add_row(draw, rows, category, row_of(sim.serial, i, a[3] % 400), events);
    for (std::size_t added = before; added < events.size(); ++added)
      rows.apply(category, events[added].key, events[added].payload, events[added].flags);
  }
  if (sim.is_verbose)
    for (const ModelEvent& event : events)
      std::fprintf(stderr, "  %s/%s %u %.20s\n", category.c_str(), event.key.c_str(),
                   static_cast<unsigned>(event.flags), event.payload.c_str());
  append_events(sim, next_info(sim, a[1] % 3 != 0), std::move(events));
}

void set_policy(Simulation& sim, const Arguments& a) {
  const PolicyEvent event = draw_policy(a);
  append_events(sim, next_info(sim, false),
                {{.category = std::string(kPolicyCategory),
                  .key = event.key,
                  .type = "PolicySet",
                  .payload = event.payload,
                  .metadata = {}}});
}

void pass_time(Simulation& sim, const Arguments& a) {
  sim.clock.now += std::chrono::microseconds(std::chrono::seconds(1 + a[0] % 5000)).count();
}

void compact(Simulation& sim, const Arguments& a) {
  EventStore& store = sim.store();
  if (a[2] % 2 == 0 && !sim.flush()) return;
  const auto hold = held_offset(sim);
  if (!hold) return;
  const std::uint64_t end = store.durable_end().value;
  CompactionOptions options = draw_options(a);
  options.dry_run = a[2] / 2 % 16 == 1;
  if (!options.dry_run)
    sim.model.may_compact({.policies = sim.model.policies_at(end),
                           .now = sim.clock.now,
                           .end = end,
                           .hold = *hold,
                           .merges = merges(a)});
  // Who reads from 0 on is told of no loss: it gets what there is, of each segment when it comes to
  // it.
  for (ReaderSlot& slot : sim.readers)
    if (slot.reading.from == 0) slot.reading.fold.reset();
  const std::uint64_t operations = sim.files.operations();
  if (a[2] / 32 % 4 == 0 && !sim.files.is_down()) {
    sim.doom = doom_of({0, a[2] / 128, a[3], a[3]});
    sim.files.die_at(1 + a[3] / 8 % 60);
  }
  const auto report = store.maintenance().compact(options);
  if (sim.files.is_down()) hit(Probe::kDiedInCompaction);
  if (!worked(sim, report, "I9 compaction")) {
    if (report.error().code() == ErrorCode::kNoSpace) hit(Probe::kDiskFullInCompaction);
    return hit(Probe::kCompactionFailed);
  }
  count(*report);
  check(!options.dry_run || sim.files.operations() == operations, "I15 a dry run changes nothing");
  if (sim.files.is_down()) return;
  sim.files.clear_faults();  // the death that did not come
  sim.check_log("I15 the log after compaction");
}

void erase(Simulation& sim, const Arguments& a) {
  // A consumer's file that a lie has cost keeps everybody from erasing until it is removed.
  if (sim.has_ever_lied()) static_cast<void>(held_offset(sim));
  if (sim.files.is_down() || !sim.store().status()) return;
  EventStore& store = sim.store();
  const bool is_stream = a[0] % 4 == 0;
  const std::string category = is_stream ? "streams" : "t" + std::to_string(a[1] % 2);
  const std::string key = (is_stream ? "s" : "k") + std::to_string(a[2] % 5);
  std::vector<std::string> secrets;
  const std::uint64_t below = sim.model.end();
  const std::uint64_t version = sim.model.next_version(category, key);
  const EntityToErase entity{.key = key, .tombstone_type = "Erased", .tombstone_payload = "gone"};
  const auto report = store.maintenance().erase({.category = category, .entities = {&entity, 1}});
  const bool has_tombstone = store.appended_end().value == below + 1;
  if (has_tombstone) {
    secrets = sim.model.may_erase(category, key, below);
    TransactionInfo info;
    info.commit_time = {sim.clock.now};
    sim.model.add(info, {{.category = category,
                          .key = key,
                          .type = "Erased",
                          .payload = "gone",
                          .metadata = {},
                          .flags = EventFlags::kTombstone,
                          .version = version == 0 ? std::nullopt : std::optional(version)}});
  }
  // All that was appended before has been flushed with it, or by it before it failed.
  if (store.status() && store.durable_end().value == sim.model.end()) sim.flush();
  if (!worked(sim, report, "I9 erasing")) return hit(Probe::kErasingFailed);
  check(has_tombstone && report->entities.front().tombstone.value == below,
        "I2 offset of an erased one's tombstone");
  hit(Probe::kErased);
  if (sim.files.is_down() || sim.files.has_lied()) return;
  sim.model.was_erased(category, key, below);
  check_erased(sim, secrets);
  sim.check_log("I15 the log after erasing");
}

namespace {

void register_consumer(Simulation& sim, const std::string& name, std::uint64_t offset) {
  const auto policy = name == "holder" ? ConsumerPolicy::kHold : ConsumerPolicy::kLose;
  if (!worked(sim, sim.store().maintenance().register_consumer(name, Offset{offset}, policy),
              "I9 registering a consumer"))
    return;
  if (!sim.files.has_lied()) sim.consumers[name] = offset;
}

void advance_consumer(Simulation& sim, const Consumer& consumer, std::uint64_t offset) {
  const auto moved = sim.store().maintenance().advance_consumer(consumer.name, Offset{offset});
  if (!moved && moved.error().code() == ErrorCode::kGone) {
    check(!consumer.lost.empty() && sim.model.may_be_told_of_loss({.from = consumer.offset.value}),
          "I12 a consumer is told of a loss that is none", moved.error().to_string());
    return hit(Probe::kConsumerLost);
  }
  sim.consumers.erase(consumer.name);
  if (!worked(sim, moved, "I9 advancing a consumer")) return;
  if (!sim.files.has_lied()) sim.consumers[consumer.name] = offset;
  hit(Probe::kConsumerAdvanced);
}

void read_consumer(Simulation& sim, const Consumer& consumer) {
  ReaderSlot slot;
  slot.reading.from = slot.reading.next = consumer.offset.value;
  slot.reading.fold = sim.model.fold_at(consumer.offset.value);
  auto reader = open_consumer(Simulation::kStore, consumer.name, sim.files);
  if (!reader && sim.is_told_of_loss(reader.error(), slot.reading)) return;
  if (!worked(sim, reader, "I9 reading of a consumer")) return;
  slot.reader = std::move(*reader);
  while (slot.reader && sim.follow(slot)) {
  }
}

}  // namespace

void use_consumer(Simulation& sim, const Arguments& a) {
  const std::uint64_t durable = sim.store().durable_end().value;
  const std::string name = a[0] % 2 == 0 ? "holder" : "loser";
  const auto known = find_consumer(Simulation::kStore, name, sim.files);
  if (!known && known.error().code() == ErrorCode::kNotFound) {
    check(!sim.consumers.contains(name), "I1 a consumer is forgotten", name);
    return register_consumer(sim, name, a[2] % (durable + 1));
  }
  if (!known && known.error().code() == ErrorCode::kCorruption && sim.has_ever_lied())
    return remove_consumer(sim, name);
  if (!worked(sim, known, "I9 finding a consumer")) return;
  // It may have read what a power loss took back that a lie, or mode os, had called durable.
  if (known->offset.value > durable) return remove_consumer(sim, name);
  switch (a[1] % 8) {
    case 0: return remove_consumer(sim, name);
    case 1:
    case 2:
    case 3: return read_consumer(sim, *known);
    default: {
      const std::uint64_t at = known->offset.value;
      return advance_consumer(sim, *known, at + (at < durable ? a[2] % (durable - at + 1) : 0));
    }
  }
}

}  // namespace millrace::sim
