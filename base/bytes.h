#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"

namespace millrace {

// A std::string_view is a view of bytes everywhere in millrace, a std::string a buffer of them.

namespace internal {
template <typename T>
constexpr T byte_swapped(T value) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
  return value;
}
}  // namespace internal

template <typename T>
T load_le(const char* from) {
  static_assert(std::is_unsigned_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return std::endian::native == std::endian::little ? value : internal::byte_swapped(value);
}

template <typename T>
T load_be(const char* from) {
  static_assert(std::is_unsigned_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return std::endian::native == std::endian::big ? value : internal::byte_swapped(value);
}

template <typename T>
void store_le(char* to, T value) {
  static_assert(std::is_unsigned_v<T>);
  if constexpr (std::endian::native == std::endian::big) value = internal::byte_swapped(value);
  std::memcpy(to, &value, sizeof value);
}

template <typename T>
void append_le(std::string& out, T value) {
  char bytes[sizeof(T)];
  store_le<T>(bytes, value);
  out.append(bytes, sizeof bytes);
}

template <typename T>
void append_be(std::string& out, T value) {
  char bytes[sizeof(T)];
  store_le<T>(bytes, internal::byte_swapped(value));
  out.append(bytes, sizeof bytes);
}

/// Base-128 varint, least significant group first, at most 10 bytes (Protobuf's wire format).
inline void append_varint(std::string& out, std::uint64_t value) {
  char bytes[10];
  std::size_t size = 0;
  while (value >= 0x80) {
    bytes[size++] = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  bytes[size++] = static_cast<char>(value);
  out.append(bytes, size);
}

constexpr std::size_t varint_size(std::uint64_t value) {
  return 1 + (static_cast<std::size_t>(std::bit_width(value | 1)) - 1) / 7;
}

constexpr std::uint64_t zigzag(std::int64_t value) {
  return (static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63);
}

constexpr std::int64_t unzigzag(std::uint64_t value) {
  return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

/// Reads a byte string front to back, never beyond its end.
///
/// The first failure sticks: every later read gives zero or empty, so that a decoder reads like the
/// grammar it decodes and asks once, at the end. `_be` is network order, `_le` is our own files'.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : next_(bytes.data()), end_(next_ + bytes.size()) {}

  std::uint8_t u8() { return fixed<std::uint8_t, load_be<std::uint8_t>>(); }
  std::uint16_t u16_be() { return fixed<std::uint16_t, load_be<std::uint16_t>>(); }
  std::uint32_t u32_be() { return fixed<std::uint32_t, load_be<std::uint32_t>>(); }
  std::uint64_t u64_be() { return fixed<std::uint64_t, load_be<std::uint64_t>>(); }
  std::uint16_t u16_le() { return fixed<std::uint16_t, load_le<std::uint16_t>>(); }
  std::uint32_t u32_le() { return fixed<std::uint32_t, load_le<std::uint32_t>>(); }
  std::uint64_t u64_le() { return fixed<std::uint64_t, load_le<std::uint64_t>>(); }

  std::uint64_t varint() {
    if (next_ != end_ && static_cast<std::uint8_t>(*next_) < 0x80) [[likely]]
      return static_cast<std::uint8_t>(*next_++);
    const LongVarint read = read_long_varint(next_, end_);
    if (read.end == nullptr) [[unlikely]]
      return fail(), 0;
    next_ = read.end;
    return read.value;
  }

  std::string_view bytes(std::uint64_t size) {
    if (size > remaining()) [[unlikely]]
      return fail(), std::string_view{};
    const std::string_view view(next_, static_cast<std::size_t>(size));
    next_ += size;
    return view;
  }

  /// Bytes up to a NUL, which is consumed and not part of the view.
  std::string_view cstring();

  std::uint64_t remaining() const { return static_cast<std::uint64_t>(end_ - next_); }
  const char* position() const { return next_; }
  bool failed() const { return failed_; }
  /// Marks the bytes as wrong, also where their length was right.
  void fail() { failed_ = true, next_ = end_; }

  /// `value` if every byte was read and none was missing; else kCorruption naming `what`.
  template <typename T>
  Result<T> finish(std::string_view what, T value) const {
    if (failed_ || next_ != end_) return mismatch(what);
    return value;
  }

 private:
  template <typename T, T (*load)(const char*)>
  T fixed() {
    if (sizeof(T) > remaining()) [[unlikely]]
      return fail(), T{};
    const T value = load(next_);
    next_ += sizeof(T);
    return value;
  }

  struct LongVarint {
    std::uint64_t value = 0;
    const char* end = nullptr;  // behind it; nullptr if it ends too early or has more than 64 bits
  };
  /// Of values, not a member: so that a reader in a loop lives in registers.
  static LongVarint read_long_varint(const char* next, const char* end);
  Error mismatch(std::string_view what) const;

  const char* next_;
  const char* end_;
  bool failed_ = false;
};

/// Lower-case hexadecimal, two digits a byte.
std::string to_hex(std::string_view bytes);
/// kInvalidArgument when `hex` is not pairs of hexadecimal digits.
Result<std::string> from_hex(std::string_view hex);

/// Decimal digits, with zeros in front up to `width`.
void append_padded(std::uint64_t number, std::size_t width, std::string& out);

/// `text` safe for one log line: control characters, quotes and invalid UTF-8 are escaped, and what
/// is longer than `bytes_max` is cut.
std::string printable(std::string_view text, std::size_t bytes_max = 256);

}  // namespace millrace
