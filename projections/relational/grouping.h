#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "projections/relational/aggregates.h"
#include "projections/relational/flow.h"
#include "projections/relational/own_fold.h"

namespace millrace::projections::internal {

/// The groups of an aggregation with their accumulators: what does not depend on the type of the
/// rows. Groups are in memory from when they are touched until the flow is flushed.
class Groups final : public Flow::Cache {
 public:
  struct Shape {
    std::vector<std::string> columns;     ///< What it is grouped by.
    std::vector<std::string> aggregates;  ///< Names of the results.
    std::vector<MakeAccumulator> make;
  };
  struct Group {
    std::vector<Datum> columns;
    std::int64_t rows = 0;
    std::vector<std::unique_ptr<Accumulator>> accumulators;
  };

  Groups(Shape shape, Flow& flow)
      : shape_(std::move(shape)), state_(flow.state_table()), members_(flow.state_index()) {}

  static std::string key_of(const std::vector<Datum>& columns);
  static std::vector<Datum> columns_of(std::string_view key);

  /// The group to change, made if it is not there.
  Group& touch(std::string_view key);
  /// The group's row; nothing if no row is in it.
  std::optional<Record> find(std::string_view key);
  std::optional<Record> row_of(const Group& group) const;

  void write_back() override;
  std::size_t bytes_in_memory() const override;

 private:
  Group* get(std::string_view key);
  Group& load(std::string_view key);

  Shape shape_;
  StateTable& state_;
  StateIndex& members_;
  StringMap<Group> loaded_;
  std::size_t loaded_bytes_ = 0;  ///< About.
};

/// Rows grouped by values, each group one row of its aggregates.
template <typename T, typename By, typename... Expressions>
class GroupBy final : public Consumer<T>, public Node<Record> {
 public:
  GroupBy(Node<T>& from, By by, std::tuple<Expressions...> expressions, Groups& groups)
      : by_(std::move(by)), expressions_(std::move(expressions)), groups_(groups) {
    from.feed(*this);
  }

  void take(const Delta<T>& delta) override {
    if (delta.before) columns_of(*delta.before, old_columns_);
    if (delta.after) columns_of(*delta.after, columns_);
    const bool stays = delta.before && delta.after && old_columns_ == columns_;
    if (stays) return change(columns_, delta.key, delta.before, delta.after);
    if (delta.before) change(old_columns_, delta.key, delta.before, nullptr);
    if (delta.after) change(columns_, delta.key, nullptr, delta.after);
  }

  /// What a join asks for as of before has not been touched yet: see flow.h.
  bool find(std::string_view key, When, std::optional<Record>& row) override {
    row = groups_.find(key);
    return row.has_value();
  }
  Datum visible_key(std::string_view key) const override {
    const std::vector<Datum> columns = Groups::columns_of(key);
    if (columns.size() == 1) return columns.front();
    std::string text;
    for (const Datum& column : columns)
      text += (&column == &columns.front() ? "" : ",") + column.key_part();
    return text;
  }
  std::string key_of(const Datum& reference) const override {
    return Groups::key_of({reference.normalized()});
  }

 private:
  void columns_of(const T& row, std::vector<Datum>& columns) const {
    columns.clear();
    std::apply(
        [&](const auto&... by) { (columns.push_back(Datum(evaluate(by, row)).normalized()), ...); },
        by_);
  }

  void change(const std::vector<Datum>& columns, std::string_view row_key, const T* gone,
              const T* come) {
    const std::string key = Groups::key_of(columns);
    const bool passes_rows = this->rows_are_needed();
    Groups::Group& group = groups_.touch(key);
    std::optional<Record> before = passes_rows ? groups_.row_of(group) : std::nullopt;
    if (gone) count(group, row_key, *gone, -1);
    if (come) count(group, row_key, *come, 1);
    if (!passes_rows) return this->emit({key});
    const std::optional<Record> after = groups_.row_of(group);
    if (before || after) this->emit({key, before ? &*before : nullptr, after ? &*after : nullptr});
  }

  void count(Groups::Group& group, std::string_view row_key, const T& row, int weight) {
    group.rows += weight;
    std::size_t i = 0;
    const auto add = [&](const auto& expression) {
      Accumulator& accumulator = *group.accumulators[i++];
      if constexpr (kIsOwnFold<std::remove_cvref_t<decltype(expression)>>)
        static_cast<RowAccumulator<T>&>(accumulator).change(row, row_key, weight);
      else
        accumulator.add(Datum(evaluate(expression, row)), weight);
    };
    std::apply([&](const auto&... expression) { (add(expression), ...); }, expressions_);
  }

  By by_;
  std::tuple<Expressions...> expressions_;
  Groups& groups_;
  std::vector<Datum> columns_, old_columns_;  // reused
};

}  // namespace millrace::projections::internal
