#include "projections/relational/byte_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <new>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace millrace::projections::internal {
namespace {

// A place is a piece's number and, in its lower bits, where the entry begins in it. An entry that
// is larger than a piece has one of its own.
constexpr std::size_t kUnit = 8;
constexpr int kUnitBits = 18;
constexpr std::size_t kPieceBytes = kUnit << kUnitBits;
constexpr std::size_t kPiecesMax = std::size_t{1} << (32 - kUnitBits);
/// The first one: most maps are small, and often emptied.
constexpr std::size_t kSmallPieceBytes = 4096;
constexpr std::size_t kLine = 64, kLinesAhead = 2;  // of the processor's caches
constexpr std::size_t kSoonMax = 1024;              // a value that is copied for put_soon()
constexpr std::size_t kSlotsMin = 64, kSlotsKept = 1024;

constexpr std::size_t rounded(std::size_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; }

/// Where a key is, is anywhere: with small pages each look would be one at the page table too.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t hash_of(std::string_view key) { return std::hash<std::string_view>()(key); }
std::uint32_t tag_of(std::size_t hash) { return static_cast<std::uint32_t>(hash); }

/// The first bytes of a key, so that most comparisons need not look at the key itself.
std::uint64_t beginning_of(std::string_view key) {
  char bytes[sizeof(std::uint64_t)] = {};
  std::memcpy(bytes, key.data(), std::min(key.size(), sizeof bytes));
  return load_be<std::uint64_t>(bytes);
}

}  // namespace

ByteMap::Entry& ByteMap::entry_at(std::uint32_t place) const {
  return *reinterpret_cast<Entry*>(pieces_[place >> kUnitBits].get() +
                                   (place & ((1U << kUnitBits) - 1)) * kUnit);
}

/// That of the key, or the empty one where it belongs.
std::size_t ByteMap::slot_of(std::string_view key, std::size_t hash) const {
  const std::size_t mask = slot_count_ - 1;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot slot = slots()[at];
    if (slot.place == 0) return at;
    if (slot.tag == tag_of(hash) && entry_at(slot.place).key() == key) return at;
  }
}

const ByteMap::Entry* ByteMap::find(std::string_view key) {
  finish();
  if (slot_count_ == 0) return nullptr;
  const std::uint32_t place = slots()[slot_of(key, hash_of(key))].place;
  return place == 0 ? nullptr : &entry_at(place);
}

void ByteMap::put(std::string_view key, std::optional<std::string_view> value) {
  finish();
  put(key, hash_of(key), value);
}

void ByteMap::put_soon(std::string_view key, std::optional<std::string_view> value) {
  if (slot_count_ == 0 || (value && value->size() > kSoonMax)) return put(key, value);
  if (coming_count_ == kComing) finish_first();
  Coming& coming = coming_[(coming_first_ + coming_count_++) % kComing];
  coming.hash = hash_of(key);
  coming.key = key;
  coming.value = value.value_or(std::string_view());
  coming.has_value = value.has_value();
  const std::size_t mask = slot_count_ - 1;
  __builtin_prefetch(&slots()[coming.hash & mask], 1);
  if (coming_count_ <= kComing / 2) return;
  // Of one that came before, the slot is there by now, and says where the entry is.
  const Coming& before = coming_[(coming_first_ + coming_count_ - 1 - kComing / 2) % kComing];
  const std::uint32_t place = slots()[before.hash & mask].place;
  if (place == 0) return;
  const auto* entry = reinterpret_cast<const char*>(&entry_at(place));
  for (std::size_t line = 0; line < kLinesAhead; ++line)
    __builtin_prefetch(entry + line * kLine, 1);
}

void ByteMap::finish_first() {
  const Coming& first = coming_[coming_first_];
  coming_first_ = (coming_first_ + 1) % kComing;
  --coming_count_;
  put(first.key, first.hash,
      first.has_value ? std::optional<std::string_view>(first.value) : std::nullopt);
}

void ByteMap::finish() {
  while (coming_count_ > 0) finish_first();
}

void ByteMap::put(std::string_view key, std::size_t hash, std::optional<std::string_view> value) {
  if ((size_ + 1) * 2 > slot_count_) grow();
  const std::size_t size = value ? value->size() : 0;
  MILLRACE_CHECK(key.size() < Entry::kNoValue && size < Entry::kNoValue);
  Slot& slot = slots()[slot_of(key, hash)];
  if (slot.place == 0) {
    ++size_;
    slot = {tag_of(hash), make_entry(key, size)};
  } else if (size > entry_at(slot.place).room_) {
    slot.place = make_entry(key, size + size / 8);  // what has grown once may do it again
  }
  Entry& entry = entry_at(slot.place);
  entry.value_size_ = value ? static_cast<std::uint32_t>(size) : Entry::kNoValue;
  if (size > 0) std::memcpy(entry.bytes() + entry.key_size_, value->data(), size);
}

