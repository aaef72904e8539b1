#pragma once

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "projections/cache_table.h"
#include "projections/relational/plan.h"
#include "projections/relational/relational_view.h"
#include "projections/search_index.h"

namespace millrace::projections {

/// The sinks of into(), as they read there.
using cache_table = CacheTableOptions;
using search_index = SearchIndexOptions;

/// Something to group by: its name in the result and what computes it.
template <typename Expression>
struct By {
  std::string name;
  Expression expression;
};
template <typename Expression>
By<Expression> by(std::string name, Expression expression) {
  return {std::move(name), std::move(expression)};
}

/// The values that the two sides of a join have in common.
template <typename Left, typename Right>
struct On {
  Left left;
  Right right;
};
template <typename Left, typename Right>
On<Left, Right> on(Left left, Right right) {
  return {std::move(left), std::move(right)};
}

template <typename T, bool kNamed = false>
class Relation;

namespace internal {

/// What a view is called; a relation without one can't be written anywhere.
struct Identity {
  std::string name;
  Version version;
};

/// A column's getter is named by its column.
template <typename T, typename Expression>
struct Grouping {
  static auto expression(Expression expression) { return expression; }
  static Column column(const Expression& expression) {
    static_assert(IsGetter<Expression, T>::value,
                  "group_by a function: name what it gives, by(\"name\", function)");
    const FieldDescriptor* field = column_of<T>(expression);
    return {field->name(), type_of(*field)};
  }
};
/// So is a numeric column as the number that it is. The view has it as text.
template <typename T, typename Getter>
struct Grouping<T, AsDecimal<Getter>> {
  static auto expression(AsDecimal<Getter> decimal) { return decimal; }
  static Column column(const AsDecimal<Getter>& decimal) {
    return {Grouping<T, Getter>::column(decimal.expression).name, ColumnType::kText};
  }
};
template <typename T, typename Expression>
struct Grouping<T, By<Expression>> {
  static auto expression(By<Expression> by) { return by.expression; }
  static Column column(const By<Expression>& by) {
    if constexpr (IsGetter<Expression, T>::value) {
      return {by.name, Grouping<T, Expression>::column(by.expression).type};
    } else if constexpr (kIsAsDecimal<Expression>) {
      return {by.name, ColumnType::kText};
    } else {
      return {by.name, column_type<std::invoke_result_t<const Expression&, const T&>>()};
    }
  }
};

}  // namespace internal

/// Rows in groups, to be aggregated.
template <typename T, bool kNamed, typename... Bys>
class Grouped {
 public:
  /// One row per group: what it is grouped by, then the aggregates by their names. A group without
  /// rows is gone.
  template <typename... Expressions>
  Relation<Record, kNamed> aggregate(Aggregate<Expressions>... aggregates) &&;

 private:
  template <typename, bool>
  friend class Relation;
  Grouped(Relation<T, kNamed> from, std::tuple<Bys...> by)
      : from_(std::move(from)), by_(std::move(by)) {}

  Relation<T, kNamed> from_;
  std::tuple<Bys...> by_;
};

/// Rows that change: a captured table, or what was made of others. A value, which can be copied and
/// used in several views; nothing runs before an App does.
///
/// Functions must depend on nothing but their arguments. They are given a row as (const T&), of a
/// table also as the message that it is.
template <typename T, bool kNamed>
class Relation {
 public:
  using Row = T;

  /// The rows for which `predicate` is true.
  template <internal::ExpressionOf<T> Predicate>
  Relation where(Predicate predicate) const {
    return derived<T>(
        std::make_shared<internal::WherePlan<T, Predicate>>(plan_, std::move(predicate)));
  }

  /// Each row as `function` makes another of it; its key stays.
  template <internal::ExpressionOf<T> Function>
  auto map(Function function) const {
    using U = std::remove_cvref_t<std::invoke_result_t<const Function&, const T&>>;
    static_assert(!std::is_same_v<U, Value> && !std::is_same_v<U, std::string_view>,
                  "this is a view of a row that is gone then: give a Datum or a std::string");
    return derived<U>(std::make_shared<internal::MapPlan<T, U, Function, internal::Map>>(
        plan_, std::move(function), "map"));
  }

  /// Each row as those that `function` makes of it, a std::vector; their keys are "<key>/0",
  /// "<key>/1" and so on.
  template <typename Function>
  auto flat_map(Function function) const {
    using Rows = std::remove_cvref_t<std::invoke_result_t<const Function&, const T&>>;
    using U = typename Rows::value_type;
    return derived<U>(std::make_shared<internal::MapPlan<T, U, Function, internal::FlatMap>>(
        plan_, std::move(function), "flat_map"));
  }

  /// By columns, numeric ones as decimal(&Row::column), or by("name", function). Rows in which one
  /// of them is null are a group, too, but for a view whose key it is.
  template <typename... Keys>
  auto group_by(Keys... keys) const {
    return Grouped<T, kNamed, Keys...>(*this, std::make_tuple(std::move(keys)...));
  }

