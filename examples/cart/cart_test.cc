// What a cart does, without a store: given these events, when this command comes, then those
// follow.
#include "cart.h"

#include <cstdio>

#include "eventstore/aggregate_testing.h"

namespace {

using Test = millrace::AggregateTest<Cart>;
using millrace::ErrorCode;

int failures = 0;

/// `difference` is empty where all is well.
void check(const char* what, const std::string& difference) {
  if (difference.empty()) return;
  std::printf("%s\n%s", what, difference.c_str());
  ++failures;
}

}  // namespace

int main() {
  check("an empty cart takes an item",
        Test::given({}).when(Cart::Add{"A-1", 2, 250}).then({Cart::ItemAdded{"A-1", 2, 250}}));
  check("more of the same adds up", Test::given({Cart::ItemAdded{"A-1", 998, 250}})
                                        .when(Cart::Add{"A-1", 2, 250})
                                        .then({Cart::ItemAdded{"A-1", 2, 250}}));
  check("there is a limit", Test::given({Cart::ItemAdded{"A-1", 999, 250}})
                                .when(Cart::Add{"A-1", 2, 250})
                                .then_refused(ErrorCode::kFailedPrecondition));
  check("what is not there can't be removed",
        Test::given({Cart::ItemAdded{"A-1", 1, 250}, Cart::ItemRemoved{"A-1", 1}})
            .when(Cart::Remove{"A-1", 1})
            .then_refused(ErrorCode::kFailedPrecondition));
  check("a checkout is for what is in the cart",
        Test::given({Cart::ItemAdded{"A-1", 3, 250}, Cart::ItemAdded{"B-2", 1, 1},
                     Cart::ItemRemoved{"A-1", 1}})
            .when(Cart::CheckOut{})
            .then({Cart::CheckedOut{501}}));
  check("an empty cart is not checked out",
        Test::given({}).when(Cart::CheckOut{}).then_refused(ErrorCode::kFailedPrecondition));
  check("nothing happens after the checkout",
        Test::given({Cart::ItemAdded{"A-1", 1, 250}, Cart::CheckedOut{250}})
            .when(Cart::Add{"A-1", 1, 250})
            .then_refused(ErrorCode::kFailedPrecondition));
  Cart::State state;
  Cart::evolve(state, Cart::ItemAdded{"A \"1\"", 2, 250});
  const auto restored = Cart::restore(Cart::save(state));
  check("a state survives its snapshot",
        restored && *restored == state ? "" : "it is another one\n");
  if (failures == 0) std::printf("all is well\n");
  return failures == 0 ? 0 : 1;
}
