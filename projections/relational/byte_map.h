#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::projections::internal {

/// Bytes by key, for millions of small ones: keys and values lie one behind the other in large
/// pieces of memory, and a table of eight bytes a slot says where (open addressing, linear
/// probing). A key once put stays until clear(); it may be there without a value.
///
/// A value that has grown is put anew, and its old place is lost until clear(): bytes() counts it.
/// Threads: one.
class ByteMap {
 public:
  /// Stays where it is until clear(), its value until the next put() of its key.
  class Entry {
   public:
    std::string_view key() const { return {bytes(), key_size_}; }
    std::optional<std::string_view> value() const {
      if (value_size_ == kNoValue) return std::nullopt;
      return std::string_view(bytes() + key_size_, value_size_);
    }

   private:
    friend class ByteMap;
    static constexpr std::uint32_t kNoValue = UINT32_MAX;

    const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
    char* bytes() { return reinterpret_cast<char*>(this + 1); }

    std::uint32_t key_size_, value_size_, room_;  ///< `room_` bytes for a value.
  };

  const Entry* find(std::string_view key);
  /// `value` must not lie in this map.
  void put(std::string_view key, std::optional<std::string_view> value);
  /// The same, but the memory that it needs is only asked for, and the work is done some calls
  /// later, when it has come: of a map that is larger than the processor's caches it is memory that
  /// takes the time. All else here does what is left of it first.
  void put_soon(std::string_view key, std::optional<std::string_view> value);
  void clear();

  bool empty() const { return size_ == 0 && coming_count_ == 0; }
  /// Of memory in use.
  std::size_t bytes() const { return bytes_; }
  /// In the order in which their keys came, but that one whose value has outgrown its room is where
  /// it was put anew.
  std::vector<const Entry*> entries();
  /// By their keys' bytes, or first by their keys' length, which is the order of numbers in
  /// decimal.
  enum class Order : std::uint8_t { kBytes, kLength };
  std::vector<const Entry*> in_order(Order order = Order::kBytes);

 private:
  struct Slot {
    std::uint32_t tag = 0;    ///< The hash's lower half, from which the slot follows.
    std::uint32_t place = 0;  ///< Of the entry; 0 in an empty slot.
  };

  /// A put_soon() that is under way.
  struct Coming {
    std::size_t hash = 0;
    std::string key, value;
    bool has_value = false;
  };
  static constexpr std::size_t kComing = 16;

  void put(std::string_view key, std::size_t hash, std::optional<std::string_view> value);
  void finish_first();
  void finish();
  std::size_t slot_of(std::string_view key, std::size_t hash) const;
  Entry& entry_at(std::uint32_t place) const;
  std::uint32_t make_entry(std::string_view key, std::size_t value_size);
  void add_piece(std::size_t size);
  void grow();

  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<char[], Free>;
  static Memory allocate(std::size_t size);

  Slot* slots() const { return reinterpret_cast<Slot*>(slots_.get()); }

  Memory slots_;
  std::size_t slot_count_ = 0;  ///< A power of two, or 0.
  std::vector<Memory> pieces_;
  std::size_t piece_room_ = 0, piece_used_ = 0;  ///< Of the last piece, in bytes.
  std::size_t size_ = 0, bytes_ = 0;
  std::array<Coming, kComing> coming_;  ///< A ring.
  std::size_t coming_first_ = 0, coming_count_ = 0;
};

}  // namespace millrace::projections::internal
