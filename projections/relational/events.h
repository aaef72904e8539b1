#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/relational/event_source.h"
#include "projections/relational/plan.h"
#include "projections/relational/relation.h"

namespace millrace::projections {

/// A member of events whose payload is JSON, as Event::operator[] gives it, wherever a column may
/// stand: group_by(member("sku")), sum("pieces", member("count")).
struct Member {
  std::string name;

  template <internal::IsEvent E>
  Datum operator()(const E& event) const {
    return event[name];
  }
};
inline Member member(std::string name) { return {std::move(name)}; }

namespace internal {

/// A group is called by its key as text, where 42 and "42" are the same.
struct MemberText {
  Member member;

  template <typename E>
  Datum operator()(const E& event) const {
    const Datum value = member(event);
    return value.is_null() ? Datum() : Datum(value.key_text());
  }
};

template <typename T>
struct Grouping<T, Member> {
  static auto expression(Member member) { return MemberText{std::move(member)}; }
  static Column column(const Member& member) { return {member.name, ColumnType::kBlob}; }
};

template <typename Decode>
class EventPlan final : public Plan<Event<Decoded<Decode>>> {
 public:
  EventPlan(std::string category, Decode decode)
      : category_(std::move(category)), maker_(std::move(decode)) {}

  Node<Event<Decoded<Decode>>>& build(Flow& flow) const override {
    return flow.add<EventLeaf<Decode>>(flow.source<EventSource>(category_), maker_);
  }
  void describe(std::string& out, int depth) const override {
    this->line(out, depth, "events " + category_);
  }
  void sources(std::vector<SourceUse>& out) const override {
    out.push_back({.category = category_, .is_events = true});
  }
  Shape shape() const override { return {.columns = {}, .key = integer("offset")}; }

 private:
  std::string category_;
  EventMaker<Decode> maker_;
};

}  // namespace internal

/// The events of the streams "<category>/...", each a row that never changes, whose key is its
/// offset. What a stream's erasure takes from the log it takes from here, too; what retention takes
/// stays until the view is made anew.
///
/// `decode(type, payload)` gives what a payload means, directly or as a Result: a function, or
/// protobuf<...>(). Without it rows are Event<>.
template <internal::DecodesEvents Decode = internal::AsItIs>
Relation<Event<internal::Decoded<Decode>>> events(std::string category, Decode decode = {}) {
  return {std::make_shared<internal::EventPlan<Decode>>(std::move(category), std::move(decode)),
          {}};
}

/// Those of an aggregate: events<Cart>() has rows Event<Cart::Event>.
template <internal::AggregateEvents A>
Relation<Event<typename A::Event>> events() {
  return events(std::string(A::kCategory), &A::decode);
}

/// Logical messages that are no domain events: all, or those of one prefix. key() and type() are
/// the prefix, data() is the content.
template <internal::DecodesEvents Decode = internal::AsItIs>
auto messages(std::string prefix = {}, Decode decode = {}) {
  using Row = Event<internal::Decoded<Decode>>;
  return events(std::string(internal::kMessagesCategory), std::move(decode))
      .where([prefix = std::move(prefix)](const Row& message) {
        return prefix.empty() || message.type() == prefix;
      });
}

}  // namespace millrace::projections
