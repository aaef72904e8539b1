#include "eventstore/store_snapshot.h"
#include "tests/sim/probes.h"
#include "tests/sim/simulation.h"

// Snapshots of the whole store and what is restored from them. The snapshot lies beside the store
// and outlives crashes, compaction and erasing, for its files are links; what is restored lies in a
// copy of the disk, without faults.

namespace millrace::sim {
namespace {

const Path kRestored = "/restored";

void check_same(const Scan& found, const Copy& copy, const char* checker) {
  check(!found.error, checker, found.error ? found.error->to_string() : "");
  check(found.end == copy.end && found.hash == copy.hash, checker,
        "it ends at " + std::to_string(found.end) + " and not at " + std::to_string(copy.end));
}

}  // namespace

void take_snapshot(Simulation& sim, const Arguments& a) {
  EventStore& store = sim.store();
  sim.files.erase_tree(Simulation::kCopy);
  sim.copy.reset();
  if (a[0] % 2 == 0 && !sim.flush()) return;
  const Scan now = sim.scan(sim.files);
  if (now.error) {
    check(sim.files.fault_was_hit(), "I8 reader before a snapshot", now.error->to_string());
    return sim.files.clear_faults();
  }
  sim.copy = {.end = now.end, .hash = now.hash};
  if (a[1] % 4 == 0 && !sim.files.is_down()) {
    sim.doom = doom_of({0, a[2], a[3], a[3]});
    sim.files.die_at(1 + a[1] / 4 % 40);
  }
  const auto report = store.maintenance().snapshot(Simulation::kCopy);
  const bool was_hit = sim.files.fault_was_hit();
  if (!report) {
    check(was_hit && (report.error().code() == ErrorCode::kIo ||
                      report.error().code() == ErrorCode::kNoSpace),
          "I9 snapshot", report.error().to_string());
    hit(Probe::kSnapshotFailed);
    if (sim.files.is_down()) return;
    return sim.files.clear_faults();
  }
  check(report->end.value == now.end, "I14 a snapshot ends where the store does");
  if (sim.files.is_down()) return;
  sim.files.clear_faults();
  sim.copy->is_finished = true;
  if (sim.files.has_lied() || sim.has_ever_lied()) sim.copy.reset();  // an index may be damaged
  hit(report->linked != 0 ? Probe::kSnapshotLinked : Probe::kSnapshotTaken);
  check_same(sim.scan(sim.files, Simulation::Look::kCopy, Simulation::kCopy),
             {.end = now.end, .hash = now.hash}, "I14 a snapshot holds what the store did");
}

void restore_snapshot(Simulation& sim, const Arguments& a) {
  if (!sim.copy) return;
  const auto disk = sim.files.clone();
  const auto report = restore_store(Simulation::kCopy, kRestored, *disk);
  if (!report) {
    check(!sim.copy->is_finished, "I14 a snapshot restores", report.error().to_string());
    const ErrorCode code = report.error().code();
    check(code == ErrorCode::kNotFound || code == ErrorCode::kCorruption ||
              code == ErrorCode::kFailedPrecondition,
          "I14 an unfinished snapshot", report.error().to_string());
    return hit(Probe::kUnfinishedSnapshotRefused);
  }
  disk->lose_power(CrashPolicy::kNothing, a[0]);
  check_same(sim.scan(*disk, Simulation::Look::kCopy, kRestored), *sim.copy,
             "I14 what is restored is the snapshot");
  StoreOptions options = sim.options;
  options.files = disk.get();
  const auto opened = EventStore::open(kRestored, options);
  check(opened.has_value(), "I14 what is restored opens", opened ? "" : opened.error().to_string());
  check((*opened)->durable_end().value == sim.copy->end, "I14 what is restored opens");
  hit(Probe::kSnapshotRestored);
}

}  // namespace millrace::sim
