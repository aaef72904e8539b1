// A view of a project's own, tested without a store.
#include <cstdio>

#include "projections/projections.h"
#include "projections/testing.h"
#include "public.orders.pb.h"

using namespace millrace::projections;
using namespace millrace::projections::testing;
using shop::Orders;

namespace {

Orders order(std::int64_t id, std::int64_t customer, std::int64_t cents) {
  Orders row;
  row.set_id(id);
  row.set_customer_id(customer);
  row.set_total_cents(cents);
  return row;
}

bool expect(ViewTester& tester, const std::vector<std::string>& wanted) {
  const auto rows = tester.rows();
  if (rows == wanted) return true;
  for (const auto& row : rows) std::printf("got    %s\n", row.c_str());
  for (const auto& row : wanted) std::printf("wanted %s\n", row.c_str());
  return false;
}

}  // namespace

int main() {
  const auto totals = view("totals", Version{1})
                          .from(table<Orders>("public.orders"))
                          .group_by(&Orders::customer_id)
                          .aggregate(count("orders"), sum("cents", &Orders::total_cents))
                          .into(cache_table{});
  const Transaction first{inserted("public.orders", "1", order(1, 7, 100)),
                          inserted("public.orders", "2", order(2, 7, 50)),
                          inserted("public.orders", "3", order(3, 8, 1))};
  const Transaction second{deleted("public.orders", "2"),
                           updated("public.orders", "3", order(3, 8, 5))};
  ViewTester tester(totals);
  bool well = expect(tester.given(first), {"7|2|150", "8|1|1"});
  well = expect(tester.given(second), {"7|1|100", "8|1|5"}) && well;
  if (const auto difference = first_difference(totals, {first, second})) {
    std::printf("%s\n", difference->c_str());
    well = false;
  }
  return well ? 0 : 1;
}
