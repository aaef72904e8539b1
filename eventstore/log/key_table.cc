#include "eventstore/log/key_table.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace millrace::log {
namespace {

constexpr std::size_t kSlotsMin = 64;
/// A node of the map, its vector and what the allocator adds.
constexpr std::size_t kPartialsOverhead = 128;

}  // namespace

// While the table grows, the old one is there beside it; a quarter is for partial events.
KeyTable::KeyTable(std::size_t memory_bytes)
    : slots_max_(std::max(kSlotsMin, std::bit_floor(memory_bytes / 2 / sizeof(KeyState)))),
      partial_bytes_max_(std::max(memory_bytes / 4, kSlotsMin * kPartialsOverhead)) {}

void KeyTable::start(std::uint64_t low, std::uint64_t high) {
  low_ = low;
  high_ = high;
  slots_.assign(kSlotsMin, KeyState{});
  used_ = 0;
  partials_.clear();
  partial_events_ = 0;
}

std::size_t KeyTable::slot_of(const Hash128& hash) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash.low & mask;
  while (slots_[slot].offset != KeyState::kNone && slots_[slot].hash != hash)
    slot = (slot + 1) & mask;
  return slot;
}

KeyState& KeyTable::find(const Hash128& hash) {
  std::size_t slot = slot_of(hash);
  if (slots_[slot].offset != KeyState::kNone) return slots_[slot];
  if ((used_ + 1) * 4 > slots_.size() * 3) {
    resize(slots_.size() * 2);
    slot = slot_of(hash);
  }
  ++used_;
  slots_[slot].hash = hash;
  return slots_[slot];
}

void KeyTable::resize(std::size_t slots) {
  std::vector<KeyState> old = std::exchange(slots_, std::vector<KeyState>(slots));
  for (const KeyState& state : old)
    if (state.offset != KeyState::kNone) slots_[slot_of(state.hash)] = state;
}

std::vector<PartialEvent>& KeyTable::partials(const Hash128& hash) {
  ++partial_events_;  // the caller is about to add one
  return partials_[hash];
}

void KeyTable::drop_partials(const Hash128& hash) {
  if (partials_.empty()) return;
  const auto found = partials_.find(hash);
  if (found == partials_.end()) return;
  partial_events_ -= std::min(partial_events_, found->second.size());
  partials_.erase(found);
}

const std::vector<PartialEvent>* KeyTable::partials_of(const Hash128& hash) const {
  const auto found = partials_.find(hash);
  return found == partials_.end() ? nullptr : &found->second;
}

bool KeyTable::fit() {
  const auto too_large = [&] {
    return (used_ + 1) * 4 > slots_max_ * 3 ||
           partials_.size() * kPartialsOverhead + partial_events_ * sizeof(PartialEvent) * 2 >
               partial_bytes_max_;
  };
  if (!too_large()) return false;
  while (too_large() && high_ > low_) {
    high_ = low_ + (high_ - low_) / 2;
    std::vector<KeyState> kept;
    for_each([&](const KeyState& state) {
      if (covers(state.hash)) kept.push_back(state);
    });
    std::fill(slots_.begin(), slots_.end(), KeyState{});
    for (const KeyState& state : kept) slots_[slot_of(state.hash)] = state;
    used_ = kept.size();
    std::erase_if(partials_, [&](const auto& entry) {
      if (covers(entry.first)) return false;
      partial_events_ -= std::min(partial_events_, entry.second.size());
      return true;
    });
  }
  return true;
}

}  // namespace millrace::log
