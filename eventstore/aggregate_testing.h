#pragma once

#include <string>
#include <utility>
#include <vector>

#include "eventstore/aggregate.h"

// For tests of aggregates, with any test framework: nothing is read or written.
namespace millrace {

/// Given events, when a command comes, then these events follow:
///
///     CHECK(AggregateTest<Cart>::given({ItemAdded{"A-1"}}).when(CheckOut{}).then({CheckedOut{}})
///     == "");
///
/// A.Event must be comparable with ==.
template <Aggregate A>
class AggregateTest {
 public:
  using Event = typename A::Event;

  static AggregateTest given(std::vector<Event> events) {
    AggregateTest test;
    for (const Event& event : events) A::evolve(test.state_, event);
    return test;
  }
  AggregateTest&& when(const typename A::Command& command) && {
    outcome_ = A::decide(state_, command);
    return std::move(*this);
  }

  /// What is wrong with the outcome; empty if it is `events`, which also must survive being stored.
  std::string then(const std::vector<Event>& events) const {
    if (outcome_ && *outcome_ == events) return storing_fault(events);
    return difference(names_of(events));
  }
  /// The same where the command is to be refused with `code`.
  std::string then_refused(ErrorCode code) const {
    if (!outcome_ && outcome_.error().code() == code) return {};
    return difference("refused (" + std::string(name_of(code)) + ")");
  }
  /// Whether the events that follow lead to `state`.
  bool then_state(const typename A::State& state) const {
    if (!outcome_) return false;
    typename A::State after = state_;
    for (const Event& event : *outcome_) A::evolve(after, event);
    return after == state;
  }

 private:
  static std::string names_of(const std::vector<Event>& events) {
    std::string names;
    for (const Event& event : events) {
      const EncodedEvent encoded = A::encode(event);
      names += (names.empty() ? "" : ", ") + encoded.type + " " + encoded.payload;
    }
    return names.empty() ? "no event" : names;
  }
  static std::string storing_fault(const std::vector<Event>& events) {
    for (const Event& event : events) {
      const EncodedEvent encoded = A::encode(event);
      const auto decoded = A::decode(encoded.type, encoded.payload);
      if (!decoded || !(*decoded == event))
        return encoded.type + " " + encoded.payload + " is another event when it is decoded\n";
    }
    return {};
  }
  std::string difference(const std::string& expected) const {
    const std::string got = outcome_ ? names_of(*outcome_)
                                     : "refused (" + std::string(name_of(outcome_.error().code())) +
                                           "): " + outcome_.error().message();
    return "expected: " + expected + "\ngot:      " + got + "\n";
  }

  typename A::State state_{};
  Result<std::vector<Event>> outcome_{std::vector<Event>{}};
};

}  // namespace millrace
