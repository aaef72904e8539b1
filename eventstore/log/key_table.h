#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/checksum.h"

namespace millrace::log {

/// What is known of a key while its events go by, oldest first.
struct KeyState {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

  Hash128 hash;
  std::uint64_t offset = kNone;  ///< Of its latest complete event; of its first while none is.
  std::uint32_t bytes = 0;       ///< Of that event.
  std::uint32_t category : 28 = 0;
  std::uint32_t is_complete : 1 = 0;
  std::uint32_t is_tombstone : 1 = 0;
  std::uint32_t is_past_grace : 1 = 0;  ///< A tombstone that may go once nothing older is left.
  std::uint32_t has_older : 1 = 0;      ///< There are events of the key below `offset`.
};
static_assert(sizeof(KeyState) == 32);

/// A part of an entity: a partial event that came after the complete one.
struct PartialEvent {
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
};

/// The states of those keys whose hashes lie in one range, in bounded memory: where the budget does
/// not suffice for all of them, the upper half of the range is left to a later pass.
class KeyTable {
 public:
  explicit KeyTable(std::size_t memory_bytes);

  /// Starts on the keys whose hash.high is from `low` to `high`.
  void start(std::uint64_t low, std::uint64_t high);
  bool covers(const Hash128& hash) const { return hash.high >= low_ && hash.high <= high_; }
  std::uint64_t high() const { return high_; }

  /// The state of a key that is covered, made if there is none (`offset` is kNone then). Valid
  /// until the next call of find or fit.
  KeyState& find(const Hash128& hash);
  std::vector<PartialEvent>& partials(const Hash128& hash);
  void drop_partials(const Hash128& hash);

  /// Gives keys up until the rest fits; true if it did.
  bool fit();

  template <typename Function>
  void for_each(Function function) {
    for (const KeyState& state : slots_)
      if (state.offset != KeyState::kNone) function(state);
  }
  /// Nullptr if there are none.
  const std::vector<PartialEvent>* partials_of(const Hash128& hash) const;

 private:
  struct Hasher {
    std::size_t operator()(const Hash128& hash) const { return hash.low; }
  };

  void resize(std::size_t slots);
  std::size_t slot_of(const Hash128& hash) const;

  std::size_t slots_max_, partial_bytes_max_;
  std::uint64_t low_ = 0, high_ = 0;
  std::vector<KeyState> slots_;  // open addressing, a power of two
  std::size_t used_ = 0;
  std::unordered_map<Hash128, std::vector<PartialEvent>, Hasher> partials_;
  std::size_t partial_events_ = 0;
};

}  // namespace millrace::log
