#include "projections/decimal.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/bytes.h"

// clang-format off
// An encoded number, which sorts as bytes:
//
//   decimal  kind [ magnitude ] u32_be(scale)   a magnitude only where kind is 1 (below zero) or 3 (above)
//   kind     0 -infinity, 1 negative, 2 zero, 3 positive, 4 infinity, 5 NaN
//   magnitude  u32_be(digits before the point + 2^31) digits without zeros at either end, 1 + digit each, 0
//              all of its bytes inverted where the number is negative
// clang-format on
namespace millrace::projections {
namespace {

using Integer = boost::multiprecision::cpp_int;

constexpr std::uint32_t kExponentBias = 1u << 31;
constexpr std::uint32_t kScaleMax = 16'383;  // of PostgreSQL's numeric
constexpr int kDigitsBeforePointMax = 131'072;
constexpr std::size_t kTextMax = 1 << 30;
constexpr int kGroup = 4;                // PostgreSQL's digits are of base 10,000
constexpr int kSignificantDigits = 16;   // NUMERIC_MIN_SIG_DIGITS
constexpr int kQuotientScaleMax = 1000;  // NUMERIC_MAX_DISPLAY_SCALE

Integer power_of_ten(std::uint32_t exponent) {
  return boost::multiprecision::pow(Integer(10), exponent);
}

/// The first digit in base 10,000 that is not zero, and the power of 10,000 that it stands for.
struct Leading {
  int weight = 0;
  int digit = 0;
};

Leading leading(const Integer& digits, std::uint32_t scale) {
  if (digits == 0) return {};
  const std::string text = Integer(abs(digits)).str();
  const int before_point = static_cast<int>(text.size()) - static_cast<int>(scale);
  // Of numbers below 1 the groups begin at the point, too.
  const int weight = (before_point > 0 ? before_point - 1 : before_point - kGroup) / kGroup;
  const int in_group = before_point - weight * kGroup;
  std::string group = text.substr(0, static_cast<std::size_t>(in_group));
  group.resize(static_cast<std::size_t>(in_group), '0');
  return {weight, std::atoi(group.c_str())};
}

/// "+07"; nothing if it is none, or beyond what PostgreSQL's numeric can hold.
std::optional<int> exponent_of(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  int exponent = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), exponent);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (exponent < -kDigitsBeforePointMax || exponent > kDigitsBeforePointMax) return std::nullopt;
  return exponent;
}

}  // namespace

std::optional<Decimal> Decimal::parse(std::string_view text) {
  if (text == "NaN") return Decimal(Kind::kNan);
  if (text == "Infinity") return Decimal(Kind::kInfinity);
  if (text == "-Infinity") return Decimal(Kind::kNegativeInfinity);
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  int exponent = 0;
  if (const auto mark = text.find_first_of("eE"); mark != std::string_view::npos) {
    const auto read = exponent_of(text.substr(mark + 1));
    if (!read) return std::nullopt;
    exponent = *read;
    text = text.substr(0, mark);
  }
  std::string digits;
  digits.reserve(text.size());
  std::optional<std::size_t> point;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '.' && !point)
      point = i;
    else if (text[i] >= '0' && text[i] <= '9')
      digits += text[i];
    else
      return std::nullopt;
  }
  if (digits.empty()) return std::nullopt;
  // As PostgreSQL has it: 1.50e1 is 15.0, 1e-3 is 0.001.
  const int scale = (point ? static_cast<int>(text.size() - *point - 1) : 0) - exponent;
  if (text.size() > kTextMax || scale > static_cast<int>(kScaleMax)) return std::nullopt;
  Decimal number;
  number.scale_ = static_cast<std::uint32_t>(std::max(scale, 0));
  if (digits.size() <= 18) {
    number.digits_ = std::strtoll(digits.c_str(), nullptr, 10);
  } else {
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size() - 1));  // or it is octal
    number.digits_ = Integer(digits);
  }
  if (scale < 0) number.digits_ *= power_of_ten(static_cast<std::uint32_t>(-scale));
  if (negative) number.digits_ = -number.digits_;
  return number;
}

