#pragma once

#include <google/protobuf/descriptor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "projections/relational/equi_join.h"
#include "projections/relational/grouping.h"
#include "projections/relational/operators.h"

// What relations are declared as: values that can be shared, from which a Flow is made for each
// file.

namespace millrace::projections::internal {

struct SourceUse {
  std::string category;
  const google::protobuf::Descriptor* row = nullptr;  ///< Of a table.
  bool is_events = false;
  std::vector<ColumnUse> uses{};
};

/// The type of a column's value in a row message.
inline ColumnType type_of(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: return ColumnType::kReal;
    case FieldDescriptor::CPPTYPE_STRING:
      return is_bytes(field) ? ColumnType::kBlob : ColumnType::kText;
    default: return ColumnType::kInteger;
  }
}

/// The same of whatever an expression gives; kBlob if that is any.
template <typename T, typename Expression>
ColumnType type_given_by(const Expression& expression) {
  if constexpr (IsGetter<Expression, T>::value)
    return type_of(T::field_of(expression));
  else if constexpr (kIsAsDecimal<Expression>)
    return ColumnType::kNumeric;
  else
    return column_type<std::invoke_result_t<const Expression&, const T&>>();
}

/// Tells the sources from `first` on that have the column of it, if it is one.
inline void add_use(std::vector<SourceUse>& sources, std::size_t first, ColumnUse::Kind kind,
                    const FieldDescriptor* column) {
  if (column == nullptr) return;
  for (; first < sources.size(); ++first)
    if (sources[first].row == column->containing_type())
      sources[first].uses.push_back({.kind = kind, .column = column->name()});
}

/// What is known of a relation before there is any row.
struct Shape {
  std::vector<Column> columns;  ///< Of a Record whose fields the plan knows; else empty.
  std::optional<Column> key{};  ///< What the key is called and of which type.
  bool key_is_first = false;    ///< It is the first of the columns.
  bool is_referable = false;    ///< The key is one value, which rows of others may have.
  bool is_compound = false;     ///< It is a text that is made of others, as "7,42" or "7/0".
  const google::protobuf::Descriptor* row = nullptr;  ///< Of a table's rows.
  std::string table_of_key{};                         ///< The table whose key it is.
  std::string problem{};                              ///< Why it can't be made.
};

template <typename T>
class Plan {
 public:
  virtual ~Plan() = default;
  virtual Node<T>& build(Flow& flow) const = 0;
  /// A line for each operator, those that feed it below it, indented.
  virtual void describe(std::string& out, int depth) const = 0;
  virtual void sources(std::vector<SourceUse>& out) const = 0;
  virtual Shape shape() const { return {}; }

 protected:
  static void line(std::string& out, int depth, std::string_view text) {
    out.append(static_cast<std::size_t>(depth) * 2, ' ').append(text) += '\n';
  }
};

template <typename T>
using PlanOf = std::shared_ptr<const Plan<T>>;

template <typename Row>
class TablePlan final : public Plan<TableRow<Row>> {
 public:
  explicit TablePlan(std::string category) : category_(std::move(category)) {}

  Node<TableRow<Row>>& build(Flow& flow) const override {
    return flow.add<TableLeaf<Row>>(flow.source(category_));
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth, "table " + category_);
  }
  void sources(std::vector<SourceUse>& out) const override {
    out.push_back({category_, Row::descriptor()});
  }
  Shape shape() const override {
    return {
        .columns = {}, .is_referable = true, .row = Row::descriptor(), .table_of_key = category_};
  }

 private:
  std::string category_;
};

template <typename T, typename Predicate>
class WherePlan final : public Plan<T> {
 public:
  WherePlan(PlanOf<T> from, Predicate predicate)
      : from_(std::move(from)), predicate_(std::move(predicate)) {}

  Node<T>& build(Flow& flow) const override {
    return flow.add<Where<T, Predicate>>(from_->build(flow), predicate_);
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth, "where");
    from_->describe(out, depth + 1);
  }
  void sources(std::vector<SourceUse>& out) const override { from_->sources(out); }
  Shape shape() const override { return from_->shape(); }

 private:
  PlanOf<T> from_;
  Predicate predicate_;
};

/// Map and FlatMap.
template <typename T, typename U, typename Function,
          template <typename, typename, typename> typename Operator>
class MapPlan final : public Plan<U> {
 public:
  MapPlan(PlanOf<T> from, Function function, std::string what)
      : from_(std::move(from)), function_(std::move(function)), what_(std::move(what)) {}

