#include <algorithm>

#include "tests/sim/probes.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {
namespace {

template <typename T, std::size_t N>
const T& pick(const std::array<T, N>& from, std::uint32_t argument) {
  return from[argument % N];
}

// --- transactions
// --------------------------------------------------------------------------------

std::vector<ModelEvent> make_events(std::uint64_t serial, std::size_t count, std::size_t bytes,
                                    std::uint32_t style) {
  std::vector<ModelEvent> events(count);
  for (std::size_t i = 0; i < count; ++i) {
    ModelEvent& event = events[i];
    event.category = "c" + std::to_string((style + i / 3) % 3);
    event.key = std::to_string(serial % 7) + "/" + std::to_string(i);
    event.payload.resize(bytes);
    std::uint64_t state = serial * 1000 + i;
    // Some of it compresses, some does not; zeros look like what was never written.
    for (char& byte : event.payload) {
      state = state * 6364136223846793005 + 1442695040888963407;
      byte = style % 3 == 0   ? static_cast<char>(state >> 56)
             : style % 3 == 1 ? static_cast<char>('a' + serial % 26)
                              : static_cast<char>((state >> 60) == 0 ? 1 : 0);
    }
    if (i % 4 == 1) event.type = "Type" + std::to_string(i % 5);
    if (i % 5 == 2) event.metadata = "meta" + std::to_string(i);
    if (i % 7 == 3) event.flags = EventFlags::kTombstone;
  }
  return events;
}

void append_captured(Simulation& sim, const Arguments& a) {
  append_events(sim, next_info(sim, true), make_events(++sim.serial, a[0] % 8, a[1] % 300, a[2]));
}

void append_own(Simulation& sim, const Arguments& a) {
  append_events(sim, next_info(sim, false),
                make_events(++sim.serial, 1 + a[0] % 5, a[1] % 300, a[2]));
}

void append_durable(Simulation& sim, const Arguments& a) {
  append_captured(sim, a);
  if (sim.is_open() && sim.store().status()) sim.flush();
}

std::vector<ModelEvent> make_large(Simulation& sim, const Arguments& a) {
  // Many small events, or one of several segments' size.
  if (a[0] % 8 == 7) return make_events(++sim.serial, 1 + a[1] % 2, a[2] % 40'000, a[3]);
  return make_events(++sim.serial, 20 + a[1] % 200, a[2] % 250, a[3]);
}

void append_large(Simulation& sim, const Arguments& a) {
  append_events(sim, next_info(sim, a[0] % 4 != 0), make_large(sim, a));
}

void roll_back_events(Simulation& sim, const TransactionInfo& info,
                      const std::vector<ModelEvent>& events) {
  const std::uint64_t before = sim.files.operations();
  if (begin(sim, info, bytes_of(events)) && add(sim, events))
    roll_back(sim, events, sim.files.operations() != before);
}

void roll_back_small(Simulation& sim, const Arguments& a) {
  roll_back_events(sim, next_info(sim, a[0] % 2 == 0),
                   make_events(++sim.serial, a[0] % 8, a[1] % 300, a[2]));
}

void roll_back_large(Simulation& sim, const Arguments& a) {
  roll_back_events(sim, next_info(sim, true), make_large(sim, a));
}

void change_epoch(Simulation& sim, const Arguments& a) {
  ++sim.epoch;
  sim.next_commit = 1 + a[0] % 100;
  hit(Probe::kEpochChanged);
}

void flush(Simulation& sim, const Arguments&) { sim.flush(); }

// --- opening and closing
// -------------------------------------------------------------------------

void set_options(Simulation& sim, const Arguments& a) {
  sim.options.segment_bytes = pick(
      std::array<std::uint64_t, 6>{16 << 10, 8 << 10, 8 << 10, 12 << 10, 32 << 10, 64 << 10}, a[0]);
  sim.options.pending_bytes_max = pick(
      std::array<std::size_t, 6>{16 << 10, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 64 << 10}, a[1]);
  sim.options.compression = a[2] % 2 == 0 ? Compression::kNone : Compression::kZstd;
  sim.options.durability =
      pick(std::array{Durability::kGroup, Durability::kGroup, Durability::kAlways, Durability::kOs},
           a[3]);
  // There each piece of a transaction is flushed while the appender makes the next one.
  if (sim.options.durability == Durability::kAlways) sim.options.pending_bytes_max = 1 << 20;
}

void change_options(Simulation& sim, const Arguments& a) {
  sim.close();
  set_options(sim, a);
  hit(Probe::kOptionsChanged);
}

void close(Simulation& sim, const Arguments&) { sim.close(); }

void restart(Simulation& sim, const Arguments&) {
  sim.close();
  if (!sim.files.is_down()) sim.open();
}

void open_second(Simulation& sim, const Arguments&) {
  sim.store();
  const ErrorCode code = EventStore::open(Simulation::kStore, sim.options).error().code();
  if (code == ErrorCode::kIo && sim.files.fault_was_hit()) return sim.files.clear_faults();
  check(code == ErrorCode::kLocked, "I16 a second writer is refused");
  hit(Probe::kSecondWriterRefused);
}

void maintain(Simulation& sim, const Arguments&) {
  const auto done = sim.store().run_maintenance();
  if (done) return hit(Probe::kIndexed);
  check(sim.files.fault_was_hit(), "I9 maintenance", done.error().to_string());
  hit(Probe::kMaintenanceFailed);
  if (!sim.files.is_down()) sim.files.clear_faults();
}

// --- reading
// -------------------------------------------------------------------------------------

void open_reader(Simulation& sim, const Arguments& a) {
  const std::uint64_t durable = sim.store().durable_end().value;
  ReaderSlot& slot = sim.readers[a[0] % Simulation::kReaders];
  slot = {};
  Reading& reading = slot.reading;
  reading.from = reading.next = a[1] % 2 == 0 ? 0 : a[1] % (sim.model.end() + 3);
  const auto category = [](std::uint32_t number) {
    return (number % 8 < 4 ? "c" : "t") + std::to_string(number % 4);
  };
  if (a[2] % 3 == 1) reading.categories = {category(a[3])};
  if (a[2] % 6 == 1) reading.categories.push_back(category(a[3] / 8));
  reading.fold.reset();
  if (reading.categories.empty() && reading.from <= durable)
    reading.fold = sim.model.fold_at(reading.from);
  auto reader = LogReader::open(
      Simulation::kStore,
      {.from = {reading.from}, .categories = reading.categories, .files = &sim.files});
  if (reader) {
    slot.reader = std::move(*reader);
    return;
  }
  if (!sim.is_told_of_loss(reader.error(), reading)) {
    check(reader.error().code() == ErrorCode::kIo && sim.files.fault_was_hit(), "I8 reader opens",
          reader.error().to_string());
    hit(Probe::kReadFailed);
    sim.files.clear_faults();
  }
  slot = {};
}

void read(Simulation& sim, const Arguments& a) {
  ReaderSlot& slot = sim.readers[a[0] % Simulation::kReaders];
  if (!slot.reader) return open_reader(sim, a);
  for (std::uint32_t left = 1 + a[1] % 20; left != 0 && sim.follow(slot); --left) {
  }
}

// --- crashes and faults
// --------------------------------------------------------------------------

void crash(Simulation& sim, const Arguments& a) {
  sim.doom = doom_of(a);
  if (a[0] % 2 == 1) {
    sim.recovery_deaths = 1 + a[0] / 2 % 3;
    sim.recovery_seed = a[3];
  }
  for (const ReaderSlot& slot : sim.readers)
    if (slot.reader && !sim.doom.power) hit(Probe::kReaderSurvivedWriter);
  sim.crash(sim.doom);
  sim.open();
}

void die_soon(Simulation& sim, const Arguments& a) {
  sim.doom = doom_of(a);
  sim.files.die_at(1 + a[0] % 30);
}

void fail_soon(Simulation& sim, const Arguments& a) {
  sim.doom = doom_of(a);
  sim.files.fail_at(1 + a[0] % 15, a[1] % 2 == 0 ? ErrorCode::kIo : ErrorCode::kNoSpace);
}

void fail_sync_soon(Simulation& sim, const Arguments& a) {
  using test::SyncFailure;
  constexpr std::array kinds{SyncFailure::kNewStays, SyncFailure::kOldReturns, SyncFailure::kLate,
                             SyncFailure::kLie};
  constexpr std::array probes{Probe::kSyncFailed, Probe::kOldContentAfterFailedSync,
                              Probe::kSyncLied, Probe::kSyncLied};
  sim.doom = doom_of(a);
  sim.files.fail_sync_at(1 + a[0] % 4, kinds[a[0] / 4 % 4]);
  hit(probes[a[0] / 4 % 4]);
}

void fail_read_soon(Simulation& sim, const Arguments& a) { sim.files.fail_read_at(1 + a[0] % 20); }

void fill_disk(Simulation& sim, const Arguments& a) { sim.files.set_space_left(a[0] % 60'000); }

void free_disk(Simulation& sim, const Arguments&) { sim.files.set_space_left(std::nullopt); }

constexpr Operation kOperations[] = {
    {"append", 40, Operation::kAlways, append_captured},
    {"append_own", 15, Operation::kOften, append_own},
    {"append_durable", 25, Operation::kAlways, append_durable},
    {"append_large", 12, Operation::kOften, append_large},
    {"roll_back", 6, Operation::kOften, roll_back_small},
    {"roll_back_large", 6, Operation::kOften, roll_back_large},
    {"epoch", 2, Operation::kOften, change_epoch},
    {"flush", 20, Operation::kAlways, flush},
    {"options", 3, Operation::kOften, change_options},
    {"close", 3, Operation::kOften, close},
    {"restart", 5, Operation::kOften, restart},
    {"second_writer", 2, Operation::kOften, open_second},
    {"open_reader", 8, Operation::kOften, open_reader},
    {"read", 25, Operation::kOften, read},
    {"crash", 10, Operation::kAlways, crash},
    {"die_soon", 10, Operation::kOften, die_soon},
    {"fail_soon", 6, Operation::kOften, fail_soon},
    {"fail_sync_soon", 6, Operation::kOften, fail_sync_soon},
    {"fail_read_soon", 4, Operation::kOften, fail_read_soon},
    {"fill_disk", 3, Operation::kOften, fill_disk},
    {"free_disk", 3, Operation::kOften, free_disk},
    {"damage", 3, Operation::kOften, damage_a_file},
    {"copy", 2, Operation::kOften, copy_while_running},
    {"maintain", 6, Operation::kOften, maintain},
    {"append_streams", 15, Operation::kOften, append_to_streams},
    {"append_rows", 40, Operation::kOften, append_rows},
    {"policy", 10, Operation::kWithLast, set_policy},
    {"compact", 20, Operation::kWithLast, compact},
    {"time", 6, Operation::kWithLast, pass_time},
    {"consumer", 8, Operation::kOften, use_consumer},
    {"erase", 4, Operation::kOften, erase},
    {"snapshot", 4, Operation::kOften, take_snapshot},
    {"restore", 4, Operation::kWithLast, restore_snapshot},
    {"repair", 3, Operation::kOften, repair_damage},
    {"scrub", 4, Operation::kOften, scrub},
    {"append_versioned", 20, Operation::kOften, append_versioned},
};

}  // namespace

TransactionInfo next_info(Simulation& sim, bool captured) {
  TransactionInfo info;
  info.commit_time = {sim.clock.now};
  if (!captured) return info;
  info.source = {.epoch = sim.epoch, .commit = sim.next_commit, .end = sim.next_commit + 5};
  info.source_xid = static_cast<std::uint32_t>(sim.next_commit);
  info.snapshot = sim.next_commit % 11 == 0;
  sim.next_commit += 10;
  return info;
}

std::size_t bytes_of(const std::vector<ModelEvent>& events) {
  std::size_t bytes = 256;
  for (const ModelEvent& event : events)
    bytes += event.payload.size() + event.key.size() + event.metadata.size() + 16;
  return bytes;
}

/// What does not fit beside what is pending goes to a flush of its own, so that the appender and
/// the flusher never work at once.
bool begin(Simulation& sim, const TransactionInfo& info, std::size_t bytes) {
  EventStore& store = sim.store();
  if (sim.unflushed_bytes + bytes > sim.options.pending_bytes_max && sim.unflushed_bytes != 0 &&
      !sim.flush())
    return false;
  TransactionInfo begun = info;
  begun.source.end = 0;
  return store.begin(begun).has_value();
}

bool add(Simulation& sim, const std::vector<ModelEvent>& events) {
  EventStore& store = sim.store();
  for (const ModelEvent& event : events) {
    const auto added = store.add(event.view());
    if (added) continue;
    if (!store.status()) return false;
    check(event.version && sim.files.fault_was_hit(), "I9 add", added.error().to_string());
    hit(Probe::kVersionNotReadable);
    if (store.rollback() && !sim.files.is_down()) sim.files.clear_faults();  // it could not read
    return false;
  }
  return true;
}

void commit(Simulation& sim, const TransactionInfo& info, std::vector<ModelEvent> events) {
  const std::size_t bytes = bytes_of(events);
  const bool alone = bytes > sim.options.pending_bytes_max || sim.flushes_always();
  if (bytes > sim.options.pending_bytes_max / 2) hit(Probe::kSpilled);
  const auto end = sim.store().commit(info.source.end);
  if (!end) return;
  const std::uint64_t first = sim.model.end();
  sim.model.add(info, std::move(events));
  check(end->value == sim.model.end(), "I2 commit gives the offset after the last event");
  sim.unflushed_bytes += bytes;
  if (!alone || !sim.flush()) return;
  for (const std::string& name : sim.files.names(Simulation::kStore / "log")) {
    if (!name.ends_with(".log")) continue;
    const std::uint64_t segment = std::stoull(name.substr(0, 20));
    if (segment > first && segment < sim.model.end()) hit(Probe::kRolledInTransaction);
    if (segment != 0) hit(Probe::kSegmentRolled);
  }
}

void roll_back(Simulation& sim, const std::vector<ModelEvent>& events, bool was_written) {
  if (!sim.store().rollback()) return;
  check(sim.store().appended_end().value == sim.model.end(), "I3 rollback takes everything back");
  const std::size_t bytes = bytes_of(events);
  const bool on_disk = bytes > sim.options.pending_bytes_max && was_written;
  hit(on_disk ? Probe::kRewound : Probe::kRolledBack);
  if (on_disk && bytes > 3 * sim.options.segment_bytes) hit(Probe::kRewoundSegments);
}

void append_events(Simulation& sim, const TransactionInfo& info, std::vector<ModelEvent> events) {
  const std::uint64_t before = sim.files.operations();
  const std::size_t bytes = bytes_of(events);
  if (!begin(sim, info, bytes) || !add(sim, events)) return;
  const bool alone = bytes > sim.options.pending_bytes_max || sim.flushes_always();
  if (alone && sim.files.operations() != before) hit(Probe::kAppenderBlocked);
  commit(sim, info, std::move(events));
}

Doom doom_of(const Arguments& a) {
  return {.power = a[1] % 3 != 0,
          .policy = static_cast<CrashPolicy>(a[2] % test::kCrashPolicies),
          .seed = a[3]};
}

std::span<const Operation> operations() { return kOperations; }

}  // namespace millrace::sim
