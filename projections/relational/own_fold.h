#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "projections/relational/aggregates.h"

// A fold of one's own over the rows of a group, where count(), sum() and the others don't do.

namespace millrace::projections {

/// Parts of a fold().
template <typename Function>
struct TakeBack {
  Function function;
};
template <typename Expression>
struct InOrderOf {
  Expression expression;
};
template <typename Function>
struct ShownAs {
  Function function;
};
/// `function(State, row)` undoes what the fold's function did with that row.
template <typename Function>
TakeBack<Function> take_back(Function function) {
  return {std::move(function)};
}
/// Rows come by this value, those with equal ones by their keys.
template <typename Expression>
InOrderOf<Expression> in_order_of(Expression expression) {
  return {std::move(expression)};
}
/// `function(State)` makes the value that the view has of it.
template <typename Function>
ShownAs<Function> shown_as(Function function) {
  return {std::move(function)};
}

namespace internal {

/// One whose values are rows.
template <typename T>
class RowAccumulator : public Accumulator {
 public:
  virtual void change(const T& row, std::string_view key, int weight) = 0;
  void add(const Datum&, int) final {}
};

/// The part of `parts` that is a Kind<...>; Nothing if there is none.
struct Nothing {};
template <template <typename> typename Kind, typename Part>
struct IsKind : std::false_type {};
template <template <typename> typename Kind, typename Inner>
struct IsKind<Kind, Kind<Inner>> : std::true_type {};
template <template <typename> typename Kind>
Nothing part_of() {
  return {};
}
template <template <typename> typename Kind, typename Part, typename... Parts>
auto part_of(const Part& part, const Parts&... parts) {
  if constexpr (IsKind<Kind, Part>::value)
    return part;
  else
    return part_of<Kind>(parts...);
}
template <typename Part>
inline constexpr bool kIsThere = !std::is_same_v<Part, Nothing>;

/// What an aggregate of fold() has in the place of an expression.
template <typename State, typename Add, typename Back, typename Order, typename Show>
struct OwnFold {
  State initial;
  Add add;
  Back back;
  Order order;
  Show show;

  template <typename T>
  MakeAccumulator maker(Node<T>& from) const;

  /// What the view has of a state.
  decltype(auto) value(const State& state) const {
    if constexpr (kIsThere<Show>)
      return std::invoke(show.function, state);
    else
      return (state);
  }
  Datum shown(const State& state) const {
    static_assert(std::is_constructible_v<Datum, decltype(value(state))>,
                  "a view can't have a fold's state as it is: say shown_as(function)");
    return Datum(value(state));
  }
};

template <typename Expression>
inline constexpr bool kIsOwnFold = false;
template <typename... Parts>
inline constexpr bool kIsOwnFold<OwnFold<Parts...>> = true;

/// Keeps the keys of the group's rows and goes over all of them when somebody asks. What it gave
/// last stays what it gives until one of its rows changes: rows that are on their way in other
/// groups may be found here before their deltas come, and what was handed on must be what is taken
/// back.
template <typename T, typename State, typename Add, typename Order, typename Show>
class RecomputedFold final : public RowAccumulator<T> {
 public:
  using Fold = OwnFold<State, Add, Nothing, Order, Show>;
  RecomputedFold(const Fold& fold, Node<T>& from, Members members)
      : fold_(fold), from_(from), members_(std::move(members)) {}

  void change(const T& row, std::string_view key, int weight) override {
    std::string member;
    if constexpr (kIsThere<Order>) Datum(evaluate(fold_.order.expression, row)).encode(member);
    member += key;
    members_.add(member, weight);
    is_known_ = false;
  }
  Datum result() const override {
    if (!is_known_) result_ = fold_.shown(state());
    is_known_ = true;
    return result_;
  }
  void encode(std::string& out) const override { result().encode(out); }
  bool restore(std::string_view& in) override {
    auto result = Datum::take(in);
    if (result) result_ = *std::move(result);
    return result.has_value();
  }

 private:
  State state() const {
    State state = fold_.initial;
    std::optional<T> row;
    members_.for_each(false, [&](std::string_view key, std::int64_t) {
      if constexpr (kIsThere<Order>) static_cast<void>(Datum::take(key));
      if (from_.find(key, When::kAfter, row))
        state = std::invoke(fold_.add, std::move(state), std::as_const(*row));
      return true;
    });
    return state;
  }