std::uint32_t ByteMap::make_entry(std::string_view key, std::size_t value_size) {
  const std::size_t size = rounded(sizeof(Entry) + key.size() + value_size);
  if (piece_used_ + size > piece_room_) add_piece(size);
  const auto place =
      static_cast<std::uint32_t>((pieces_.size() - 1) << kUnitBits | piece_used_ / kUnit);
  piece_used_ += size;
  Entry& entry = *new (&entry_at(place)) Entry;
  entry.key_size_ = static_cast<std::uint32_t>(key.size());
  entry.room_ = static_cast<std::uint32_t>(size - sizeof(Entry) - key.size());
  std::memcpy(entry.bytes(), key.data(), key.size());
  return place;
}

void ByteMap::add_piece(std::size_t size) {
  MILLRACE_CHECK(pieces_.size() < kPiecesMax);
  piece_used_ = pieces_.empty() ? kUnit : 0;  // place 0 stands for no entry
  piece_room_ = std::max(std::clamp(bytes_, kSmallPieceBytes, kPieceBytes), piece_used_ + size);
  pieces_.push_back(allocate(piece_room_));
  bytes_ += piece_room_;
}

ByteMap::Memory ByteMap::allocate(std::size_t size) {
  const bool is_large = size >= kHugePage;
  const std::size_t whole = is_large ? (size + kHugePage - 1) / kHugePage * kHugePage : size;
  Memory memory(
      static_cast<char*>(is_large ? std::aligned_alloc(kHugePage, whole) : std::malloc(whole)));
  if (!memory) throw std::bad_alloc();
  if (is_large)
    ::madvise(memory.get(), whole, MADV_HUGEPAGE);  // where there are none, it goes without
  return memory;
}

void ByteMap::grow() {
  const Memory before = std::move(slots_);
  const std::size_t count = std::exchange(slot_count_, std::max(kSlotsMin, slot_count_ * 2));
  slots_ = allocate(slot_count_ * sizeof(Slot));
  std::uninitialized_value_construct_n(slots(), slot_count_);
  bytes_ += (slot_count_ - count) * sizeof(Slot);
  const std::size_t mask = slot_count_ - 1;
  for (std::size_t i = 0; i < count; ++i) {
    const Slot slot = reinterpret_cast<const Slot*>(before.get())[i];
    if (slot.place == 0) continue;
    std::size_t at = slot.tag & mask;
    while (slots()[at].place != 0) at = (at + 1) & mask;
    slots()[at] = slot;
  }
}

void ByteMap::clear() {
  coming_count_ = 0;
  size_ = 0;
  if (pieces_.size() == 1 && slot_count_ <= kSlotsKept && piece_room_ == kSmallPieceBytes) {
    std::fill_n(slots(), slot_count_, Slot());
    piece_used_ = kUnit;
    return;
  }
  slots_.reset();
  pieces_.clear();
  slot_count_ = piece_room_ = piece_used_ = bytes_ = 0;
}

std::vector<const ByteMap::Entry*> ByteMap::entries() {
  finish();
  std::vector<std::uint32_t> places;
  places.reserve(size_);
  for (std::size_t i = 0; i < slot_count_; ++i)
    if (slots()[i].place != 0) places.push_back(slots()[i].place);
  std::sort(places.begin(), places.end());
  std::vector<const Entry*> entries;
  entries.reserve(size_);
  for (const std::uint32_t place : places) entries.push_back(&entry_at(place));
  return entries;
}

std::vector<const ByteMap::Entry*> ByteMap::in_order(Order order) {
  struct Place {
    std::size_t length;
    std::uint64_t beginning;
    const Entry* entry;
  };
  std::vector<const Entry*> all = entries();
  std::vector<Place> places;
  places.reserve(all.size());
  for (const Entry* entry : all)
    places.push_back(
        {order == Order::kLength ? entry->key().size() : 0, beginning_of(entry->key()), entry});
  const auto comes_first = [](const Place& left, const Place& right) {
    if (left.length != right.length) return left.length < right.length;
    if (left.beginning != right.beginning) return left.beginning < right.beginning;
    return left.entry->key() < right.entry->key();
  };
  if (!std::is_sorted(places.begin(), places.end(), comes_first))
    std::sort(places.begin(), places.end(), comes_first);
  std::transform(places.begin(), places.end(), all.begin(),
                 [](const Place& place) { return place.entry; });
  return all;
}

}  // namespace millrace::projections::internal
