#include "cart_views.h"

#include "cart.h"

using namespace millrace::projections;

CacheTable carts() {
  return CacheTable("carts", Version{1},
                    {.key = text("cart"),
                     .columns = {counter("items"), integer("total_cents"), counter("checked_out")}})
      .on_event<Cart>([](const Event<Cart::Event>& event, CacheTable::Writer& carts) {
        if (event.is_erased()) return carts.erase(event.key());
        event.match(
            [&](const Cart::ItemAdded& added) {
              carts.add(event.key(), {{"items", added.count}});
            },
            [&](const Cart::ItemRemoved& removed) {
              carts.subtract(event.key(), {{"items", removed.count}});
            },
            [&](const Cart::CheckedOut& out) {
              carts.put(event.key(), {{"total_cents", out.total_cents}, {"checked_out", 1}});
            });
      });
}

RelationalView articles() {
  struct Line {
    std::string sku;
    std::int64_t pieces;
  };
  const auto lines = events<Cart>().flat_map([](const Event<Cart::Event>& event) {
    return event.match(
        [](const Cart::ItemAdded& added) {
          return std::vector{Line{added.sku, added.count}};
        },
        [](const Cart::ItemRemoved& removed) {
          return std::vector{Line{removed.sku, -std::int64_t{removed.count}}};
        },
        [](const Cart::CheckedOut&) { return std::vector<Line>(); });
  });
  return view("articles", Version{1})
      .from(lines)
      .group_by(by("sku", &Line::sku))
      .aggregate(count("changes"), sum("pieces", &Line::pieces))
      .into(cache_table{});
}
