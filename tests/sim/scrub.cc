#include <algorithm>
#include <cstdlib>

#include "eventstore/log/store_files.h"
#include "eventstore/scrub_report.h"
#include "tests/sim/damage.h"
#include "tests/sim/probes.h"

// The scrubber beside everything else, where it must find nothing; and over a copy of the disk to
// which something happened, where it must find that and nothing else.

namespace millrace::sim {
namespace {

log::StorePaths paths() { return log::StorePaths(Simulation::kStore); }
constexpr std::int64_t kWeek = std::int64_t{8} * 24 * 3600 * 1'000'000;
constexpr int kStepsMax = 1000;

log::Scrubber scrubber_of(Simulation& sim, FileSystem& files, const StoreId& id) {
  return {paths(),
          {.store = id, .files = &files, .clock = &sim.scrub_clock, .bytes_per_second = 1 << 20}};
}

std::string told(const ScrubReport& report) {
  return report.faults.empty() ? "" : report.faults[0].file + ": " + report.faults[0].what;
}

/// A few steps in the store itself.
void scrub_store(Simulation& sim, const StoreId& id, const Arguments& a) {
  const auto segments = log::list_segments(sim.files, paths());
  if (!segments || segments->empty()) return;
  if (!sim.scrubber) sim.scrubber.emplace(scrubber_of(sim, sim.files, id));
  for (std::uint32_t left = 1 + a[1] % 6; left != 0 && !sim.files.is_down(); --left) {
    const auto completed = sim.scrubber->report().completed;
    sim.scrubber->step(segments->back());
    if (sim.scrubber->report().completed == completed) continue;
    hit(Probe::kScrubbed);
    sim.scrub_clock.now += kWeek;
  }
  const bool was_hit = sim.files.fault_was_hit();
  if (!sim.scrubber->report().faults.empty()) {
    check(was_hit, "I8 a scrub finds what is not there", told(sim.scrubber->report()));
    sim.scrubber.reset();  // a read that failed once is no damage: begin anew
    if (sim.files.exists(Simulation::kStore / "scrub.json").value_or(false))
      sim.files.erase(Simulation::kStore / "scrub.json");
  }
  if (was_hit && !sim.files.is_down()) sim.files.clear_faults();
}

void check_finding(const ScrubFault& fault, const Damage& damage,
                   const std::vector<std::uint64_t>& segments) {
  const auto index_of = [&](const std::string& file) {
    const std::uint64_t first = std::stoull(Path(file).filename().string().substr(0, 20));
    return std::lower_bound(segments.begin(), segments.end(), first) - segments.begin();
  };
  check(is_segment(damage.file), "I8 a scrub finds what is not there", fault.file);
  // A neighbour tells of one that is gone, or that is another one.
  check(std::abs(index_of(fault.file) - index_of(damage.file)) <= 1,
        "I8 a scrub names another file", fault.file + ": " + fault.what);
  if (damage.file.ends_with("/" + fault.file))
    check(fault.position <= damage.from, "I8 a scrub names another place",
          fault.file + " at byte " + std::to_string(fault.position));
}

/// A whole pass over a copy to which something happened; the scrubber may start anew on its way.
void scrub_damaged(Simulation& sim, const StoreId& id, const Arguments& a) {
  const auto disk = sim.files.clone();
  const auto segments = log::list_segments(*disk, paths());
  check(segments.has_value() && !segments->empty(), "I8 segments before a scrub");
  const Damage damage = inflict(sim, *disk, a);
  // As if it had not been rewritten: either generation is right.
  if (damage.is_whole_and_older && !sim.model.is_whole()) return;
  if (disk->exists(Simulation::kStore / "scrub.json").value_or(false))
    disk->erase(Simulation::kStore / "scrub.json");
  const bool restarts = a[3] % 2 == 0;
  std::optional<log::Scrubber> scrubber(scrubber_of(sim, *disk, id));
  for (int step = 0; !scrubber->report().completed && segments->back() != 0; ++step) {
    check(step < kStepsMax, "I10 a pass of a scrub ends");
    scrubber->step(segments->back());
    if (!restarts || scrubber->report().next.value == 0) continue;
    scrubber.emplace(scrubber_of(sim, *disk, id));
    scrubber->step(segments->back());
  }
  const ScrubReport& report = scrubber->report();
  const bool is_sealed = is_segment(damage.file) &&
                         !damage.file.ends_with(log::StorePaths::segment_name(segments->back()));
  if (is_sealed && damage.has_effect) {
    check(!report.faults.empty(), "I8 a scrub finds rot",
          damage.file + " from byte " + std::to_string(damage.from));
    hit(restarts ? Probe::kRotFoundAfterRestart : Probe::kRotFound);
  }
  for (const ScrubFault& fault : report.faults) check_finding(fault, damage, *segments);
}

}  // namespace

void scrub(Simulation& sim, const Arguments& a) {
  const EventStore& store = sim.store();
  if (!store.status() || sim.files.is_down()) return;
  const StoreId id = store.id();
  if (a[0] % 2 == 0)
    scrub_damaged(sim, id, {a[0] / 2, a[1], a[2], a[3]});
  else
    scrub_store(sim, id, a);
}

}  // namespace millrace::sim
