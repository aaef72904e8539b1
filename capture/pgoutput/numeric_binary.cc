#include "capture/pgoutput/numeric_binary.h"

#include <array>
#include <cstdint>

#include "base/bytes.h"

// PostgreSQL's numeric_send and get_str_from_var (src/backend/utils/adt/numeric.c), in network byte
// order:
//
//   numeric  u16(groups) i16(weight) u16(sign: 0, 0x4000 = negative, 0xC000 = NaN,
//            0xD000 = Infinity, 0xF000 = -Infinity) u16(scale) groups * u16(0 to 9999)
//
// Each group is four decimal digits; the first one counts 10000^weight. The scale is how many
// digits stand behind the point, whatever the groups hold.
namespace millrace::pgoutput {
namespace {

constexpr std::uint16_t kPositive = 0, kNegative = 0x4000, kNan = 0xC000, kInfinity = 0xD000,
                        kMinusInfinity = 0xF000;
constexpr std::uint16_t kScaleMax = 0x3FFF;
constexpr std::uint16_t kGroupEnd = 10'000;
constexpr std::size_t kHeaderBytes = 8;

constexpr auto kGroupDigits = [] {
  std::array<std::array<char, 4>, kGroupEnd> all{};
  for (unsigned i = 0; i < kGroupEnd; ++i)
    all[i] = {static_cast<char>('0' + i / 1000), static_cast<char>('0' + i / 100 % 10),
              static_cast<char>('0' + i / 10 % 10), static_cast<char>('0' + i % 10)};
  return all;
}();

std::size_t digits_of(unsigned group) {
  return group >= 1000 ? 4 : group >= 100 ? 3 : group >= 10 ? 2 : 1;
}

char* write_digits(const char* digits, std::size_t count, char* to) {
  for (std::size_t i = 0; i < count; ++i) *to++ = digits[i];
  return to;
}

}  // namespace

/// The group that counts 10000^(weight - i); zero outside of those that were sent.
unsigned BinaryNumeric::group(std::int32_t i) const {
  const auto at = static_cast<std::size_t>(i) * 2;
  return i < 0 || at >= groups_.size() ? 0 : load_be<std::uint16_t>(groups_.data() + at);
}

bool BinaryNumeric::read(std::string_view bytes) {
  ByteReader in(bytes);
  const std::size_t count = in.u16_be();
  weight_ = static_cast<std::int16_t>(in.u16_be());
  const std::uint16_t sign = in.u16_be();
  scale_ = in.u16_be();
  if (in.failed() || in.remaining() != 2 * count || scale_ > kScaleMax) return false;
  groups_ = bytes.substr(kHeaderBytes);
  for (std::size_t i = 0; i < count; ++i)
    if (group(static_cast<std::int32_t>(i)) >= kGroupEnd) return false;
  negative_ = sign == kNegative;
  if (negative_ || sign == kPositive) return measure(), true;
  if (sign != kNan && sign != kInfinity && sign != kMinusInfinity) return false;
  word_ = sign == kNan ? "NaN" : sign == kInfinity ? "Infinity" : "-Infinity";
  size_ = word_.size();
  return count == 0;
}

/// Before the point: at least one digit, no zeros in front. Behind it: the scale, neither more nor
/// less.
void BinaryNumeric::measure() {
  const std::size_t whole =
      weight_ < 0 ? 1 : digits_of(group(0)) + 4 * static_cast<std::size_t>(weight_);
  size_ = (negative_ ? 1 : 0) + whole + (scale_ == 0 ? 0 : 1u + scale_);
}

char* BinaryNumeric::write(char* to) const {
  if (!word_.empty()) return write_digits(word_.data(), word_.size(), to);
  if (negative_) *to++ = '-';
  const unsigned first = weight_ < 0 ? 0 : group(0);
  const std::size_t digits = digits_of(first);
  to = write_digits(kGroupDigits[first].data() + (4 - digits), digits, to);
  for (std::int32_t i = 1; i <= weight_; ++i)
    to = write_digits(kGroupDigits[group(i)].data(), 4, to);
  if (scale_ == 0) return to;
  *to++ = '.';
  std::int32_t i = weight_ + 1;
  for (std::size_t left = scale_; left > 0; ++i) {
    const std::size_t take = left < 4 ? left : 4;
    to = write_digits(kGroupDigits[group(i)].data(), take, to);
    left -= take;
  }
  return to;
}

}  // namespace millrace::pgoutput