Decimal Decimal::scaled(Integer digits, std::uint32_t scale) {
  Decimal number;
  number.digits_ = std::move(digits);
  number.scale_ = scale;
  return number;
}

std::string Decimal::text() const {
  switch (kind_) {
    case Kind::kNan: return "NaN";
    case Kind::kInfinity: return "Infinity";
    case Kind::kNegativeInfinity: return "-Infinity";
    case Kind::kFinite: break;
  }
  std::string text = Integer(abs(digits_)).str();
  if (text.size() <= scale_) text.insert(0, scale_ + 1 - text.size(), '0');
  if (scale_ > 0) text.insert(text.size() - scale_, 1, '.');
  if (digits_ < 0) text.insert(0, 1, '-');
  return text;
}

std::optional<std::int64_t> Decimal::integer() const {
  if (!is_finite() || scale_ != 0 || digits_ < INT64_MIN || digits_ > INT64_MAX)
    return std::nullopt;
  return digits_.convert_to<std::int64_t>();
}

double Decimal::real() const {
  const std::string text = this->text();
  double number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec != std::errc::result_out_of_range) return number;
  const bool is_small = abs(digits_) < power_of_ten(scale_);
  return is_small ? 0 : digits_ < 0 ? -HUGE_VAL : HUGE_VAL;
}

Decimal& Decimal::operator+=(const Decimal& other) {
  if (!is_finite() || !other.is_finite()) {
    const bool opposite = !is_finite() && !other.is_finite() && kind_ != other.kind_;
    if (is_nan() || other.is_nan() || opposite) return *this = Decimal(Kind::kNan);
    if (is_finite()) kind_ = other.kind_;
    digits_ = 0;
    scale_ = 0;
    return *this;
  }
  if (scale_ < other.scale_) {
    digits_ *= power_of_ten(other.scale_ - scale_);
    scale_ = other.scale_;
    digits_ += other.digits_;
  } else if (scale_ > other.scale_) {
    digits_ += other.digits_ * power_of_ten(scale_ - other.scale_);
  } else {
    digits_ += other.digits_;
  }
  return *this;
}

Decimal& Decimal::operator-=(const Decimal& other) { return *this += -other; }

Decimal Decimal::operator-() const {
  Decimal number = *this;
  number.digits_ = -number.digits_;
  if (kind_ == Kind::kInfinity) number.kind_ = Kind::kNegativeInfinity;
  if (kind_ == Kind::kNegativeInfinity) number.kind_ = Kind::kInfinity;
  return number;
}

Decimal Decimal::rescaled(std::uint32_t scale) const {
  if (!is_finite() || scale == scale_) return *this;
  if (scale > scale_) return scaled(digits_ * power_of_ten(scale - scale_), scale);
  return scaled(digits_ / power_of_ten(scale_ - scale), scale);
}

Decimal Decimal::reduced() const {
  Decimal number = *this;
  while (number.scale_ > 0 && number.digits_ % 10 == 0) {
    number.digits_ /= 10;
    --number.scale_;
  }
  return number;
}

Decimal operator*(const Decimal& left, const Decimal& right) {
  using Kind = Decimal::Kind;
  if (left.is_finite() && right.is_finite())
    return Decimal::scaled(left.digits_ * right.digits_, left.scale_ + right.scale_);
  const Decimal zero;
  if (left.is_nan() || right.is_nan() || left == zero || right == zero) return Decimal(Kind::kNan);
  return Decimal((left < zero) != (right < zero) ? Kind::kNegativeInfinity : Kind::kInfinity);
}

