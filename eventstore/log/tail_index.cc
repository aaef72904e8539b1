#include "eventstore/log/tail_index.h"

#include <algorithm>

#include "base/check.h"

namespace millrace::log {
namespace {

constexpr std::size_t kSlotsMin = 1024;

}  // namespace

std::size_t TailIndex::slot_of(std::uint64_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;  // it is a good hash already
  while (slots_[at].last != kNone && slots_[at].hash != hash) at = (at + 1) & mask;
  return at;
}

void TailIndex::grow() {
  std::vector<Slot> old(std::max(kSlotsMin, slots_.size() * 2));
  old.swap(slots_);
  for (const Slot& slot : old)
    if (slot.last != kNone) slots_[slot_of(slot.hash)] = slot;
}

void TailIndex::add(std::uint64_t hash, std::uint64_t position) {
  MILLRACE_CHECK(position / 8 < kNone);
  if ((hashes_ + 1) * 2 > slots_.size()) grow();
  Slot& slot = slots_[slot_of(hash)];
  const auto position8 = static_cast<std::uint32_t>(position / 8);
  if (slot.last == kNone) {
    ++hashes_;
    slot.hash = hash;
  } else if (entries_[slot.last].position8 == position8) {
    return;
  }
  entries_.push_back({position8, slot.last});
  slot.last = static_cast<std::uint32_t>(entries_.size() - 1);
}

void TailIndex::find(std::uint64_t hash, std::vector<std::uint64_t>& positions) const {
  positions.clear();
  if (slots_.empty()) return;
  for (std::uint32_t at = slots_[slot_of(hash)].last; at != kNone; at = entries_[at].before)
    positions.push_back(std::uint64_t{entries_[at].position8} * 8);
  std::reverse(positions.begin(), positions.end());
}

}  // namespace millrace::log
