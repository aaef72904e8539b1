#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/relational/operators.h"

namespace millrace::projections::internal {

/// The key of a pair of rows, either of which may be absent: both keys, each marked and escaped.
std::string pair_key(std::string_view left, std::optional<std::string_view> right);
/// The two again; nothing if `key` is no such pair.
struct PairKey {
  std::string left;
  std::optional<std::string> right;
};
std::optional<PairKey> pair_of(std::string_view key);

/// Every pair of a left and a right row with equal values (null equals nothing); with left rows
/// that have no partner, each once, if those are to be kept.
template <typename L, typename R, typename U, typename LeftValue, typename RightValue,
          typename Combine>
class EquiJoin final : public Node<U> {
 public:
  EquiJoin(Node<L>& left, Node<R>& right, StateIndex& lefts, StateIndex& rights,
           LeftValue left_value, RightValue right_value, Combine combine, bool keeps_unmatched)
      : left_(left),
        right_(right),
        lefts_(lefts),
        rights_(rights),
        left_value_(std::move(left_value)),
        right_value_(std::move(right_value)),
        combine_(std::move(combine)),
        keeps_unmatched_(keeps_unmatched),
        of_left_(*this),
        of_right_(*this) {
    left.feed(of_left_);
    right.feed(of_right_);
  }

  bool find(std::string_view key, When when, std::optional<U>& row) override {
    const auto pair = pair_of(key);
    if (!pair || !left_.find(pair->left, when, left_row_)) return false;
    const auto value = value_of(left_value_, *left_row_);
    if (!pair->right) {
      if (!keeps_unmatched_ || (value && has_partner(*value))) return false;
      row.emplace(std::invoke(combine_, std::as_const(*left_row_), static_cast<const R*>(nullptr)));
      return true;
    }
    if (!value || !right_.find(*pair->right, when, right_row_)) return false;
    if (value_of(right_value_, *right_row_) != value) return false;
    row.emplace(std::invoke(combine_, std::as_const(*left_row_), &std::as_const(*right_row_)));
    return true;
  }
  Datum visible_key(std::string_view key) const override {
    const auto pair = pair_of(key);
    if (!pair) return {};
    const std::string left = left_.visible_key(pair->left).key_part();
    return left + "," + (pair->right ? right_.visible_key(*pair->right) : Datum()).key_part();
  }
  std::string key_of(const Datum&) const override { return {}; }

 private:
  template <typename Expression, typename T>
  static std::optional<std::string> value_of(const Expression& expression, const T& row) {
    const Datum value(evaluate(expression, row));
    if (value.is_null()) return std::nullopt;
    return value.normalized().key_text();
  }

  static std::vector<std::string> members(StateIndex& index, std::string_view value) {
    std::vector<std::string> keys;  // a copy: what is fed may change this very index
    index.for_each(value, [&](std::string_view key, std::int64_t) {
      keys.emplace_back(key);
      return true;
    });
    return keys;
  }

  bool has_partner(std::string_view value) {
    bool any = false;
    rights_.for_each(value, [&](std::string_view, std::int64_t) {
      any = true;
      return false;
    });
    return any;
  }

  void pass(const std::string& key, const L* left_before, const L* left_after,
            const R* right_before, const R* right_after, bool was, bool is) {
    if (!was && !is) return;
    if (!this->rows_are_needed()) return this->emit({key});
    std::optional<U> before, after;
    if (was) before.emplace(std::invoke(combine_, *left_before, right_before));
    if (is) after.emplace(std::invoke(combine_, *left_after, right_after));
    this->emit({key, was ? &*before : nullptr, is ? &*after : nullptr});
  }

  /// The right side is as it was: its rows that are indexed are those of before.
  void take_left(const Delta<L>& delta) {
    const auto old_value = delta.before ? value_of(left_value_, *delta.before) : std::nullopt;
    const auto new_value = delta.after ? value_of(left_value_, *delta.after) : std::nullopt;
    if (old_value) lefts_.add(*old_value, delta.key, -1);
    if (new_value) lefts_.add(*new_value, delta.key, 1);
    const auto pairs = [&](const std::optional<std::string>& value, const L* before,
                           const L* after) {
      const std::vector<std::string> keys =
          value ? members(rights_, *value) : std::vector<std::string>();
      for (const std::string& key : keys)
        if (right_.find(key, When::kBefore, right_row_))
          pass(pair_key(delta.key, key), before, after, &*right_row_, &*right_row_, before, after);
      if (keys.empty() && keeps_unmatched_)
        pass(pair_key(delta.key, std::nullopt), before, after, nullptr, nullptr, before, after);
    };
    if (delta.before && delta.after && old_value == new_value)
      return pairs(old_value, delta.before, delta.after);
    if (delta.before) pairs(old_value, delta.before, nullptr);
    if (delta.after) pairs(new_value, nullptr, delta.after);
  }

  /// The left side is as it will be.
  void take_right(const Delta<R>& delta) {
    const auto old_value = delta.before ? value_of(right_value_, *delta.before) : std::nullopt;
    const auto new_value = delta.after ? value_of(right_value_, *delta.after) : std::nullopt;
    if (old_value) rights_.add(*old_value, delta.key, -1);
    if (old_value && old_value == new_value) {
      rights_.add(*new_value, delta.key, 1);
      return each_left(*new_value, [&](const std::string& left_key, const L& left) {
        pass(pair_key(left_key, delta.key), &left, &left, delta.before, delta.after, true, true);
      });
    }
    if (old_value) {
      const bool was_last = !has_partner(*old_value);
      each_left(*old_value, [&](const std::string& left_key, const L& left) {
        pass(pair_key(left_key, delta.key), &left, nullptr, delta.before, nullptr, true, false);
        if (was_last && keeps_unmatched_)
          pass(pair_key(left_key, std::nullopt), nullptr, &left, nullptr, nullptr, false, true);
      });
    }
    if (new_value) {
      const bool is_first = !has_partner(*new_value);
      rights_.add(*new_value, delta.key, 1);
      each_left(*new_value, [&](const std::string& left_key, const L& left) {
        if (is_first && keeps_unmatched_)
          pass(pair_key(left_key, std::nullopt), &left, nullptr, nullptr, nullptr, true, false);
        pass(pair_key(left_key, delta.key), nullptr, &left, nullptr, delta.after, false, true);
      });
    }
  }

  template <typename Visit>
  void each_left(std::string_view value, const Visit& visit) {
    for (const std::string& key : members(lefts_, value))
      if (left_.find(key, When::kAfter, passed_left_)) visit(key, std::as_const(*passed_left_));
  }

  Node<L>& left_;
  Node<R>& right_;
  StateIndex& lefts_;   ///< Value to left keys.
  StateIndex& rights_;  ///< Value to right keys.
  LeftValue left_value_;
  RightValue right_value_;
  Combine combine_;
  const bool keeps_unmatched_;
  Input<L, EquiJoin, &EquiJoin::take_left> of_left_;
  Input<R, EquiJoin, &EquiJoin::take_right> of_right_;
  std::optional<L> left_row_;   // reused
  std::optional<R> right_row_;  // reused
  /// Reused, and not by find(), which what is fed may call.
  std::optional<L> passed_left_;
};

}  // namespace millrace::projections::internal