/// The scale is what select_div_scale() of the server's numeric.c chooses: at least sixteen
/// significant digits, and no fewer after the point than either operand has.
Decimal operator/(const Decimal& left, const Decimal& right) {
  const Leading above = leading(left.digits_, left.scale_);
  const Leading below = leading(right.digits_, right.scale_);
  const int weight = above.weight - below.weight - (above.digit <= below.digit ? 1 : 0);
  const int wanted = std::max({kSignificantDigits - weight * kGroup, static_cast<int>(left.scale_),
                               static_cast<int>(right.scale_), 0});
  const auto scale = static_cast<std::uint32_t>(std::min(wanted, kQuotientScaleMax));
  // left / right = left.digits / right.digits * 10^(right.scale - left.scale)
  Integer numerator = left.digits_ * power_of_ten(scale + right.scale_);
  Integer denominator = right.digits_ * power_of_ten(left.scale_);
  if (denominator < 0) {
    numerator = -numerator;
    denominator = -denominator;
  }
  const Integer half = numerator < 0 ? Integer(-denominator) : denominator;
  return Decimal::scaled((2 * numerator + half) / (2 * denominator), scale);
}

int Decimal::compare(const Decimal& other) const {
  if (kind_ != other.kind_) return kind_ < other.kind_ ? -1 : 1;
  if (!is_finite()) return 0;
  if (scale_ == other.scale_) return digits_.compare(other.digits_);
  if (scale_ < other.scale_)
    return Integer(digits_ * power_of_ten(other.scale_ - scale_)).compare(other.digits_);
  return digits_.compare(Integer(other.digits_ * power_of_ten(scale_ - other.scale_)));
}

void Decimal::encode(std::string& out) const {
  const int sign = digits_.sign();
  out += static_cast<char>(static_cast<int>(kind_) + (is_finite() ? sign : 0));
  if (is_finite() && sign != 0) {
    std::string digits = Integer(abs(digits_)).str();
    const std::size_t begin = out.size();
    append_be<std::uint32_t>(out,
                             kExponentBias + static_cast<std::uint32_t>(digits.size()) - scale_);
    digits.erase(digits.find_last_not_of('0') + 1);
    for (const char digit : digits) out += static_cast<char>(digit - '0' + 1);
    out += '\0';
    if (sign < 0)
      for (std::size_t i = begin; i < out.size(); ++i) out[i] = static_cast<char>(~out[i]);
  }
  append_be<std::uint32_t>(out, scale_);
}

std::optional<Decimal> Decimal::take(std::string_view& in) {
  ByteReader reader(in);
  const std::uint8_t kind = reader.u8();
  if (reader.failed() || kind > static_cast<std::uint8_t>(Kind::kNan)) return std::nullopt;
  Decimal number;
  std::string digits;
  std::int64_t before_point = 0;
  const bool negative = kind == 1;
  if (negative || kind == 3) {
    const std::uint8_t inverted = negative ? 0xff : 0;
    const std::uint32_t exponent = reader.u32_be() ^ (negative ? 0xffffffff : 0);
    before_point = static_cast<std::int64_t>(exponent) - kExponentBias;
    for (;;) {
      const std::uint8_t digit = reader.u8() ^ inverted;
      if (reader.failed() || digit > 10) return std::nullopt;
      if (digit == 0) break;
      digits += static_cast<char>('0' + digit - 1);
    }
  } else if (kind != 2) {
    number.kind_ = static_cast<Kind>(kind);
  }
  const std::uint32_t scale = reader.u32_be();
  if (reader.failed() || scale > 1u << 20) return std::nullopt;
  number.scale_ = scale;
  if (!digits.empty()) {
    const std::int64_t zeros =
        before_point + static_cast<std::int64_t>(scale) - static_cast<std::int64_t>(digits.size());
    if (zeros < 0 || zeros > 1 << 20) return std::nullopt;
    number.digits_ = Integer(digits) * power_of_ten(static_cast<std::uint32_t>(zeros));
    if (negative) number.digits_ = -number.digits_;
  }
  in.remove_prefix(in.size() - reader.remaining());
  return number;
}

}  // namespace millrace::projections