  Node<U>& build(Flow& flow) const override {
    return flow.add<Operator<T, U, Function>>(from_->build(flow), function_);
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth, what_);
    from_->describe(out, depth + 1);
  }
  void sources(std::vector<SourceUse>& out) const override { from_->sources(out); }
  Shape shape() const override {
    const Shape from = from_->shape();
    if (kMakesSeveral) return {.columns = {}, .is_compound = true, .problem = from.problem};
    return {.columns = {},
            .key = from.key,
            .is_referable = from.is_referable,
            .is_compound = from.is_compound,
            .table_of_key = from.table_of_key,
            .problem = from.problem};
  }

 private:
  PlanOf<T> from_;
  static constexpr bool kMakesSeveral =
      std::is_same_v<Operator<T, U, Function>, FlatMap<T, U, Function>>;

  Function function_;
  std::string what_;
};

template <typename T>
class UnionPlan final : public Plan<T> {
 public:
  UnionPlan(PlanOf<T> first, PlanOf<T> second)
      : first_(std::move(first)), second_(std::move(second)) {}

  Node<T>& build(Flow& flow) const override {
    Node<T>& first = first_->build(flow);
    return flow.add<Union<T>>(first, second_->build(flow));
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth, "union");
    first_->describe(out, depth + 1);
    second_->describe(out, depth + 1);
  }
  void sources(std::vector<SourceUse>& out) const override {
    first_->sources(out);
    second_->sources(out);
  }
  Shape shape() const override {
    const Shape first = first_->shape(), second = second_->shape();
    return {.columns = first.columns,
            .is_compound = true,
            .problem = first.problem.empty() ? second.problem : first.problem};
  }

 private:
  PlanOf<T> first_, second_;
};

/// By reference (`right_value` is Nothing) or by equal values.
template <typename L, typename R, typename U, typename Left, typename Right, typename Combine>
class JoinPlan final : public Plan<U> {
 public:
  JoinPlan(PlanOf<L> left, PlanOf<R> right, Left left_value, Right right_value, Combine combine,
           bool keeps_unmatched)
      : left_(std::move(left)),
        right_(std::move(right)),
        left_value_(std::move(left_value)),
        right_value_(std::move(right_value)),
        combine_(std::move(combine)),
        keeps_unmatched_(keeps_unmatched) {}

  Node<U>& build(Flow& flow) const override {
    Node<L>& left = left_->build(flow);  // the order matters: see flow.h
    Node<R>& right = right_->build(flow);
    StateIndex& lefts = flow.state_index();
    if constexpr (kByReference) {
      return flow.add<ReferenceJoin<L, R, U, Left, Combine>>(left, right, lefts, left_value_,
                                                             combine_, keeps_unmatched_);
    } else {
      StateIndex& rights = flow.state_index();
      return flow.add<EquiJoin<L, R, U, Left, Right, Combine>>(
          left, right, lefts, rights, left_value_, right_value_, combine_, keeps_unmatched_);
    }
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth,
               std::string(keeps_unmatched_ ? "left join" : "join") +
                   (kByReference ? " by reference" : " by value") +
                   name(column_of<L>(left_value_)));
    left_->describe(out, depth + 1);
    right_->describe(out, depth + 1);
  }
  void sources(std::vector<SourceUse>& out) const override {
    const std::size_t first = out.size();
    left_->sources(out);
    const std::size_t first_right = out.size();
    right_->sources(out);
    if constexpr (!kByReference) {
      add_use(out, first, ColumnUse::Kind::kMatched, column_of<L>(left_value_));
      add_use(out, first_right, ColumnUse::Kind::kMatched, column_of<R>(right_value_));
    } else if constexpr (IsTableRow<R>) {
      const FieldDescriptor* column = column_of<L>(left_value_);
      for (std::size_t i = first_right; i < out.size(); ++i)
        if (out[i].row == right_->shape().row)
          out[i].uses.push_back({.kind = ColumnUse::Kind::kReferred,
                                 .column = column ? column->name() : std::string(),
                                 .type = type_given_by<L>(left_value_)});
    }
  }
  Shape shape() const override {
    const Shape left = left_->shape(), right = right_->shape();
    Shape shape;
    shape.problem = left.problem.empty() ? right.problem : left.problem;
    if constexpr (!kByReference) {
      if (shape.problem.empty()) shape.problem = mismatch();
      shape.is_compound = true;
      return shape;
    }
    shape.key = left.key;
    shape.is_referable = left.is_referable;
    shape.is_compound = left.is_compound;
    shape.table_of_key = left.table_of_key;
    if (shape.problem.empty() && !right.is_referable)
      shape.problem =
          "its join by reference has a right side whose rows have no key of one value: it must be "
          "a table, or what was grouped by one column; else join by values, on(...)";
    return shape;
  }

 private:
  static constexpr bool kByReference = std::is_same_v<Right, std::nullptr_t>;
  /// Of columns that can't be equal.
  std::string mismatch() const {
    const FieldDescriptor* left = column_of<L>(left_value_);
    const FieldDescriptor* right = column_of<R>(right_value_);
    if (left == nullptr || right == nullptr) return {};
    const auto is_number = [](const FieldDescriptor& field) {
      const ColumnType type = type_of(field);
      return type == ColumnType::kInteger || type == ColumnType::kReal;
    };
    if (is_number(*left) == is_number(*right)) return {};
    return "its join compares column '" + left->name() + "' of " + left->containing_type()->name() +
           " with '" + right->name() + "' of " + right->containing_type()->name() +
           ", a number with what is none: give on() a function that makes the one of the other";
  }
  static std::string name(const FieldDescriptor* column) {
    return column ? " " + column->name() : std::string();
  }

  PlanOf<L> left_;
  PlanOf<R> right_;
  Left left_value_;
  Right right_value_;
  Combine combine_;
  bool keeps_unmatched_;
};

