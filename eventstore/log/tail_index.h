#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace millrace::log {

/// Hash to batch positions, in memory and growing: what a SegmentIndex is for a sealed segment, for
/// one that is still written. About 40 bytes for each entry.
class TailIndex {
 public:
  /// `position` is not below any that was added before, and below 32 GiB.
  void add(std::uint64_t hash, std::uint64_t position);
  /// Fills `positions` with what was added for `hash`, each once, ascending.
  void find(std::uint64_t hash, std::vector<std::uint64_t>& positions) const;

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  struct Entry {
    std::uint32_t position8;  // an eighth of it
    std::uint32_t before;     // the entry of the same hash that came before
  };
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t last = kNone;  // kNone: free
  };

  std::size_t slot_of(std::uint64_t hash) const;
  void grow();

  std::vector<Entry> entries_;
  std::vector<Slot> slots_;  // open addressing, a power of two
  std::size_t hashes_ = 0;
};

}  // namespace millrace::log
