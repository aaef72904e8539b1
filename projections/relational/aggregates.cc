#include "projections/relational/aggregates.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/bytes.h"

namespace millrace::projections::internal {
namespace {

using Integer = boost::multiprecision::cpp_int;

/// A sum of reals is exact as an integer number of the smallest real, 2^-1074.
constexpr int kSmallestExponent = -1074;

void append_count(std::string& out, std::int64_t count) {
  append_be<std::uint64_t>(out, static_cast<std::uint64_t>(count));
}

bool take_count(std::string_view& in, std::int64_t& count) {
  if (in.size() < sizeof(std::uint64_t)) return false;
  count = static_cast<std::int64_t>(load_be<std::uint64_t>(in.data()));
  in.remove_prefix(sizeof(std::uint64_t));
  return true;
}

class Count final : public Accumulator {
 public:
  void add(const Datum& value, int weight) override {
    if (!value.is_null()) count_ += weight;
  }
  Datum result() const override { return count_; }
  void encode(std::string& out) const override { append_count(out, count_); }
  bool restore(std::string_view& in) override { return take_count(in, count_); }

 private:
  std::int64_t count_ = 0;
};

/// The real that is next to `sum` times 2^-1074, ties to even.
double nearest_real(const Integer& sum) {
  constexpr int kMantissa = 53;
  const Integer magnitude = abs(sum);
  if (magnitude == 0) return 0;
  const int bits = static_cast<int>(msb(magnitude)) + 1;
  const int dropped = std::max(bits - kMantissa, 0);
  Integer mantissa = magnitude >> dropped;
  if (dropped > 0) {
    const Integer rest = magnitude - (mantissa << dropped);
    const Integer half = Integer(1) << (dropped - 1);
    if (rest > half || (rest == half && (mantissa & 1) != 0)) ++mantissa;
  }
  const double real = std::ldexp(mantissa.convert_to<double>(), dropped + kSmallestExponent);
  return sum < 0 ? -real : real;
}

/// Sums of what may also be NaN or infinite, exactly, so that what goes takes back what it had put
/// in.
class Sum final : public Accumulator {
 public:
  explicit Sum(bool average) : average_(average) {}

  void add(const Datum& value, int weight) override {
    if (value.is_null()) return;
    count_ += weight;
    if (value.is_integer()) return add_integer(value.integer(), weight);
    if (value.is_real()) return add_real(value.real(), weight);
    const auto number = value.decimal();
    if (!number)
      throw std::invalid_argument("'" + value.key_text() + "' is no number that could be summed");
    add_decimal(*number, weight);
  }

  Datum result() const override {
    if (count_ == 0) return {};
    if (reals_ != 0) return real_result();
    const bool opposite = positive_infinities_ != 0 && negative_infinities_ != 0;
    if (nans_ != 0 || opposite) return *Decimal::parse("NaN");
    if (positive_infinities_ != 0) return *Decimal::parse("Infinity");
    if (negative_infinities_ != 0) return *Decimal::parse("-Infinity");
    if (average_) return decimal_total() / Decimal(count_);
    if (!scales_.empty()) return decimal_total();
    if (integers_ >= INT64_MIN && integers_ <= INT64_MAX)
      return integers_.convert_to<std::int64_t>();
    return Decimal::scaled(integers_, 0);
  }

  void encode(std::string& out) const override {
    for (const std::int64_t count :
         {count_, reals_, nans_, positive_infinities_, negative_infinities_})
      append_count(out, count);
    Decimal::scaled(integers_, 0).encode(out);
    decimals_.encode(out);
    Datum(real_units_.str()).encode(out);
    append_count(out, static_cast<std::int64_t>(scales_.size()));
    for (const auto& [scale, times] : scales_) {
      append_count(out, scale);
      append_count(out, times);
    }
  }
  bool restore(std::string_view& in) override {
    for (std::int64_t* count :
         {&count_, &reals_, &nans_, &positive_infinities_, &negative_infinities_})
      if (!take_count(in, *count)) return false;
    const auto integers = Decimal::take(in);
    auto decimals = integers ? Decimal::take(in) : std::nullopt;
    const auto units = decimals ? Datum::take(in) : std::nullopt;
    if (!units) return false;
    integers_ = Integer(integers->text());
    decimals_ = *std::move(decimals);
    real_units_ = Integer(std::string(units->text()));
    std::int64_t scales = 0, scale = 0, times = 0;
    if (!take_count(in, scales)) return false;
    for (; scales > 0; --scales) {
      if (!take_count(in, scale) || !take_count(in, times)) return false;
      scales_.emplace(static_cast<std::uint32_t>(scale), times);
    }
    return true;
  }

