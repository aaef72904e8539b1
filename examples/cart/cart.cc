#include "cart.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using millrace::Error;
using millrace::ErrorCode;
using millrace::Result;
using nlohmann::json;

constexpr std::uint32_t kCountMax = 1'000;

Error refused(std::string why) { return {ErrorCode::kFailedPrecondition, std::move(why)}; }

struct Decide {
  const Cart::State& state;

  Result<std::vector<Cart::Event>> operator()(const Cart::Add& add) const {
    if (add.sku.empty() || add.count == 0) return refused("nothing to add");
    const auto line = state.lines.find(add.sku);
    const std::uint32_t there = line == state.lines.end() ? 0 : line->second.count;
    if (add.count > kCountMax - there)
      return refused("a cart takes " + std::to_string(kCountMax) + " of a kind at most");
    if (there != 0 && line->second.unit_price_cents != add.unit_price_cents)
      return refused("the price of " + add.sku + " is another one now: remove it first");
    return std::vector<Cart::Event>{Cart::ItemAdded{add.sku, add.count, add.unit_price_cents}};
  }
  Result<std::vector<Cart::Event>> operator()(const Cart::Remove& remove) const {
    const auto line = state.lines.find(remove.sku);
    if (line == state.lines.end() || line->second.count < remove.count)
      return refused("there are not so many of " + remove.sku);
    return std::vector<Cart::Event>{Cart::ItemRemoved{remove.sku, remove.count}};
  }
  Result<std::vector<Cart::Event>> operator()(const Cart::CheckOut&) const {
    if (state.lines.empty()) return refused("the cart is empty");
    return std::vector<Cart::Event>{Cart::CheckedOut{state.total_cents()}};
  }
};

struct Evolve {
  Cart::State& state;

  void operator()(const Cart::ItemAdded& added) const {
    Cart::Line& line = state.lines[added.sku];
    line.count += added.count;
    line.unit_price_cents = added.unit_price_cents;
  }
  void operator()(const Cart::ItemRemoved& removed) const {
    const auto line = state.lines.find(removed.sku);
    if (line == state.lines.end()) return;
    line->second.count -= std::min(removed.count, line->second.count);
    if (line->second.count == 0) state.lines.erase(line);
  }
  void operator()(const Cart::CheckedOut&) const { state.checked_out = true; }
};

struct Encode {
  millrace::EncodedEvent operator()(const Cart::ItemAdded& added) const {
    return {"ItemAdded", json{{"sku", added.sku},
                              {"count", added.count},
                              {"unit_price_cents", added.unit_price_cents}}
                             .dump()};
  }
  millrace::EncodedEvent operator()(const Cart::ItemRemoved& removed) const {
    return {"ItemRemoved", json{{"sku", removed.sku}, {"count", removed.count}}.dump()};
  }
  millrace::EncodedEvent operator()(const Cart::CheckedOut& out) const {
    return {"CheckedOut", json{{"total_cents", out.total_cents}}.dump()};
  }
};

}  // namespace

std::int64_t Cart::State::total_cents() const {
  std::int64_t total = 0;
  for (const auto& [sku, line] : lines) total += line.count * line.unit_price_cents;
  return total;
}

Result<std::vector<Cart::Event>> Cart::decide(const State& state, const Command& command) {
  if (state.checked_out) return refused("the cart is checked out");
  return std::visit(Decide{state}, command);
}

void Cart::evolve(State& state, const Event& event) { std::visit(Evolve{state}, event); }

millrace::EncodedEvent Cart::encode(const Event& event) { return std::visit(Encode{}, event); }

Result<Cart::Event> Cart::decode(std::string_view type, std::string_view payload) try {
  const json data = json::parse(payload);
  if (type == "ItemAdded")
    return Event(ItemAdded{data.at("sku"), data.at("count"), data.at("unit_price_cents")});
  if (type == "ItemRemoved") return Event(ItemRemoved{data.at("sku"), data.at("count")});
  if (type == "CheckedOut") return Event(CheckedOut{data.at("total_cents")});
  return Error(ErrorCode::kUnsupported, "a cart has no event " + std::string(type));
} catch (const json::exception& error) {
  return Error(ErrorCode::kCorruption, std::string(type) + ": " + error.what());
}

std::string Cart::save(const State& state) {
  json lines = json::object();
  for (const auto& [sku, line] : state.lines) lines[sku] = {line.count, line.unit_price_cents};
  return json{{"lines", lines}, {"checked_out", state.checked_out}}.dump();
}

Result<Cart::State> Cart::restore(std::string_view bytes) try {
  const json saved = json::parse(bytes);
  State state;
  for (const auto& [sku, line] : saved.at("lines").items())
    state.lines[sku] = {line.at(0), line.at(1)};
  state.checked_out = saved.at("checked_out");
  return state;
} catch (const json::exception& error) {
  return Error(ErrorCode::kCorruption, std::string("state of a cart: ") + error.what());
}
