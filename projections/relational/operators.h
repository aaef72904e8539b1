#pragma once

#include <charconv>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/relational/flow.h"
#include "projections/relational/table_row.h"

// The operators of a flow but for aggregation. Each is fed by one or two nodes and feeds one.

namespace millrace::projections::internal {

/// A source table as typed rows.
template <typename Row>
class TableLeaf final : public Leaf, public Node<TableRow<Row>> {
 public:
  explicit TableLeaf(SourceTable& table) : table_(table) { table_.add(*this); }

  void changed(std::string_view key, std::optional<std::string_view> before,
               std::optional<std::string_view> after) override {
    if (before) before_.assign(*before);
    if (after) after_.assign(*after);
    this->emit({key, before ? &before_ : nullptr, after ? &after_ : nullptr});
  }
  bool rows_are_needed() const override { return Node<TableRow<Row>>::rows_are_needed(); }

  bool find(std::string_view key, When when, std::optional<TableRow<Row>>& row) override {
    const auto bytes = table_.find(key, when);
    if (!bytes) return false;
    if (!row) row.emplace();
    row->assign_copy(*bytes);
    return true;
  }
  Datum visible_key(std::string_view key) const override { return key; }
  std::string key_of(const Datum& reference) const override {
    if (reference.is_real() || reference.is_blob())
      throw std::invalid_argument(
          "a reference to a row must be a number without fraction, or text as the row's key has "
          "it");
    return reference.key_text();
  }

 private:
  SourceTable& table_;
  TableRow<Row> before_, after_;
};

template <typename T, typename Predicate>
class Where final : public Consumer<T>, public Node<T> {
 public:
  Where(Node<T>& from, Predicate predicate) : from_(from), predicate_(std::move(predicate)) {
    from.feed(*this);
  }

  void take(const Delta<T>& delta) override {
    if (!needs_rows()) return this->emit(delta);
    const T* before = kept(delta.before);
    const T* after = kept(delta.after);
    if (before || after) this->emit({delta.key, before, after});
  }
  bool needs_rows() const override { return this->rows_are_needed(); }
  bool find(std::string_view key, When when, std::optional<T>& row) override {
    return from_.find(key, when, row) && kept(&*row) != nullptr;
  }
  Datum visible_key(std::string_view key) const override { return from_.visible_key(key); }
  std::string key_of(const Datum& reference) const override { return from_.key_of(reference); }

 private:
  const T* kept(const T* row) const { return row && evaluate(predicate_, *row) ? row : nullptr; }

  Node<T>& from_;
  Predicate predicate_;
};

template <typename T, typename U, typename Function>
class Map final : public Consumer<T>, public Node<U> {
 public:
  Map(Node<T>& from, Function function) : from_(from), function_(std::move(function)) {
    from.feed(*this);
  }

  void take(const Delta<T>& delta) override {
    if (!needs_rows()) return this->emit({delta.key});
    std::optional<U> before, after;
    if (delta.before) before.emplace(evaluate(function_, *delta.before));
    if (delta.after) after.emplace(evaluate(function_, *delta.after));
    this->emit({delta.key, before ? &*before : nullptr, after ? &*after : nullptr});
  }
  bool needs_rows() const override { return this->rows_are_needed(); }
  bool find(std::string_view key, When when, std::optional<U>& row) override {
    if (!from_.find(key, when, input_)) return false;
    row.emplace(evaluate(function_, *input_));
    return true;
  }
  Datum visible_key(std::string_view key) const override { return from_.visible_key(key); }
  std::string key_of(const Datum& reference) const override { return from_.key_of(reference); }

 private:
  Node<T>& from_;
  Function function_;
  std::optional<T> input_;  // reused
};

/// A row becomes several: "<key>/<number>".
template <typename T, typename U, typename Function>
class FlatMap final : public Consumer<T>, public Node<U> {
 public:
  FlatMap(Node<T>& from, Function function) : from_(from), function_(std::move(function)) {
    from.feed(*this);
  }

  void take(const Delta<T>& delta) override {
    std::vector<U> before, after;
    if (delta.before) before = evaluate(function_, *delta.before);
    if (delta.after) after = evaluate(function_, *delta.after);
    for (std::size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
      const std::string key = std::string(delta.key) + "/" + std::to_string(i);
      this->emit(
          {key, i < before.size() ? &before[i] : nullptr, i < after.size() ? &after[i] : nullptr});
    }
  }
  bool find(std::string_view key, When when, std::optional<U>& row) override {
    const std::size_t slash = key.rfind('/');
    std::size_t number = 0;
    if (slash == key.npos) return false;
    const auto parsed = std::from_chars(key.data() + slash + 1, key.data() + key.size(), number);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size()) return false;
    if (!from_.find(key.substr(0, slash), when, input_)) return false;
    std::vector<U> rows = evaluate(function_, *input_);
    if (number >= rows.size()) return false;
    row.emplace(std::move(rows[number]));
    return true;
  }
  Datum visible_key(std::string_view key) const override {
    const std::size_t slash = key.rfind('/');
    return from_.visible_key(key.substr(0, slash)).key_part() + std::string(key.substr(slash));
  }
  std::string key_of(const Datum&) const override { return {}; }

