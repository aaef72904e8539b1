#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "eventstore/aggregate.h"

/// A shopping cart, as pure functions: what has happened to it makes its state (`evolve`), and the
/// state decides what a command leads to (`decide`). Nothing here reads, writes or asks the time.
struct Cart {
  static constexpr std::string_view kCategory = "cart";
  static constexpr std::string_view kFold = "cart 1";  // change it with State, evolve or save

  // --- what can happen ---------------------------------------------------------------------------
  struct ItemAdded {
    std::string sku;
    std::uint32_t count = 0;
    std::int64_t unit_price_cents = 0;
    bool operator==(const ItemAdded&) const = default;
  };
  struct ItemRemoved {
    std::string sku;
    std::uint32_t count = 0;
    bool operator==(const ItemRemoved&) const = default;
  };
  struct CheckedOut {
    std::int64_t total_cents = 0;
    bool operator==(const CheckedOut&) const = default;
  };
  using Event = std::variant<ItemAdded, ItemRemoved, CheckedOut>;

  // --- what can be asked for ---------------------------------------------------------------------
  struct Add {
    std::string sku;
    std::uint32_t count = 1;
    std::int64_t unit_price_cents = 0;
  };
  struct Remove {
    std::string sku;
    std::uint32_t count = 1;
  };
  struct CheckOut {};
  using Command = std::variant<Add, Remove, CheckOut>;

  // --- what is known -----------------------------------------------------------------------------
  struct Line {
    std::uint32_t count = 0;
    std::int64_t unit_price_cents = 0;
    bool operator==(const Line&) const = default;
  };
  struct State {
    std::map<std::string, Line> lines;  // by sku
    bool checked_out = false;
    bool operator==(const State&) const = default;
    std::int64_t total_cents() const;
  };

  static millrace::Result<std::vector<Event>> decide(const State& state, const Command& command);
  static void evolve(State& state, const Event& event);

  // --- how it is stored: as JSON, which `millrace log tail` shows
  // ----------------------------------
  static millrace::EncodedEvent encode(const Event& event);
  static millrace::Result<Event> decode(std::string_view type, std::string_view payload);
  static std::string save(const State& state);
  static millrace::Result<State> restore(std::string_view bytes);
};
static_assert(millrace::SnapshotAggregate<Cart>);
