#include "tests/sim/damage.h"

#include <algorithm>

#include "eventstore/inspect.h"
#include "tests/sim/probes.h"

// What nobody's crash explains: bits that flip, blocks that go elsewhere, back or away, files that
// are cut, gone or exchanged. It happens to a copy, on which then everybody is asked: the reader
// gives a prefix or all, verify finds it, the writer opens with all that was promised or refuses.

namespace millrace::sim {
namespace {

constexpr std::size_t kSector = FaultFs::kSector;

std::string pick_file(const FaultFs& files, std::uint32_t argument) {
  std::vector<std::string> names;
  for (const auto& [name, bytes] : files.contents())
    if (!bytes.empty() && !name.ends_with(".tmp") && name.starts_with("/store/"))
      names.push_back(name);
  // The newest segment more often than others: that is where a decision is taken.
  if (argument % 3 == 0)
    for (auto name = names.rbegin(); name != names.rend(); ++name)
      if (name->ends_with(".log")) return *name;
  return names[argument / 3 % names.size()];
}

/// Where the log ends in the file, as far as it is durable: behind that nothing is claimed.
std::size_t used_bytes(FaultFs& files, const std::string& name, std::size_t size) {
  const auto summary = summarize_store(Simulation::kStore, files);
  if (!summary) return size;
  for (const SegmentSummary& segment : summary->segments)
    if (name.ends_with(segment.file)) return std::min<std::size_t>(segment.used_bytes, size);
  return size;
}

}  // namespace

Damage inflict(Simulation& sim, FaultFs& files, const Arguments& a) {
  Damage damage{.file = pick_file(files, a[0])};
  const std::string before = files.content(damage.file);
  const std::size_t used = used_bytes(files, damage.file, before.size());
  std::string bytes = before;
  const std::size_t at = a[2] % std::max<std::size_t>(used, 1);
  const std::size_t sector = at / kSector * kSector;
  const std::size_t in_sector = std::min(kSector, bytes.size() - sector);
  switch (a[1] % 9) {
    case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << a[3] % 8)); break;
    case 1: bytes.replace(sector, in_sector, in_sector, '\0'); break;
    case 2: bytes[at] = static_cast<char>(a[3] % 2 == 0 ? 0 : 0xff); break;
    case 3:
      for (std::size_t i = 0; i < in_sector; ++i)
        bytes[sector + i] = static_cast<char>((a[3] + i) * 2654435761u >> 13);
      break;
    case 4: {  // a block that was meant for another place
      const std::size_t from = a[3] % bytes.size() / kSector * kSector;
      const std::string block = bytes.substr(from, in_sector);
      bytes.replace(sector, block.size(), block);
      break;
    }
    case 5: bytes.resize(at); break;
    case 6: damage.is_missing = true; break;
    case 7: {  // lost writes: a block, or all of the file, as it once was
      if (!sim.older) break;
      const auto contents = sim.older->contents();
      const auto found = contents.find(damage.file);
      if (found == contents.end()) break;
      damage.is_older = true;
      if (a[3] % 2 == 0) {
        bytes = found->second;
        damage.is_whole_and_older = true;
      } else if (sector < found->second.size())
        bytes.replace(sector, std::min(in_sector, found->second.size() - sector),
                      found->second.substr(sector, in_sector));
      break;
    }
    case 8: {  // another file's content under this name
      bytes = files.content(pick_file(files, a[3]));
      break;
    }
  }
  const auto differs = std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end());
  damage.from = static_cast<std::size_t>(differs.first - before.begin());
  if (damage.is_missing) {
    files.erase(damage.file);
    damage.from = 0;
  } else {
    files.set_content(damage.file, bytes);
  }
  damage.has_effect =
      damage.is_missing || bytes.substr(0, used) != before.substr(0, std::min(used, before.size()));
  // As if it had not been rewritten: either generation is right.
  if (damage.is_whole_and_older && !sim.model.is_whole()) damage.has_effect = false;
  return damage;
}

