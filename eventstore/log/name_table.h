#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/checksum.h"

namespace millrace::log {

/// The distinct names of one batch, numbered in order of appearance. Keeps its memory between
/// batches.
class NameTable {
 public:
  std::uint32_t index_of(std::string_view name) {
    if (last_ < names_.size() && at(last_) == name) [[likely]]
      return last_;
    return last_ = find_or_add(name);
  }
  std::uint32_t size() const { return static_cast<std::uint32_t>(names_.size()); }
  std::string_view at(std::uint32_t index) const {
    return std::string_view(bytes_).substr(names_[index].position, names_[index].size);
  }
  std::size_t bytes() const { return bytes_.size(); }
  void clear() {
    names_.clear();
    bytes_.clear();
    slots_.clear();
    last_ = 0;
  }

 private:
  static constexpr std::size_t kScanMax = 8;  // below this a scan is faster than hashing
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};

  struct Name {
    std::size_t position = 0, size = 0;
  };

  std::uint32_t find_or_add(std::string_view name) {
    if (names_.size() < kScanMax) {
      for (std::uint32_t i = 0; i < names_.size(); ++i)
        if (at(i) == name) return i;
      return add(name);
    }
    if (slots_.size() < names_.size() * 2) rehash();
    const std::size_t slot = slot_of(name);
    if (slots_[slot] != kFree) return slots_[slot];
    return slots_[slot] = add(name);
  }

  std::uint32_t add(std::string_view name) {
    names_.push_back({bytes_.size(), name.size()});
    bytes_ += name;
    return size() - 1;
  }

  std::size_t slot_of(std::string_view name) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t slot = checksum(name) & mask;
    while (slots_[slot] != kFree && at(slots_[slot]) != name) slot = (slot + 1) & mask;
    return slot;
  }

  void rehash() {
    std::size_t count = 64;
    while (count < names_.size() * 4) count *= 2;
    slots_.assign(count, kFree);
    for (std::uint32_t i = 0; i < names_.size(); ++i) slots_[slot_of(at(i))] = i;
  }

  std::vector<Name> names_;
  std::string bytes_;
  std::vector<std::uint32_t> slots_;  // open addressing, a power of two
  std::uint32_t last_ = 0;
};

}  // namespace millrace::log