  /// Each row with the one of `right` whose key `reference` gives: a foreign key. `combine(const
  /// T&, const R*)` makes the result's row. Its key is that of the left row.
  template <typename R, bool kOther, internal::ExpressionOf<T> Reference, typename Combine>
  auto join(const Relation<R, kOther>& right, Reference reference, Combine combine) const {
    return joined(right, std::move(reference), nullptr, std::move(combine), false);
  }
  /// The same, but a row that refers to none is kept: combine() gets a nullptr then.
  template <typename R, bool kOther, internal::ExpressionOf<T> Reference, typename Combine>
  auto left_join(const Relation<R, kOther>& right, Reference reference, Combine combine) const {
    return joined(right, std::move(reference), nullptr, std::move(combine), true);
  }
  /// Each pair of rows with equal values: on(&Left::a, &Right::b). The key is both keys,
  /// "left,right".
  template <typename R, bool kOther, typename A, typename B, typename Combine>
  auto join(const Relation<R, kOther>& right, On<A, B> on, Combine combine) const {
    return joined(right, std::move(on.left), std::move(on.right), std::move(combine), false);
  }
  template <typename R, bool kOther, typename A, typename B, typename Combine>
  auto left_join(const Relation<R, kOther>& right, On<A, B> on, Combine combine) const {
    return joined(right, std::move(on.left), std::move(on.right), std::move(combine), true);
  }

  /// The rows of both, equal ones twice. Keys are "0/<key>" and "1/<key>".
  template <bool kOther>
  Relation union_with(const Relation<T, kOther>& other) const {
    return derived<T>(std::make_shared<internal::UnionPlan<T>>(plan_, other.plan()));
  }

  /// The view whose rows these are: columns by their names, those of an aggregation all if none are
  /// given.
  RelationalView into(cache_table table) const {
    return view(std::move(table), internal::by_name<T>);
  }
  RelationalView into(search_index index) const {
    return view(std::move(index), internal::by_name<T>);
  }
  /// The same, but `function(const T&)` makes the view's row, a Record.
  template <internal::ExpressionOf<T> Function>
  RelationalView into(cache_table table, Function function) const {
    return view(std::move(table), made_by(std::move(function)));
  }
  template <internal::ExpressionOf<T> Function>
  RelationalView into(search_index index, Function function) const {
    return view(std::move(index), made_by(std::move(function)));
  }

  // --- for what is beside it in this file ---
  Relation(internal::PlanOf<T> plan, internal::Identity identity)
      : plan_(std::move(plan)), identity_(std::move(identity)) {}
  const internal::PlanOf<T>& plan() const { return plan_; }
  const internal::Identity& identity() const { return identity_; }

 private:
  template <typename U>
  Relation<U, kNamed> derived(internal::PlanOf<U> plan) const {
    return {std::move(plan), identity_};
  }

  template <typename R, bool kOther, typename Left, typename Right, typename Combine>
  auto joined(const Relation<R, kOther>& right, Left left_value, Right right_value, Combine combine,
              bool keeps_unmatched) const {
    static_assert(std::is_invocable_v<const Combine&, const T&, const R*>,
                  "a join's function takes (const Left&, const Right*)");
    using U = std::remove_cvref_t<std::invoke_result_t<const Combine&, const T&, const R*>>;
    return derived<U>(std::make_shared<internal::JoinPlan<T, R, U, Left, Right, Combine>>(
        plan_, right.plan(), std::move(left_value), std::move(right_value), std::move(combine),
        keeps_unmatched));
  }

  template <typename Function>
  static auto made_by(Function function) {
    return [function = std::move(function)](const T& row, const std::vector<std::string>&) {
      return Record(internal::evaluate(function, row));
    };
  }

  template <typename Options, typename Function>
  RelationalView view(Options options, Function function) const {
    static_assert(kNamed, "a view needs a name: begin with view(\"name\", Version{1}).from(...)");
    return internal::make_view<T>(identity_.name, identity_.version, plan_, std::move(options),
                                  std::move(function));
  }

  internal::PlanOf<T> plan_;
  internal::Identity identity_;
};

template <typename T, bool kNamed, typename... Bys>
template <typename... Expressions>
Relation<Record, kNamed> Grouped<T, kNamed, Bys...>::aggregate(
    Aggregate<Expressions>... aggregates) && {
  std::vector<Column> columns;
  std::apply(
      [&](const auto&... by) {
        (columns.push_back(internal::Grouping<T, std::remove_cvref_t<decltype(by)>>::column(by)),
         ...);
      },
      by_);
  auto expressions = std::apply(
      [](const auto&... by) {
        return std::make_tuple(
            internal::Grouping<T, std::remove_cvref_t<decltype(by)>>::expression(by)...);
      },
      by_);
  using Plan = internal::GroupPlan<T, decltype(expressions), Expressions...>;
  return {std::make_shared<Plan>(from_.plan(), std::move(expressions), std::move(columns),
                                 std::make_tuple(std::move(aggregates)...)),
          from_.identity()};
}

/// The rows of a captured table, `category` being its name in the log:
/// table<shop::Orders>("public.orders"). Where the source does not send a row as it was, or leaves
/// out what did not change, the view knows it by itself: no REPLICA IDENTITY FULL is needed.
template <typename Row>
Relation<TableRow<Row>> table(std::string category) {
  static_assert(std::derived_from<Row, google::protobuf::Message>,
                "table<Row>: Row is a message that protoc made of `millrace schema export`");
  return {std::make_shared<internal::TablePlan<Row>>(std::move(category)), {}};
}

/// view("name", Version{1}).from(relation) is that relation as a view, once it ends with into().
class ViewName {
 public:
  ViewName(std::string name, Version version) : identity_{std::move(name), version} {}

  template <typename T, bool kOther>
  Relation<T, true> from(const Relation<T, kOther>& relation) const {
    return {relation.plan(), identity_};
  }

 private:
  internal::Identity identity_;
};
inline ViewName view(std::string name, Version version) { return {std::move(name), version}; }

}  // namespace millrace::projections
