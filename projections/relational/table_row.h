#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "projections/change.h"
#include "projections/relational/datum.h"

namespace millrace::projections {

/// A row of a captured table as relations pass it on: columns as the database has them, null or a
/// value; and, wherever a function wants one, the message itself.
///
///     orders.where([](const TableRow<Orders>& o) { return !o[&Orders::paid_at].is_null(); })
///     orders.where([](const Orders& o) { return o.total_cents() > 100; })
///
/// Valid during the call that got it.
template <typename Row>
class TableRow {
 public:
  TableRow() = default;
  TableRow(TableRow&&) = default;
  TableRow& operator=(TableRow&&) = default;

  /// A column: null or its value. Columns that are messages (arrays, ranges) come by the message.
  template <typename T>
  Value operator[](T (Row::*getter)() const) const {
    using Plain = std::remove_cvref_t<T>;
    static_assert(std::is_arithmetic_v<Plain> || std::is_same_v<Plain, std::string>,
                  "this column is a message: take it from the row, by a function of (const Row&)");
    const auto& field = getters().field_of(getter);
    const auto* wire = wire_.find(field);
    if (wire == nullptr) return {};
    if constexpr (std::is_same_v<Plain, std::string>)
      return internal::is_bytes(field) ? Value::blob(wire->bytes) : Value(wire->bytes);
    else
      return internal::scalar_of<Plain>(*wire, field);
  }
  /// By the column's name, which the message must have.
  Datum column(std::string_view name) const;

  operator const Row&() const {  // NOLINT: a row is its message
    if (!is_parsed_ && !row_.ParseFromArray(bytes_.data(), static_cast<int>(bytes_.size())))
      throw internal::BadRow(*Row::descriptor());
    is_parsed_ = true;
    return row_;
  }
  const Row& operator*() const { return *this; }
  const Row* operator->() const { return &static_cast<const Row&>(*this); }

  // --- for the engine ---
  /// Of an encoded row that lives as long as this is used.
  void assign(std::string_view bytes) {
    bytes_ = bytes;
    is_parsed_ = false;
    if (!wire_.assign(bytes_)) throw internal::BadRow(*Row::descriptor());
  }
  /// Of a copy.
  void assign_copy(std::string_view bytes) {
    copy_.assign(bytes.begin(), bytes.end());
    assign({copy_.data(), copy_.size()});
  }
  /// The column that a getter reads.
  template <typename T>
  static const internal::FieldDescriptor& field_of(T (Row::*getter)() const) {
    return getters().field_of(getter);
  }

 private:
  static internal::GetterTable<Row>& getters() {
    static thread_local internal::GetterTable<Row> table;
    return table;
  }

  std::string_view bytes_;
  std::vector<char> copy_;  // a vector: its bytes stay where they are when it is moved
  internal::WireRow wire_{*Row::descriptor()};
  mutable Row row_;
  mutable bool is_parsed_ = false;
};

namespace internal {

/// The value of a field as it stands in a row; kUnsupported columns (messages) throw.
Datum datum_of(const WireRow& row, const FieldDescriptor& field);

template <typename T>
struct RowOf {};
template <typename Row>
struct RowOf<TableRow<Row>> {
  using type = Row;
};
template <typename T>
concept IsTableRow = requires {
  typename RowOf<T>::type;
};

/// True for `T (Row::*)() const` of the message behind a TableRow.
template <typename Expression, typename T>
struct IsGetter : std::false_type {};
template <typename Column, typename Row>
struct IsGetter<Column (Row::*)() const, TableRow<Row>> : std::true_type {};

/// What an expression of a relation gives for a row: a column's getter, a member, or a function.
template <typename Expression, typename T>
decltype(auto) evaluate(const Expression& expression, const T& row) {
  if constexpr (IsGetter<Expression, T>::value)
    return row[expression];
  else
    return std::invoke(expression, row);
}

template <typename Expression, typename T>
concept ExpressionOf =
    IsGetter<Expression, T>::value || std::is_invocable_v<const Expression&, const T&>;

/// The column that an expression reads; nothing of a function.
template <typename T, typename Expression>
const FieldDescriptor* column_of(const Expression& expression) {
  if constexpr (IsGetter<Expression, T>::value)
    return &T::field_of(expression);
  else
    return nullptr;
}

}  // namespace internal

template <typename Row>
Datum TableRow<Row>::column(std::string_view name) const {
  return internal::datum_of(wire_, internal::field_named(*Row::descriptor(), name));
}

}  // namespace millrace::projections