 private:
  Node<T>& from_;
  Function function_;
  std::optional<T> input_;  // reused
};

/// Rows of both; each key says by its first byte whose it is.
template <typename T>
class Union final : public Node<T> {
 public:
  Union(Node<T>& first, Node<T>& second)
      : first_(first), second_(second), of_first_(*this, '0'), of_second_(*this, '1') {
    first.feed(of_first_);
    second.feed(of_second_);
  }

  bool find(std::string_view key, When when, std::optional<T>& row) override {
    return side(key).find(key.substr(1), when, row);
  }
  Datum visible_key(std::string_view key) const override {
    return std::string(1, key.front()) + "/" + side(key).visible_key(key.substr(1)).key_part();
  }
  std::string key_of(const Datum&) const override { return {}; }

 private:
  class Side final : public Consumer<T> {
   public:
    Side(Union& to, char mark) : to_(to), mark_(mark) {}
    void take(const Delta<T>& delta) override {
      const std::string key = mark_ + std::string(delta.key);
      to_.emit({key, delta.before, delta.after});
    }
    bool needs_rows() const override { return to_.rows_are_needed(); }

   private:
    Union& to_;
    char mark_;
  };

  Node<T>& side(std::string_view key) const { return key.front() == '0' ? first_ : second_; }

  Node<T>& first_;
  Node<T>& second_;
  Side of_first_, of_second_;
};

/// Each row of the left side with the row of the right side that it refers to by its key, or with
/// none.
template <typename L, typename R, typename U, typename Reference, typename Combine>
class ReferenceJoin final : public Node<U> {
 public:
  ReferenceJoin(Node<L>& left, Node<R>& right, StateIndex& referring, Reference reference,
                Combine combine, bool keeps_unmatched)
      : left_(left),
        right_(right),
        referring_(referring),
        reference_(std::move(reference)),
        combine_(std::move(combine)),
        keeps_unmatched_(keeps_unmatched),
        of_left_(*this),
        of_right_(*this, true) {
    left.feed(of_left_);
    right.feed(of_right_);
  }

  bool find(std::string_view key, When when, std::optional<U>& row) override {
    return left_.find(key, when, left_row_) && joined(*left_row_, when, row);
  }
  Datum visible_key(std::string_view key) const override { return left_.visible_key(key); }
  std::string key_of(const Datum& reference) const override { return left_.key_of(reference); }

 private:
  std::optional<std::string> referred_key(const L& left) const {
    const Datum reference(evaluate(reference_, left));
    if (reference.is_null()) return std::nullopt;
    return right_.key_of(reference);
  }

  bool combined(const L& left, const R* right, std::optional<U>& row) const {
    if (right == nullptr && !keeps_unmatched_) return false;
    row.emplace(std::invoke(combine_, left, right));
    return true;
  }

  bool joined(const L& left, When when, std::optional<U>& row) {
    const auto key = referred_key(left);
    const bool found = key && right_.find(*key, when, right_row_);
    return combined(left, found ? &*right_row_ : nullptr, row);
  }

  void emit_rows(std::string_view key, const std::optional<U>& before, bool was,
                 const std::optional<U>& after, bool is) {
    if (was || is) this->emit({key, was ? &*before : nullptr, is ? &*after : nullptr});
  }

  void take_left(const Delta<L>& delta) {
    if (delta.before)
      if (const auto key = referred_key(*delta.before)) referring_.add(*key, delta.key, -1);
    if (delta.after)
      if (const auto key = referred_key(*delta.after)) referring_.add(*key, delta.key, 1);
    if (!this->rows_are_needed()) return this->emit({delta.key});
    std::optional<U> before, after;
    const bool was = delta.before && joined(*delta.before, When::kBefore, before);
    const bool is = delta.after && joined(*delta.after, When::kBefore, after);
    emit_rows(delta.key, before, was, after, is);
  }

  void take_right(const Delta<R>& delta) {
    std::vector<std::string> keys;  // a copy: what is fed may change this very index
    referring_.for_each(delta.key, [&](std::string_view key, std::int64_t) {
      keys.emplace_back(key);
      return true;
    });
    for (const std::string& key : keys) {
      if (!this->rows_are_needed()) {
        this->emit({key});
        continue;
      }
      std::optional<U> before, after;
      if (!left_.find(key, When::kAfter, left_row_)) continue;
      const bool was = combined(*left_row_, delta.before, before);
      const bool is = combined(*left_row_, delta.after, after);
      emit_rows(key, before, was, after, is);
    }
  }

  Node<L>& left_;
  Node<R>& right_;
  StateIndex& referring_;  ///< Right key to left keys.
  Reference reference_;
  Combine combine_;
  const bool keeps_unmatched_;
  Input<L, ReferenceJoin, &ReferenceJoin::take_left> of_left_;
  Input<R, ReferenceJoin, &ReferenceJoin::take_right> of_right_;
  std::optional<L> left_row_;   // reused
  std::optional<R> right_row_;  // reused
};

}  // namespace millrace::projections::internal
