#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/change.h"
#include "projections/memory_view.h"
#include "projections/sqlite/database.h"
#include "projections/view.h"

// For the tests of your views: changes in, rows out, without a store, a file or a database server.
//
//     ViewTester tester(customer_totals());
//     tester.given({inserted("public.orders", "1", order), deleted("public.orders", "2")});
//     CHECK(tester.rows() == std::vector<std::string>{"7|1|100"});
//
// and for all that can befall them:
//
//     CHECK(first_difference(customer_totals(), transactions, seed) == std::nullopt);
//     CHECK(first_difference_when_read_again(customer_totals(), transactions) == std::nullopt);
//
// Events of streams are given alike: appended("cart", "9f3a", "ItemAdded", R"({"sku":"A-1"})"), of
// an aggregate appended<Cart>("9f3a", Cart::ItemAdded{"A-1"}).

namespace millrace::projections::testing {

/// A change of a row as capture sends it, or an event.
struct TestChange {
  Op op = Op::kInsert;
  std::string category, key;
  std::string after;                  ///< Encoded.
  std::optional<std::string> before;  ///< The same; sent under REPLICA IDENTITY FULL only.
  std::optional<std::string> moved_from;
  std::vector<std::uint32_t> unchanged;  ///< Numbers of fields that were not sent.
  std::string type = {};  ///< Of an event, whose payload is `after`; empty of a change.
};
using Transaction = std::vector<TestChange>;

TestChange inserted(std::string category, std::string key, const google::protobuf::Message& row);
/// `before` is the row as it was, where the table's replica identity sends it.
TestChange updated(std::string category, std::string key, const google::protobuf::Message& row,
                   const google::protobuf::Message* before = nullptr);
TestChange deleted(std::string category, std::string key,
                   const google::protobuf::Message* before = nullptr);
TestChange truncated(std::string category);

/// An event of the stream `category/key`, as `stream append` writes it. A tester gives it the next
/// version of its stream.
TestChange appended(std::string category, std::string key, std::string type, std::string payload);
/// One of an aggregate.
template <internal::AggregateEvents A>
TestChange appended(std::string key, const typename A::Event& event) {
  auto encoded = A::encode(event);
  return appended(std::string(A::kCategory), std::move(key), std::move(encoded.type),
                  std::move(encoded.payload));
}
/// What `log erase` leaves of a stream.
TestChange erased(std::string category, std::string key);
/// A logical message that is no domain event.
TestChange messaged(std::string prefix, std::string content);

/// A view in memory, fed by hand; changes of tables that it does not read are passed over. What
/// fails is thrown as std::runtime_error. Threads: one.
class ViewTester {
 public:
  /// `view` must live as long.
  explicit ViewTester(const View& view);

  /// Applies one source transaction, and commits.
  ViewTester& given(const Transaction& transaction);
  /// The view's rows in the order of its key, columns with '|' between them, null as "null". Of a
  /// view in memory, what rows() of its state gives; without that its length and checksum.
  std::vector<std::string> rows();
  /// Of a view in memory that is held in `State`, as of the last commit.
  template <MemoryState State>
  State state() {
    const auto state = internal::load_state(internal::type_of_state<State>(), *database_);
    if (!state) throw std::runtime_error(state.error().to_string());
    return std::move(static_cast<internal::StateOf<State>&>(**state).value);
  }

  // --- what a worker does beside that ---
  void apply(const TestChange& change);
  void commit();
  /// Takes back what was applied since the last commit, and goes on as after a start.
  void crash();
  void restart();

 private:
  void open();

  const View& view_;
  std::unique_ptr<sqlite::Database> database_;
  std::unique_ptr<internal::ViewWriter> writer_;
  std::vector<std::unique_ptr<internal::Applier>> appliers_;
  /// Where the log is; what is committed is what a crash goes back to.
  struct Place {
    std::uint64_t offset = 0;
    std::map<std::pair<std::string, std::string>, std::uint64_t> versions;  ///< By stream.
  };
  Place place_, committed_;
  bool in_transaction_ = false;
};

/// Applies `transactions` one by one; then all at once, as a rebuild does; then with a crash after
/// each change (each nth of very many), after which all since the last commit comes again; then
/// with commits, crashes and restarts at places that `seed` chooses. Gives a sentence about the
/// first row that is not the same in all; nothing if there is none.
///
/// So it finds functions that depend on anything but their arguments and the view.
std::optional<std::string> first_difference(const View& view,
                                            const std::vector<Transaction>& transactions,
                                            std::uint64_t seed = 1);

/// Applies `transactions` as they are; then with rows of their tables delivered once more in
/// between, at places that `seed` chooses, each as it is then (Op::kRead): so a snapshot may, and
/// `millrace capture resnapshot` does. Rows of which columns were not sent are left out. Gives a
/// sentence about the first row that is not the same in both; nothing if there is none.
///
/// So it finds functions that count a row that they know already.
std::optional<std::string> first_difference_when_read_again(
    const View& view, const std::vector<Transaction>& transactions, std::uint64_t seed = 1);

}  // namespace millrace::projections::testing