namespace {

/// An index that is damaged costs time, never an event.
void examine_index(Simulation& sim, FaultFs& files, std::uint64_t durable) {
  for (const std::string category : {"c0", "c1", "c2"}) {
    ReaderSlot slot{.reader = nullptr, .reading = {.categories = {category}, .fold = {}}};
    auto reader = LogReader::open(Simulation::kStore,
                                  {.from = {}, .categories = {category}, .files = &files});
    check(reader.has_value(), "I8 damaged index", reader ? "" : reader.error().to_string());
    slot.reader = std::move(*reader);
    while (sim.follow(slot)) {
    }
    check(slot.reading.next >= durable, "I8 damaged index");
  }
  hit(Probe::kIndexDamaged);
}

void examine(Simulation& sim, FaultFs& files, const Damage& damage, std::uint64_t durable) {
  const Scan found =
      sim.scan(files, Simulation::Look::kDamaged);  // throws if a wrong event is served
  if (found.error)
    hit(Probe::kDamageServedNothing);
  else if (!damage.has_effect)
    hit(Probe::kDamageWithoutEffect);
  bool is_newest = is_segment(damage.file);
  for (const std::string& name : files.names(Simulation::kStore / "log"))
    if (is_segment(name) && name > Path(damage.file).filename().string()) is_newest = false;
  if (is_segment(damage.file) && damage.has_effect) {
    // Of a batch without events nobody reads more than its header.
    check(found.error || found.end == durable, "I8 reader gives all or an error", damage.file);
    const auto report = verify_store(Simulation::kStore, {}, files);
    check(!report || !report->faults.empty(), "I8 verify finds damage", damage.file);
  } else if (damage.file.ends_with("/HEAD")) {  // an older one is believed: a prefix
    check(found.error || found.ends_whole, "I8 reader ends in a transaction");
  } else if (!is_segment(damage.file)) {
    check(found.error || found.end == durable, "I8 reader gives all or an error", damage.file);
  }
  if (damage.file.ends_with(".index")) examine_index(sim, files, durable);
  if (damage.is_missing) hit(Probe::kMissingFile);
  StoreOptions options = sim.options;
  options.files = &files;
  const auto opened = EventStore::open(Simulation::kStore, options);
  if (!opened) {
    const ErrorCode code = opened.error().code();
    check(code == ErrorCode::kCorruption || code == ErrorCode::kUnsupported ||
              code == ErrorCode::kFailedPrecondition,
          "I8 opening a damaged store", opened.error().to_string());
    hit(Probe::kDamageRefused);
    return;
  }
  check((*opened)->durable_end().value >= durable, "I8 opening cuts off what was durable",
        damage.file + " " + std::to_string((*opened)->durable_end().value));
  check(!is_newest || !damage.has_effect, "I8 opening accepts a damaged segment", damage.file);
}

}  // namespace

void damage_a_file(Simulation& sim, const Arguments& arguments) {
  EventStore& store = sim.store();
  if (!store.status() || sim.files.is_down()) return;
  // What was not synced may be gone without anybody's knowing.
  if (sim.options.durability == Durability::kOs) return;
  const std::uint64_t durable = store.durable_end().value;
  const auto copy = sim.files.clone();
  const Damage damage = inflict(sim, *copy, arguments);
  if (sim.is_verbose) std::fprintf(stderr, "  damage to %s\n", damage.file.c_str());
  examine(sim, *copy, damage, durable);
  if (arguments[3] % 4 == 0 || !sim.older) sim.older = sim.files.clone();
}

/// F37: cp -a beside a writer, opened on another machine.
void copy_while_running(Simulation& sim, const Arguments&) {
  EventStore& store = sim.store();
  if (!store.status()) return;
  const auto copy = sim.files.clone();
  copy->lose_power();
  StoreOptions options = sim.options;
  options.files = copy.get();
  const auto opened = EventStore::open(Simulation::kStore, options);
  check(opened.has_value(), "I5 a copy opens", opened ? "" : opened.error().to_string());
  check((*opened)->durable_end() == store.durable_end(), "I5 a copy ends where the store does");
  const Scan found = sim.scan(*copy);
  check(!found.error && found.end == store.durable_end().value, "I5 a copy holds everything");
  hit(Probe::kHotCopyOpened);
}

}  // namespace millrace::sim
