#include <algorithm>
#include <set>

#include "tests/support/fault_fs.h"

// What is left of a FaultFs when its processes die or the machine does.
//
// The page cache writes pages when it likes and in the order it likes; a disk writes sectors whole.
// So of each sector any state that it had since the last sync may be on the disk. Sizes and names
// go through a journal in most file systems, so they usually are those of one moment; kReordered
// drops even that. A cut is one step: what lay behind it is there or is not.

namespace millrace::test {

struct FaultFs::Crash {
  Crash(CrashPolicy how, std::uint64_t seed, std::uint64_t sequence)
      : policy(how), random(seed), moment(1 + below(sequence + 1)) {}

  std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : random() % limit; }
  bool coin() { return (random() >> 32) % 2 == 0; }

  /// How many of a file's changes count for its size.
  std::size_t changes_kept(const std::vector<Change>& changes);
  /// Whether a sector keeps what change number `i` did to it.
  bool keeps(const std::vector<Change>& changes, std::size_t i, std::size_t sector);
  std::string file_after(const Node& node);
  void damage(std::string& after, const Node& node, const std::string& other);

  CrashPolicy policy;
  std::mt19937_64 random;
  std::uint64_t moment;                     // kPrefix: changes from here on are lost
  std::map<std::size_t, std::size_t> kept;  // kSectors: by sector, how many changes
  bool alone = false;                       // kReordered: this file keeps all, or nothing
  bool damage_done = false;                 // kGarbage: one sector is enough
};

std::size_t FaultFs::Crash::changes_kept(const std::vector<Change>& changes) {
  switch (policy) {
    case CrashPolicy::kNothing: return 0;
    case CrashPolicy::kEverything:
    case CrashPolicy::kNamesOnly:
    case CrashPolicy::kDataOnly:
    case CrashPolicy::kStale: return changes.size();
    case CrashPolicy::kPrefix: {
      const auto end = std::find_if(changes.begin(), changes.end(), [&](const Change& change) {
        return change.sequence >= moment;
      });
      auto count = static_cast<std::size_t>(end - changes.begin());
      if (end != changes.end() && end->sequence == moment && coin()) ++count;
      return count;
    }
    case CrashPolicy::kReordered: return alone ? changes.size() : 0;
    case CrashPolicy::kSectors:
    case CrashPolicy::kGarbage: return below(changes.size() + 1);
  }
  return 0;
}

bool FaultFs::Crash::keeps(const std::vector<Change>& changes, std::size_t i, std::size_t sector) {
  switch (policy) {
    case CrashPolicy::kNothing:
    case CrashPolicy::kNamesOnly:
    case CrashPolicy::kStale: return false;
    case CrashPolicy::kEverything:
    case CrashPolicy::kDataOnly: return true;
    case CrashPolicy::kPrefix:
      return changes[i].sequence < moment || (changes[i].sequence == moment && coin());
    case CrashPolicy::kReordered: return alone;
    case CrashPolicy::kSectors:
    case CrashPolicy::kGarbage: {
      const auto [at, is_new] = kept.try_emplace(sector, 0);
      if (is_new) at->second = coin() ? changes.size() : below(changes.size() + 1);
      return i < at->second;
    }
  }
  return false;
}

std::string FaultFs::Crash::file_after(const Node& node) {
  kept.clear();
  alone = coin();
  const std::size_t count = changes_kept(node.changes);
  std::string after = node.durable;
  std::size_t size = after.size();
  for (std::size_t i = 0; i < node.changes.size(); ++i) {
    const Change& change = node.changes[i];
    if (i < count) {
      if (change.cuts && change.size < after.size()) after.resize(change.size);
      size = change.size;
    }
    for (std::size_t at = 0; at < change.bytes.size(); at += kSector) {
      const std::size_t from = change.first_sector * kSector + at;
      if (!keeps(node.changes, i, from / kSector)) continue;
      const std::size_t bytes = std::min(kSector, change.bytes.size() - at);
      if (after.size() < from + bytes) after.resize(from + bytes);
      after.replace(from, bytes, change.bytes, at, bytes);
    }
  }
  after.resize(size);
  return after;
}

void FaultFs::Crash::damage(std::string& after, const Node& node, const std::string& other) {
  if (policy == CrashPolicy::kGarbage && !damage_done && !node.changes.empty()) {
    const Change& change = node.changes[below(node.changes.size())];
    const std::size_t sectors = (change.bytes.size() + kSector - 1) / kSector;
    const std::size_t from = (change.first_sector + below(sectors)) * kSector;
    if (sectors == 0 || from >= after.size()) return;
    const std::size_t end = std::min(after.size(), from + kSector);
    for (std::size_t i = from; i < end; ++i) after[i] = static_cast<char>(random());
    damage_done = true;
  }
  if (policy == CrashPolicy::kStale && after.size() > node.durable.size() && !other.empty()) {
    const std::size_t from = below(other.size() / kSector + 1) * kSector;
    std::string stale = from < other.size() ? other.substr(from) : other;
    stale.resize(std::min(stale.size(), after.size() - node.durable.size()));
    after.replace(node.durable.size(), stale.size(), stale);
  }
}

void FaultFs::restart() {
  ++life_;
  ++writer_life_;
  locks_.clear();
  fail_at_ = fail_sync_at_ = fail_read_at_ = die_at_ = 0;
}

void FaultFs::kill_processes() {
  const std::lock_guard lock(mutex_);
  restart();
}

void FaultFs::kill_writer() {
  const std::lock_guard lock(mutex_);
  --life_;
  restart();
}

void FaultFs::lose_power(CrashPolicy policy, std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  restart();
  ++boot_;
  Crash crash(policy, seed, sequence_);
  std::vector<std::shared_ptr<Node>> nodes;
  for (const Names* names : {&names_, &durable_names_})
    for (const auto& [name, node] : *names)
      if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);

  std::size_t prefix = crash.below(name_changes_.size() + 1);
  for (const NameChange& change : name_changes_) {
    bool keeps = false;
    switch (policy) {
      case CrashPolicy::kNothing:
      case CrashPolicy::kDataOnly: break;
      case CrashPolicy::kEverything:
      case CrashPolicy::kNamesOnly:
      case CrashPolicy::kStale: keeps = true; break;
      case CrashPolicy::kPrefix: keeps = change.sequence < crash.moment; break;
      case CrashPolicy::kReordered: keeps = crash.coin(); break;
      case CrashPolicy::kSectors:
      case CrashPolicy::kGarbage: keeps = prefix != 0 && prefix-- != 0; break;
    }
    if (keeps) change.apply(durable_names_);
  }
  name_changes_.clear();
  for (auto entry = durable_names_.begin(); entry != durable_names_.end();) {  // parents first
    const std::size_t parent_bytes = std::max<std::size_t>(entry->first.rfind('/'), 1);
    const bool reachable = durable_names_.contains(entry->first.substr(0, parent_bytes));
    entry = reachable ? std::next(entry) : durable_names_.erase(entry);
  }
  names_ = durable_names_;

  std::string before;  // of the last file: what its blocks may show in another one
  for (const auto& node : nodes) {
    std::string after = crash.file_after(*node);
    crash.damage(after, *node, before);
    if (!node->current.empty()) before = node->current;
    node->current = node->durable = std::move(after);
    node->changes.clear();
    node->lied = node->late_error = false;
  }
}

}  // namespace millrace::test
