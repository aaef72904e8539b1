#include "eventstore/repair.h"

#include <algorithm>

#include "eventstore/consumers.h"
#include "eventstore/inspect.h"
#include "eventstore/log/format.h"
#include "tests/sim/damage.h"
#include "tests/sim/probes.h"

// A repair of a damaged copy of the store, perhaps interrupted. What it says that it loses is what
// is lost, as the model and the undamaged log know it; everything before is served, nothing behind,
// and no offset is given twice.

namespace millrace::sim {
namespace {

/// A batch of the log before anything happened to it.
struct Place {
  std::uint64_t segment = 0, position = 0, first = 0, count = 0;
  std::uint64_t whole_before = 0;  ///< End of the last whole transaction before it.
};

std::vector<Place> places_in(const Simulation& sim, FaultFs& files) {
  std::vector<Place> places;
  const auto reader = LogReader::open(Simulation::kStore, {.from = {}, .files = &files});
  check(reader.has_value(), "I8 reader before a repair", reader ? "" : reader.error().to_string());
  std::uint64_t whole = 0;
  for (;;) {
    const auto batch = (*reader)->next();
    check(batch.has_value(), "I8 reader before a repair", batch ? "" : batch.error().to_string());
    if (*batch == nullptr) return places;
    const Batch& given = **batch;
    places.push_back({given.segment, given.position, given.first.value, given.count, whole});
    Reading reading{.next = given.first.value, .fold = {}};
    sim.model.check_batch(**batch, reading);
    if (given.last_of_transaction) whole = reading.next;
  }
}

std::uint64_t segment_of(const std::string& file) {
  return std::stoull(Path(file).filename().string().substr(0, 20));
}

/// Below this nothing was touched.
std::uint64_t sound_until(const Damage& damage, const std::vector<Place>& places) {
  const std::uint64_t segment = segment_of(damage.file);
  // Of an older file the generation may be another.
  const std::uint64_t from = damage.is_whole_and_older ? 0 : damage.from;
  std::uint64_t sound = 0;
  for (const Place& place : places)
    if (place.segment < segment || (place.segment == segment && place.position <= from))
      sound = std::max(sound, place.whole_before);
  return sound;
}

void check_refusal(const Error& error, const Damage& damage, const std::vector<Place>& places) {
  const ErrorCode code = error.code();
  if (is_segment(damage.file)) {
    check(code == ErrorCode::kFailedPrecondition || code == ErrorCode::kCorruption,
          "I8 a repair is refused", error.to_string());
    check(sound_until(damage, places) == 0, "I8 a repair of what is sound in front is refused",
          error.to_string());
  } else {  // of store.json a newer version, or one that names nobody
    check(damage.file.ends_with("/store.json"), "I8 a repair is refused", error.to_string());
  }
  hit(Probe::kRepairRefused);
}

/// That the plan says neither more nor less than what is lost.
void check_plan(const Simulation& sim, FaultFs& files, const RepairPlan& plan, const Damage& damage,
                const std::vector<Place>& places, std::uint64_t durable) {
  check(plan.lost_end.value >= durable, "I2 a repair gives no offset twice",
        std::to_string(plan.lost_end.value));
  if (!is_segment(damage.file) || !damage.has_effect) {
    // An older file of the same name may be of another generation, or have ended elsewhere.
    const bool may_lose = is_segment(damage.file) && damage.is_older;
    check(may_lose || plan.end == plan.lost_end, "I1 a repair loses what nothing happened to",
          damage.file + " " + std::to_string(plan.end.value));
    return;
  }
  check(plan.is_needed(), "I8 a repair sees damage", damage.file);
  const std::uint64_t sound = sound_until(damage, places), end = plan.end.value;
  check(end >= sound || sim.model.may_all_be_gone(end, sound),
        "I1 a repair loses what nothing happened to",
        "it ends at " + std::to_string(end) + ", sound is all before " + std::to_string(sound));
  if (plan.end == plan.lost_end) return;  // batches without events
  std::uint64_t last = std::max({sim.model.end(), durable, end + 1});
  if (const auto consumers = list_consumers(Simulation::kStore, files))
    for (const Consumer& consumer : *consumers) last = std::max(last, consumer.offset.value);
  check(plan.lost_end.value <= last, "I8 a repair loses what there never was");
  std::uint64_t elsewhere = 0, all = 0;
  for (const Place& place : places) {
    if (place.first < end) continue;
    all += place.count;
    if (place.segment != segment_of(damage.file)) elsewhere += place.count;
  }
  check(damage.is_older || (plan.lost_events >= elsewhere && plan.lost_events <= all),
        "I8 a repair tells how many events are lost",
        std::to_string(plan.lost_events) + " of " + std::to_string(elsewhere) + " to " +
            std::to_string(all));
}

/// To its end, through as many deaths as the arguments say.
Repair mend(FaultFs& files, SimClock& clock, const Arguments& a, const RepairPlan& plan) {
  std::uint32_t dice = a[2] ^ a[3];
  for (unsigned deaths = a[3] % 4;; --deaths) {
    dice = dice * 1664525 + 1013904223;
    if (deaths != 0) files.die_at(1 + (dice >> 8) % 40);
    auto repaired = repair_store(Simulation::kStore, files, clock);
    if (!files.is_down()) {
      files.clear_faults();
      check(repaired.has_value(), "I10 a repair", repaired ? "" : repaired.error().to_string());
      return *std::move(repaired);
    }
    hit(Probe::kRepairInterrupted);
    if (dice % 3 == 0)
      files.kill_processes();
    else  // no policy that damages what was synced, or what nobody wrote
      files.lose_power(static_cast<CrashPolicy>((dice >> 4) % 7), dice);
    const auto rest = plan_repair(Simulation::kStore, files);
    check(rest.has_value(), "I9 a repair goes on", rest ? "" : rest.error().to_string());
    check((rest->end == plan.end || rest->end == plan.lost_end) && rest->lost_end == plan.lost_end,
          "I9 a repair goes on as it began", to_json(plan) + ", then " + to_json(*rest));
    if (rest->interrupted) {
      StoreOptions options;
      options.files = &files;
      check(!EventStore::open(Simulation::kStore, options),
            "I9 nobody writes to a store that is half repaired");
    }
  }
}

/// Everything before the plan's end and nothing behind it, but one event at its lost end.
void check_served(const Simulation& sim, FaultFs& files, const RepairPlan& plan) {
  const auto reader = LogReader::open(Simulation::kStore, {.from = {}, .files = &files});
  check(reader.has_value(), "I8 reader after a repair", reader ? "" : reader.error().to_string());
  Reading reading{.fold = {}};
  std::uint64_t added = 0;
  for (;;) {
    const auto batch = (*reader)->next();
    check(batch.has_value(), "I8 reader after a repair", batch ? "" : batch.error().to_string());
    if (*batch == nullptr) break;
    if ((*batch)->first >= plan.lost_end) {
      check((*batch)->first == plan.lost_end && (*batch)->count == 1,
            "I2 a repaired log goes on behind what was lost");
      ++added;
      continue;
    }
    sim.model.check_batch(**batch, reading);
    check(reading.next <= plan.end.value, "I8 a repair says what is lost",
          "offset " + std::to_string(reading.next) + " is served");
  }
  check(added == 1, "I1 what follows a repair is there");
  sim.model.check_end(std::min(plan.end.value, sim.model.end()), reading);
}

/// Who resumes among what is lost, or before it, is told so.
void check_told(FaultFs& files, const RepairPlan& plan) {
  const auto error_from = [&](std::uint64_t from) -> std::optional<Error> {
    const auto reader = LogReader::open(Simulation::kStore, {.from = {from}, .files = &files});
    if (!reader) return reader.error();
    for (;;) {
      const auto batch = (*reader)->next();
      if (!batch) return batch.error();
      if (*batch == nullptr) return std::nullopt;
    }
  };
  for (const std::uint64_t from : {plan.end.value, plan.lost_end.value - 1}) {
    if (from == 0) continue;
    const auto error = error_from(from);
    check(error && error->code() == ErrorCode::kGone, "I12 who resumes among what is lost is told",
          std::to_string(from));
  }
  check(!error_from(plan.lost_end.value), "I12 nobody else is told of a loss");
}

void append_behind(const Simulation& sim, FaultFs& files, const RepairPlan& plan) {
  StoreOptions options = sim.options;
  options.files = &files;
  const auto opened = EventStore::open(Simulation::kStore, options);
  check(opened.has_value(), "I10 a repaired store opens", opened ? "" : opened.error().to_string());
  EventStore& store = **opened;
  check(store.durable_end() == plan.lost_end, "I2 a repair gives no offset twice");
  check(store.durable_source() == plan.source, "I8 a repair says where the source goes on");
  const NewEvent event{.category = "last", .key = "k", .type = "", .payload = "p", .metadata = ""};
  check(store.append({.source = {}, .commit_time = {sim.clock.now}}, {&event, 1}).has_value(),
        "I10 a repaired store is written");
  store.request_flush();
  const auto durable = store.wait_durable(store.appended_end(), 0, std::chrono::minutes(1));
  check(durable && *durable, "I10 a repaired store is written");
}

}  // namespace

void repair_damage(Simulation& sim, const Arguments& a) {
  EventStore& store = sim.store();
  if (!store.status() || sim.files.is_down()) return;
  // What was not synced may be gone without anybody's knowing.
  if (sim.options.durability == Durability::kOs) return;
  const std::uint64_t durable = store.durable_end().value;
  const auto disk = sim.files.clone();
  const std::vector<Place> places = places_in(sim, *disk);
  const Damage damage = inflict(sim, *disk, a);
  if (sim.is_verbose)
    std::fprintf(stderr, "  damage to %s from byte %zu on\n", damage.file.c_str(), damage.from);
  const auto before = disk->contents();
  const auto plan = plan_repair(Simulation::kStore, *disk);
  check(disk->contents() == before, "I9 a plan changes nothing");
  if (!plan) return check_refusal(plan.error(), damage, places);
  check_plan(sim, *disk, *plan, damage, places, durable);
  const Repair repair = mend(*disk, sim.clock, a, *plan);
  if (!plan->is_needed()) hit(Probe::kRepairNotNeeded);
  if (!repair.kept.empty()) hit(Probe::kRepaired);
  const auto again = plan_repair(Simulation::kStore, *disk);
  check(again && !again->is_needed(), "I9 a repaired store needs no repair");
  append_behind(sim, *disk, *plan);
  check_served(sim, *disk, *plan);
  if (plan->lost_end != plan->end) check_told(*disk, *plan);
  const auto report = verify_store(Simulation::kStore, {}, *disk);
  check(report && report->faults.empty(), "I8 a repaired store is sound",
        !report                  ? report.error().to_string()
        : report->faults.empty() ? ""
                                 : report->faults[0].file + ": " + report->faults[0].kind);
}

}  // namespace millrace::sim