 private:
  void add_integer(std::int64_t number, int weight) { integers_ += Integer(number) * weight; }

  void add_real(double number, int weight) {
    reals_ += weight;
    if (std::isnan(number)) return static_cast<void>(nans_ += weight);
    if (std::isinf(number))
      return static_cast<void>((number > 0 ? positive_infinities_ : negative_infinities_) +=
                               weight);
    int exponent = 0;
    const double fraction = std::frexp(number, &exponent);  // number = fraction * 2^exponent
    const auto mantissa = static_cast<std::int64_t>(std::ldexp(fraction, 53));
    const int shift = exponent - 53 - kSmallestExponent;
    // Of the smallest reals the low bits of the mantissa are zeros.
    const Integer units =
        shift >= 0 ? Integer(mantissa) << shift : Integer(mantissa / (std::int64_t{1} << -shift));
    real_units_ += units * weight;
  }

  void add_decimal(const Decimal& number, int weight) {
    if (number.is_nan()) return static_cast<void>(nans_ += weight);
    if (!number.is_finite())
      return static_cast<void>(
          (number > Decimal(0) ? positive_infinities_ : negative_infinities_) += weight);
    if (weight > 0)
      decimals_ += number;
    else
      decimals_ -= number;
    const auto scale = scales_.emplace(number.scale(), 0).first;
    scale->second += weight;
    if (scale->second == 0) scales_.erase(scale);
  }

  Decimal decimal_total() const {
    const std::uint32_t widest = scales_.empty() ? 0 : scales_.rbegin()->first;
    return decimals_.rescaled(widest) + Decimal::scaled(integers_, 0);
  }

  Datum real_result() const {
    double total = nearest_real(real_units_) + integers_.convert_to<double>() + decimals_.real();
    if (positive_infinities_ != 0) total = INFINITY;
    if (negative_infinities_ != 0) total = positive_infinities_ != 0 ? NAN : -INFINITY;
    if (nans_ != 0) total = NAN;
    return average_ ? total / static_cast<double>(count_) : total;
  }

  const bool average_;
  std::int64_t count_ = 0, reals_ = 0;
  std::int64_t nans_ = 0, positive_infinities_ = 0, negative_infinities_ = 0;
  Integer integers_ = 0;
  Decimal decimals_;
  std::map<std::uint32_t, std::int64_t>
      scales_;  ///< Of the decimals that are in: how many have each.
  Integer real_units_ = 0;
};

/// Values are ordered as they are encoded, where each kind has a place of its own.
class OneKind {
 public:
  /// Throws if there are values of another kind.
  void check(const Members& members, const std::string& member) {
    if (member.front() == kind_) return;
    members.for_each(false, [&](std::string_view known, std::int64_t) {
      if (known.front() == member.front()) return false;
      std::string_view other = known, added = member;
      throw std::invalid_argument(
          "'" + Datum::take(added).value_or(Datum()).key_text() + "' and '" +
          Datum::take(other).value_or(Datum()).key_text() +
          "' are of two kinds, of which neither is the greater: make them one, as decimal(...) or "
          "a function does");
    });
    kind_ = member.front();
  }

 private:
  char kind_ = -1;  ///< That there was last.
};

/// The least or the greatest value, of all that are in.
class Extreme final : public Accumulator {
 public:
  Extreme(Members members, bool greatest) : members_(std::move(members)), greatest_(greatest) {}

