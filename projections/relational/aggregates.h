#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "projections/relational/flow.h"
#include "projections/relational/table_row.h"

namespace millrace::projections {

namespace internal {

/// What a group knows of the values of one aggregate: values go in and come out again in any order,
/// and the result is that of those that are in. Threads: one.
class Accumulator {
 public:
  virtual ~Accumulator() = default;
  /// `weight` is 1 for a value that comes, -1 for one that goes; `members` are those of this group
  /// and aggregate.
  virtual void add(const Datum& value, int weight) = 0;
  virtual Datum result() const = 0;
  /// Bytes from which restore() goes on.
  virtual void encode(std::string& out) const = 0;
  /// False if `in` does not begin with what encode() wrote; else takes that away.
  virtual bool restore(std::string_view& in) = 0;
};

/// Where an accumulator that needs every value, not only their sum, keeps them.
class Members {
 public:
  Members(StateIndex& index, std::string key) : index_(&index), key_(std::move(key)) {}
  void add(std::string_view member, int weight) { index_->add(key_, member, weight); }
  std::int64_t times(std::string_view member) const { return index_->times(key_, member); }
  template <typename Visit>
  void for_each(bool from_end, const Visit& visit) const {
    if (from_end)
      index_->for_each_from_end(key_, visit);
    else
      index_->for_each(key_, visit);
  }

 private:
  StateIndex* index_;
  std::string key_;
};

using MakeAccumulator = std::function<std::unique_ptr<Accumulator>(const Members&)>;

/// Of a column that holds what a function gives.
template <typename R>
constexpr ColumnType column_type() {
  using Plain = std::remove_cvref_t<R>;
  if constexpr (std::is_same_v<Plain, Decimal>) return ColumnType::kNumeric;
  if constexpr (std::is_integral_v<Plain>) return ColumnType::kInteger;
  if constexpr (std::is_floating_point_v<Plain>) return ColumnType::kReal;
  if constexpr (std::is_convertible_v<Plain, std::string_view>) return ColumnType::kText;
  return ColumnType::kBlob;  // whatever it holds stays as it is
}

std::unique_ptr<Accumulator> make_count(const Members& members);
std::unique_ptr<Accumulator> make_sum(const Members& members);
std::unique_ptr<Accumulator> make_average(const Members& members);
std::unique_ptr<Accumulator> make_minimum(const Members& members);
std::unique_ptr<Accumulator> make_maximum(const Members& members);
std::unique_ptr<Accumulator> make_distinct_count(const Members& members);
std::unique_ptr<Accumulator> make_top(const Members& members, std::size_t count);

}  // namespace internal

/// One column of an aggregation: made by count(), sum() and the others below.
template <typename Expression>
struct Aggregate {
  std::string name;
  ColumnType type;
  bool counter = false;
  std::string what;
  Expression expression;
  internal::MakeAccumulator make;
  /// Values are compared so, which a numeric column must not be as the text that it is.
  std::optional<internal::ColumnUse::Kind> compares{};
};

/// Stands for the row itself.
struct EachRow {
  template <typename T>
  Datum operator()(const T&) const {
    return 1;
  }
};

/// How many rows.
inline Aggregate<EachRow> count(std::string name) {
  return {std::move(name), ColumnType::kInteger, true, "count", {}, internal::make_count};
}
/// How many of them have a value.
template <typename Expression>
Aggregate<Expression> count(std::string name, Expression expression) {
  return {std::move(name), ColumnType::kInteger,  true,
          "count",         std::move(expression), internal::make_count};
}
/// Exact, whatever comes and goes: of integers an integer (a decimal beyond 64 bits), of a numeric
/// column's text a Decimal, of reals the real next to the true sum. Null where there is no value.
template <typename Expression>
Aggregate<Expression> sum(std::string name, Expression expression) {
  return {std::move(name), ColumnType::kNumeric,  false,
          "sum",           std::move(expression), internal::make_sum};
}
/// The sum over the count: of integers and decimals a Decimal with the digits that PostgreSQL
/// gives.
template <typename Expression>
Aggregate<Expression> avg(std::string name, Expression expression) {
  return {std::move(name), ColumnType::kNumeric,  false,
          "avg",           std::move(expression), internal::make_average};
}
/// Text compares byte by byte, as with COLLATE "C". A numeric column is text: say
/// decimal(&Row::column).
template <typename Expression>
Aggregate<Expression> min(std::string name, Expression expression) {
  return {std::move(name),
          ColumnType::kBlob,
          false,
          "min",
          std::move(expression),
          internal::make_minimum,
          internal::ColumnUse::Kind::kOrdered};
}
template <typename Expression>
Aggregate<Expression> max(std::string name, Expression expression) {
  return {std::move(name),
          ColumnType::kBlob,
          false,
          "max",
          std::move(expression),
          internal::make_maximum,
          internal::ColumnUse::Kind::kOrdered};
}
/// How many different values; of a numeric column say decimal(&Row::column).
template <typename Expression>
Aggregate<Expression> distinct_count(std::string name, Expression expression) {
  return {std::move(name),
          ColumnType::kInteger,
          true,
          "distinct_count",
          std::move(expression),
          internal::make_distinct_count,
          internal::ColumnUse::Kind::kMatched};
}
/// The `k` greatest values, greatest first, as a JSON array.
template <typename Expression>
Aggregate<Expression> top(std::string name, std::size_t k, Expression expression) {
  return {std::move(name),
          ColumnType::kText,
          false,
          "top " + std::to_string(k),
          std::move(expression),
          [k](const internal::Members& members) { return internal::make_top(members, k); },
          internal::ColumnUse::Kind::kOrdered};
}

/// A numeric column as the number that it is: min("cheapest", decimal(&Products::price)).
template <typename Expression>
struct AsDecimal {
  Expression expression;

  template <typename T>
  requires internal::ExpressionOf<Expression, T> Datum operator()(const T& row) const {
    const Datum value(internal::evaluate(expression, row));
    if (value.is_null()) return {};
    if (auto number = value.decimal()) return *std::move(number);
    throw std::invalid_argument("'" + value.key_text() + "' is no decimal number");
  }
};
namespace internal {
template <typename Expression>
inline constexpr bool kIsAsDecimal = false;
template <typename Expression>
inline constexpr bool kIsAsDecimal<AsDecimal<Expression>> = true;
}  // namespace internal
template <typename Expression>
AsDecimal<Expression> decimal(Expression expression) {
  return {std::move(expression)};
}

}  // namespace millrace::projections