template <typename T, typename By, typename... Expressions>
class GroupPlan final : public Plan<Record> {
 public:
  GroupPlan(PlanOf<T> from, By by, std::vector<Column> by_columns,
            std::tuple<Aggregate<Expressions>...> aggregates)
      : from_(std::move(from)),
        by_(std::move(by)),
        by_columns_(std::move(by_columns)),
        aggregates_(std::move(aggregates)) {}

  Node<Record>& build(Flow& flow) const override {
    Node<T>& from = from_->build(flow);
    Groups::Shape shape;
    for (const Column& column : by_columns_) shape.columns.push_back(column.name);
    each([&](const auto& aggregate) {
      shape.aggregates.push_back(aggregate.name);
      if constexpr (kIsOwnFold<std::remove_cvref_t<decltype(aggregate.expression)>>)
        shape.make.push_back(aggregate.expression.maker(from));
      else
        shape.make.push_back(aggregate.make);
    });
    Groups& groups = flow.add<Groups>(std::move(shape), flow);
    auto expressions = std::apply(
        [](const auto&... aggregate) { return std::make_tuple(aggregate.expression...); },
        aggregates_);
    return flow.add<GroupBy<T, By, Expressions...>>(from, by_, std::move(expressions), groups);
  }
  void describe(std::string& out, int depth) const override {
    std::string text = "group by";
    for (const Column& column : by_columns_) text += " " + column.name;
    this->line(out, depth, text);
    each([&](const auto& aggregate) {
      const FieldDescriptor* column = column_of<T>(aggregate.expression);
      this->line(out, depth,
                 aggregate.name + " = " + aggregate.what + (column ? " " + column->name() : ""));
    });
    from_->describe(out, depth + 1);
  }
  void sources(std::vector<SourceUse>& out) const override {
    const std::size_t first = out.size();
    from_->sources(out);
    const auto add = [&](ColumnUse::Kind kind, const auto& expression) {
      add_use(out, first, kind, column_of<T>(expression));
    };
    std::apply([&](const auto&... by) { (add(ColumnUse::Kind::kMatched, by), ...); }, by_);
    each([&](const auto& aggregate) {
      if (aggregate.compares) add(*aggregate.compares, aggregate.expression);
      if constexpr (kIsOwnFold<std::remove_cvref_t<decltype(aggregate.expression)>>)
        if constexpr (kIsThere<decltype(aggregate.expression.order)>)
          add(ColumnUse::Kind::kOrdered, aggregate.expression.order.expression);
    });
  }
  Shape shape() const override {
    Shape shape;
    shape.problem = from_->shape().problem;
    shape.key_is_first = shape.is_referable = by_columns_.size() == 1;
    shape.columns = by_columns_;
    each([&](const auto& aggregate) {
      Column column{aggregate.name, aggregate.type, aggregate.counter};
      if constexpr (!kIsOwnFold<std::remove_cvref_t<decltype(aggregate.expression)>>)
        if (aggregate.compares == ColumnUse::Kind::kOrdered &&
            aggregate.type == ColumnType::kBlob)  // it is one of the values
          column.type = type_given_by<T>(aggregate.expression);
      shape.columns.push_back(std::move(column));
    });
    if (by_columns_.size() == 1)
      shape.key = by_columns_.front();
    else
      shape.key = Column{.name = "key"};
    shape.is_compound = by_columns_.size() != 1;
    return shape;
  }

 private:
  template <typename Visit>
  void each(const Visit& visit) const {
    std::apply([&](const auto&... aggregate) { (visit(aggregate), ...); }, aggregates_);
  }

  PlanOf<T> from_;
  By by_;
  std::vector<Column> by_columns_;
  std::tuple<Aggregate<Expressions>...> aggregates_;
};

}  // namespace millrace::projections::internal