  void add(const Datum& value, int weight) override {
    if (value.is_null()) return;
    std::string member;
    value.encode(member);
    if (weight > 0) kind_.check(members_, member);
    members_.add(member, weight);
    if (!is_known_) return;
    if (weight > 0) {
      if (extreme_.empty() || (greatest_ ? member > extreme_ : member < extreme_))
        extreme_ = std::move(member);
    } else if (member == extreme_) {
      is_known_ = false;  // it may be there once more: looked up when it is asked for
    }
  }
  Datum result() const override {
    look_up();
    std::string_view rest = extreme_;
    return extreme_.empty() ? Datum() : Datum::take(rest).value_or(Datum());
  }
  void encode(std::string& out) const override {
    look_up();
    Datum::blob(extreme_).encode(out);
  }
  bool restore(std::string_view& in) override {
    const auto extreme = Datum::take(in);
    if (extreme) extreme_ = extreme->text();
    return extreme.has_value();
  }

 private:
  void look_up() const {
    if (is_known_) return;
    extreme_.clear();
    members_.for_each(greatest_, [&](std::string_view member, std::int64_t) {
      extreme_ = member;
      return false;
    });
    is_known_ = true;
  }

  Members members_;
  OneKind kind_;
  const bool greatest_;
  mutable std::string extreme_;  ///< Encoded; empty if there is none.
  mutable bool is_known_ = true;
};

class DistinctCount final : public Accumulator {
 public:
  explicit DistinctCount(Members members) : members_(std::move(members)) {}

  void add(const Datum& value, int weight) override {
    if (value.is_null()) return;
    std::string member;
    value.normalized().encode(member);
    const std::int64_t before = members_.times(member);
    members_.add(member, weight);
    const std::int64_t after = before + weight;
    if (before == 0 && after != 0) ++count_;
    if (before != 0 && after == 0) --count_;
  }
  Datum result() const override { return count_; }
  void encode(std::string& out) const override { append_count(out, count_); }
  bool restore(std::string_view& in) override { return take_count(in, count_); }

 private:
  Members members_;
  std::int64_t count_ = 0;
};

class Top final : public Accumulator {
 public:
  Top(Members members, std::size_t count) : members_(std::move(members)), count_(count) {}

  void add(const Datum& value, int weight) override {
    if (value.is_null()) return;
    std::string member;
    value.encode(member);
    if (weight > 0) kind_.check(members_, member);
    members_.add(member, weight);
  }
  Datum result() const override {
    auto values = nlohmann::json::array();
    if (count_ > 0)
      members_.for_each(true, [&](std::string_view member, std::int64_t times) {
        const Datum value = Datum::take(member).value_or(Datum());
        for (; times > 0 && values.size() < count_; --times) {
          if (value.is_integer())
            values.push_back(value.integer());
          else if (value.is_real())
            values.push_back(value.real());
          else
            values.push_back(value.key_text());
        }
        return values.size() < count_;
      });
    return values.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  void encode(std::string&) const override {}
  bool restore(std::string_view&) override { return true; }

 private:
  Members members_;
  OneKind kind_;
  const std::size_t count_;
};

}  // namespace

std::unique_ptr<Accumulator> make_count(const Members&) { return std::make_unique<Count>(); }
std::unique_ptr<Accumulator> make_sum(const Members&) { return std::make_unique<Sum>(false); }
std::unique_ptr<Accumulator> make_average(const Members&) { return std::make_unique<Sum>(true); }
std::unique_ptr<Accumulator> make_minimum(const Members& members) {
  return std::make_unique<Extreme>(members, false);
}
std::unique_ptr<Accumulator> make_maximum(const Members& members) {
  return std::make_unique<Extreme>(members, true);
}
std::unique_ptr<Accumulator> make_distinct_count(const Members& members) {
  return std::make_unique<DistinctCount>(members);
}
std::unique_ptr<Accumulator> make_top(const Members& members, std::size_t count) {
  return std::make_unique<Top>(members, count);
}

}  // namespace millrace::projections::internal