  const Fold& fold_;
  Node<T>& from_;
  Members members_;
  mutable Datum result_;
  mutable bool is_known_ = true;
};

/// The state of a fold that takes back, which is kept in the view's file.
template <typename State>
void encode_state(const State& state, std::string& out) {
  static_assert(std::is_same_v<State, Record> || std::is_constructible_v<Datum, const State&>,
                "the state of a fold that takes back is kept in the view's file: let it be a "
                "number, text, Decimal, Datum or Record, or leave take_back() out");
  if constexpr (std::is_same_v<State, Record>) {
    Datum(static_cast<std::int64_t>(state.fields().size())).encode(out);
    for (const auto& [name, value] : state.fields()) {
      Datum(name).encode(out);
      value.encode(out);
    }
  } else {
    Datum(state).encode(out);
  }
}
bool take_state(std::string_view& in, Record& state);
template <typename State>
bool take_state(std::string_view& in, State& state) {
  auto kept = Datum::take(in);
  if (!kept) return false;
  if constexpr (std::is_same_v<State, Datum>)
    state = *std::move(kept);
  else if constexpr (std::is_integral_v<State>)
    state = static_cast<State>(kept->integer());
  else if constexpr (std::is_floating_point_v<State>)
    state = static_cast<State>(kept->real());
  else if constexpr (std::is_same_v<State, Decimal>)
    state = kept->decimal().value_or(Decimal());
  else
    state = State(kept->text());
  return true;
}

/// Keeps the state alone.
template <typename T, typename State, typename Add, typename Back, typename Show>
class RunningFold final : public RowAccumulator<T> {
 public:
  using Fold = OwnFold<State, Add, Back, Nothing, Show>;
  explicit RunningFold(const Fold& fold) : fold_(fold), state_(fold.initial) {}

  void change(const T& row, std::string_view, int weight) override {
    if (weight > 0)
      state_ = std::invoke(fold_.add, std::move(state_), row);
    else
      state_ = std::invoke(fold_.back.function, std::move(state_), row);
  }
  /// What was added and taken back again has left its zeros behind the point.
  Datum result() const override {
    const Datum shown = fold_.shown(state_);
    return shown.is_decimal() ? Datum(shown.decimal()->reduced()) : shown;
  }
  void encode(std::string& out) const override { encode_state(state_, out); }
  bool restore(std::string_view& in) override { return take_state(in, state_); }

 private:
  const Fold& fold_;
  State state_;
};

template <typename State, typename Add, typename Back, typename Order, typename Show>
template <typename T>
MakeAccumulator OwnFold<State, Add, Back, Order, Show>::maker(Node<T>& from) const {
  static_assert(std::is_invocable_r_v<State, const Add&, State, const T&>,
                "a fold's function takes (State, const Row&) and gives a State");
  static_assert(!kIsThere<Back> || !kIsThere<Order>,
                "a fold that takes back has no order: its rows come and go in any");
  const auto fold = std::make_shared<const OwnFold>(*this);
  return [fold, &from](const Members& members) -> std::unique_ptr<Accumulator> {
    if constexpr (kIsThere<Back>)
      return std::make_unique<RunningFold<T, State, Add, Back, Show>>(*fold);
    else
      return std::make_unique<RecomputedFold<T, State, Add, Order, Show>>(*fold, from, members);
  };
}

}  // namespace internal

/// An aggregate of your own: `add(State, const Row&)` gives the state with one row more, beginning
/// with `initial`.
///
///     fold("path", std::string(), [](std::string path, const Orders& o) { return path +
///     o.status(); },
///          in_order_of(&Orders::created_at))
///
/// When a row of a group changes, the fold goes over all rows of that group once more: in order of
/// their keys (events: in that of the log), or in_order_of() a value. So it suits groups of a few
/// thousand rows. With take_back(remove) it goes over none: the state is all that is kept, and
/// `remove(State, const Row&)` must undo what `add` did, whatever was added or removed in between;
/// so the order in which rows are added must make no difference.
///
/// The view has the state itself, or what shown_as() makes of it. Functions must depend on nothing
/// but their arguments. These parts come behind `add` in any order.
template <typename State, typename Add, typename... Parts>
auto fold(std::string name, State initial, Add add, Parts... parts) {
  auto back = internal::part_of<TakeBack>(parts...);
  auto order = internal::part_of<InOrderOf>(parts...);
  auto show = internal::part_of<ShownAs>(parts...);
  static_assert(internal::kIsThere<decltype(back)> + internal::kIsThere<decltype(order)> +
                        internal::kIsThere<decltype(show)> ==
                    sizeof...(Parts),
                "behind a fold's function come take_back(), in_order_of() and shown_as()");
  using Whole = internal::OwnFold<State, Add, decltype(back), decltype(order), decltype(show)>;
  Whole whole{std::move(initial), std::move(add), std::move(back), std::move(order),
              std::move(show)};
  constexpr ColumnType type = internal::column_type<decltype(whole.value(whole.initial))>();
  return Aggregate<Whole>{std::move(name), type, false, "fold", std::move(whole), {}};
}

}  // namespace millrace::projections
