// What the views show, without a store: given these events, they have those rows.
#include "cart_views.h"

#include <cstdio>

#include "cart.h"
#include "projections/testing.h"

namespace {

using namespace millrace::projections::testing;
using Rows = std::vector<std::string>;

int failures = 0;

void check(const char* what, bool holds) {
  if (holds) return;
  std::printf("%s: it does not\n", what);
  ++failures;
}

}  // namespace

int main() {
  const std::vector<Transaction> history{{appended<Cart>("9f3a", Cart::ItemAdded{"A-1", 2, 250})},
                                         {appended<Cart>("77", Cart::ItemAdded{"A-1", 1, 250}),
                                          appended<Cart>("77", Cart::ItemAdded{"B-2", 3, 100})},
                                         {appended<Cart>("9f3a", Cart::ItemRemoved{"A-1", 1})},
                                         {appended<Cart>("9f3a", Cart::CheckedOut{250})}};
  const auto by_cart = carts();
  const auto by_article = articles();
  ViewTester of_carts(by_cart), of_articles(by_article);
  for (const Transaction& transaction : history) {
    of_carts.given(transaction);
    of_articles.given(transaction);
  }
  check("each cart is a row", of_carts.rows() == Rows{"77|4|null|0", "9f3a|1|250|1"});
  check("each article is a row", of_articles.rows() == Rows{"A-1|3|2", "B-2|1|3"});
  of_carts.given({erased("cart", "77")});
  of_articles.given({erased("cart", "77")});
  check("an erased cart leaves nothing",
        of_carts.rows() == Rows{"9f3a|1|250|1"} && of_articles.rows() == Rows{"A-1|2|1"});
  check("it makes no difference how events come",
        !first_difference(by_cart, history) && !first_difference(by_article, history));
  if (failures == 0) std::printf("all is well\n");
  return failures == 0 ? 0 : 1;
}
