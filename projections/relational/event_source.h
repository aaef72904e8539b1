#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/event.h"
#include "projections/relational/operators.h"

namespace millrace::projections::internal {

template <typename T>
inline constexpr bool kIsEvent = false;
template <typename T>
inline constexpr bool kIsEvent<Event<T>> = true;
template <typename T>
concept IsEvent = kIsEvent<T>;

/// A row's key among events: its offset, so that they sort as the log has them.
std::string event_key(Offset offset);
Offset offset_of(std::string_view key);

/// The events of one category that were not erased. Each is a row that never changes; a stream that
/// is erased takes all of its rows away.
class EventSource final : public SourceTable {
 public:
  using SourceTable::SourceTable;
  void take(const RawChange& change) override;

 private:
  std::vector<std::string> gone() override;
  std::string called(std::string_view key) override;

  bool is_erased(std::string_view key, std::string_view event) const;

  StringMap<Offset> erased_;  ///< Streams, and where they were, since the last drain().
};

/// Events with their payload decoded.
template <typename Decode>
class EventLeaf final : public Leaf, public Node<Event<Decoded<Decode>>> {
 public:
  using Row = Event<Decoded<Decode>>;

  EventLeaf(SourceTable& source, EventMaker<Decode> maker)
      : source_(source), maker_(std::move(maker)), before_(maker_.make()), after_(maker_.make()) {
    source_.add(*this);
  }

  void changed(std::string_view key, std::optional<std::string_view> before,
               std::optional<std::string_view> after) override {
    if (before) before_.assign_copy(offset_of(key), *before);
    if (after) after_.assign_copy(offset_of(key), *after);
    this->emit({key, before ? &before_ : nullptr, after ? &after_ : nullptr});
  }
  bool rows_are_needed() const override { return Node<Row>::rows_are_needed(); }

  bool find(std::string_view key, When when, std::optional<Row>& row) override {
    const auto bytes = source_.find(key, when);
    if (!bytes) return false;
    if (!row) row.emplace(maker_.make());
    row->assign_copy(offset_of(key), *bytes);
    return true;
  }
  Datum visible_key(std::string_view key) const override {
    return static_cast<std::int64_t>(offset_of(key).value);
  }
  std::string key_of(const Datum&) const override { return {}; }

 private:
  SourceTable& source_;
  EventMaker<Decode> maker_;
  Row before_, after_;
};

}  // namespace millrace::projections::internal
