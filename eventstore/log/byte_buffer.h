#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace millrace::log {

/// Bytes that grow at the end. Unlike a std::string it never fills with zeros what is written next.
class ByteBuffer {
 public:
  ByteBuffer() = default;
  ByteBuffer(ByteBuffer&& other) noexcept { swap(other); }
  ByteBuffer& operator=(ByteBuffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void swap(ByteBuffer& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  char* data() { return bytes_.get(); }
  const char* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {bytes_.get(), size_}; }
  std::span<char> span() { return {bytes_.get(), size_}; }

  /// Room for `more` bytes behind the end; filled through the pointer, then taken with set_end.
  char* reserve(std::size_t more) {
    if (capacity_ - size_ < more) [[unlikely]]
      grow(size_ + more);
    return bytes_.get() + size_;
  }
  void set_end(const char* end) { size_ = static_cast<std::size_t>(end - bytes_.get()); }
  void resize(std::size_t size) {
    if (size > capacity_) grow(size);
    size_ = size;
  }
  void append(std::string_view bytes) {
    if (bytes.empty()) return;
    std::memcpy(reserve(bytes.size()), bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  void erase_front(std::size_t count) {
    size_ -= count;
    if (size_ != 0) std::memmove(bytes_.get(), bytes_.get() + count, size_);
  }
  /// Empties it; gives the memory back if there is more than `capacity_kept` of it.
  void clear(std::size_t capacity_kept) {
    size_ = 0;
    if (capacity_ <= capacity_kept) return;
    bytes_.reset();
    capacity_ = 0;
  }

 private:
  void grow(std::size_t needed) {
    const std::size_t capacity = std::max({needed, capacity_ * 2, std::size_t{4096}});
    auto bytes = std::make_unique_for_overwrite<char[]>(capacity);
    if (size_ != 0) std::memcpy(bytes.get(), bytes_.get(), size_);
    bytes_ = std::move(bytes);
    capacity_ = capacity;
  }

  std::unique_ptr<char[]> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace millrace::log
