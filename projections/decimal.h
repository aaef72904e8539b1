#pragma once

#include <boost/multiprecision/cpp_int.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace millrace::projections {

/// A PostgreSQL numeric: exact, with the digits after the point that it is shown with, or NaN or an
/// infinity. Comes from a numeric column's text and goes back to the very same text. Pure; threads:
/// as a std::string.
///
/// Sums and quotients follow https://www.postgresql.org/docs/current/functions-math.html as the
/// server computes them: a sum shows as many digits as its widest operand.
class Decimal {
 public:
  Decimal() = default;
  Decimal(std::int64_t integer) : digits_(integer) {}  // NOLINT: implicit on purpose
  /// Nothing if `text` is no numeric as PostgreSQL writes it.
  static std::optional<Decimal> parse(std::string_view text);
  /// `digits` times 10^-scale.
  static Decimal scaled(boost::multiprecision::cpp_int digits, std::uint32_t scale);

  std::string text() const;
  bool is_finite() const { return kind_ == Kind::kFinite; }
  bool is_nan() const { return kind_ == Kind::kNan; }
  double real() const;
  /// Nothing if it has digits after the point or more than 64 bits.
  std::optional<std::int64_t> integer() const;
  /// Digits after the point.
  std::uint32_t scale() const { return scale_; }

  Decimal& operator+=(const Decimal& other);
  Decimal& operator-=(const Decimal& other);
  friend Decimal operator+(Decimal left, const Decimal& right) { return left += right; }
  friend Decimal operator-(Decimal left, const Decimal& right) { return left -= right; }
  friend Decimal operator*(const Decimal& left, const Decimal& right);
  /// Rounded to as many digits as PostgreSQL gives, half away from zero. Of finite numbers only,
  /// and not by zero: what calls it has looked.
  friend Decimal operator/(const Decimal& left, const Decimal& right);
  Decimal operator-() const;
  /// The same number with `scale` digits after the point, which must be enough for it.
  Decimal rescaled(std::uint32_t scale) const;
  /// The same number with no zeros at its end.
  Decimal reduced() const;

  /// Numerically, as PostgreSQL orders them: 1.5 is 1.50, NaN is itself and above all others.
  friend bool operator==(const Decimal& left, const Decimal& right) {
    return left.compare(right) == 0;
  }
  friend auto operator<=>(const Decimal& left, const Decimal& right) {
    return left.compare(right) <=> 0;
  }

  /// Appends bytes that sort as the numbers do (then by scale), and from which take() makes it
  /// again.
  void encode(std::string& out) const;
  /// Nothing if `in` does not begin with what encode() wrote; else takes that away from it.
  static std::optional<Decimal> take(std::string_view& in);

 private:
  using Integer = boost::multiprecision::cpp_int;
  enum class Kind : std::uint8_t { kNegativeInfinity = 0, kFinite = 2, kInfinity = 4, kNan = 5 };

  explicit Decimal(Kind kind) : kind_(kind) {}
  int compare(const Decimal& other) const;

  Integer digits_ = 0;
  std::uint32_t scale_ = 0;
  Kind kind_ = Kind::kFinite;
};

}  // namespace millrace::projections
