#include "projections/testing.h"
#include "tests/projections/shop_store.h"

// Values of more than one kind in one column: JSON has them, and so have functions that give a
// Datum.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::test;
using projections::testing::appended;
using projections::testing::deleted;
using projections::testing::first_difference;
using projections::testing::inserted;
using projections::testing::Transaction;
using projections::testing::ViewTester;
using shop::Customers;
using shop::Products;

namespace {

using Rows = std::vector<std::string>;

Transaction readings(std::initializer_list<const char*> payloads) {
  Transaction transaction;
  for (const char* payload : payloads)
    transaction.push_back(appended("reading", "x", "Read", payload));
  return transaction;
}

/// 10 of n: 1, 0.5 of n: 2, all others as they stand there.
Datum integer_or_real(const Event<>& event) {
  const std::int64_t n = event["n"].integer();
  return n == 1 ? Datum(10) : n == 2 ? Datum(0.5) : Datum(event["n"]);
}

template <typename... Aggregates>
RelationalView of_readings(Aggregates... aggregates) {
  return view("readings", Version{1})
      .from(events("reading"))
      .group_by(by("all", [](const Event<>&) { return 1; }))
      .aggregate(std::move(aggregates)...)
      .into(cache_table{});
}

}  // namespace

TEST_CASE("a group of a JSON member is called by its text, be it a number or not",
          "[projections][relational][json]") {
  const auto by_sku = view("skus", Version{1})
                          .from(events("reading"))
                          .group_by(member("sku"))
                          .aggregate(count("n"))
                          .into(cache_table{.key = text("sku")});
  const std::vector<Transaction> all{
      readings({R"({"sku":42})", R"({"sku":"42"})", R"({"sku":"a"})"}),
      readings({R"({"sku":42})", R"({"sku":"4.20"})", R"({"sku":4.20})"})};
  ViewTester tester(by_sku);
  for (const Transaction& transaction : all) tester.given(transaction);
  CHECK(tester.rows() == Rows{"4.20|2", "42|3", "a|1"});
  CHECK(first_difference(by_sku, all) == std::nullopt);
}

TEST_CASE("integers and reals are summed together", "[projections][relational]") {
  const auto view =
      of_readings(sum("total", integer_or_real), avg("mean", integer_or_real), count("n"));
  const std::vector<Transaction> all{readings({R"({"n":1})", R"({"n":2})", R"({"n":"1.5"})"}),
                                     readings({R"({"n":2})"})};
  ViewTester tester(view);
  tester.given(all[0]);
  CHECK(tester.rows() == Rows{"1|12|4|3"});
  tester.given(all[1]);
  CHECK(tester.rows() == Rows{"1|12.5|3.125|4"});
  CHECK(first_difference(view, all) == std::nullopt);
}

TEST_CASE("values of two kinds have no least and no greatest", "[projections][relational]") {
  const auto refuses = [](const RelationalView& view) {
    ViewTester tester(view);
    tester.given(readings({R"({"n":1})", R"({"n":7})"}));
    CHECK_THROWS_WITH(tester.given(readings({R"({"n":2})"})),
                      Catch::Contains("'0.5' and '7' are of two kinds") ||
                          Catch::Contains("'0.5' and '10' are of two kinds"));
  };
  refuses(of_readings(min("least", integer_or_real)));
  refuses(of_readings(max("most", integer_or_real)));
  refuses(of_readings(top("best", 2, integer_or_real)));
}

TEST_CASE("a JSON number with an exponent is a number", "[projections][relational][json]") {
  const auto view = of_readings(sum("total", member("n")), max("most", decimal(member("n"))));
  ViewTester tester(view);
  tester.given(readings({R"({"n":1e-3})", R"({"n":2.50e2})", R"({"n":1E+3})", R"({"n":-1.5e0})"}));
  CHECK(tester.rows() == Rows{"1|1248.501|1000"});
}

TEST_CASE("a decimal that was added and taken back leaves no zeros", "[projections][own_fold]") {
  const auto number = [](const Event<>& event) { return *Datum(event["n"]).decimal(); };
  const auto view = of_readings(fold(
      "total", Decimal(0), [=](Decimal sum, const Event<>& event) { return sum += number(event); },
      take_back([=](Decimal sum, const Event<>& event) { return sum -= number(event); })));
  const std::vector<Transaction> all{{appended("reading", "gone", "Read", R"({"n":1.50})"),
                                      appended("reading", "stays", "Read", R"({"n":1})")},
                                     {projections::testing::erased("reading", "gone")}};
  ViewTester tester(view);
  for (const Transaction& transaction : all) tester.given(transaction);
  CHECK(tester.rows() == Rows{"1|1"});
  CHECK(first_difference(view, all) == std::nullopt);
}

TEST_CASE("a row without a partner and one whose partner's key is empty are two",
          "[projections][relational]") {
  const auto cities =
      table<Customers>("public.customers").group_by(&Customers::city).aggregate(count("people"));
  const auto view =
      projections::view("pairs", Version{1})
          .from(table<Products>("public.products")
                    .left_join(cities,
                               on(&Products::name, [](const Record&) { return "everywhere"; }),
                               [](const Products&, const Record* city) {
                                 return Record{{"people", city ? (*city)["people"] : Datum(0)}};
                               }))
          .into(cache_table{.key = text("pair"), .columns = {integer("people")}});
  Customers nowhere = customer(1, "Ada");
  nowhere.set_city("");
  const std::vector<Transaction> all{
      {inserted("public.products", "1", product(1, "everywhere"))},
      {inserted("public.customers", "1", nowhere)},
      {deleted("public.customers", "1", &nowhere)},
      {inserted("public.customers", "1", nowhere), deleted("public.customers", "1", &nowhere)}};
  ViewTester tester(view);
  tester.given(all[0]);
  CHECK(tester.rows() == Rows{"1,\\N|0"});
  tester.given(all[1]);
  CHECK(tester.rows() == Rows{"1,|1"});
  tester.given(all[2]);
  CHECK(tester.rows() == Rows{"1,\\N|0"});
  CHECK(first_difference(view, all) == std::nullopt);
}
