#include <cstdlib>
#include <random>

#include "projections/engine/build.h"
#include "projections/engine/context.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "projections/projections.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"
#include "sales.pb.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

// Declared views against the same queries on the database that they come from: types, nulls, NaN
// and all.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::test;
using sales::Sales;
using shop::Customers;
using shop::Orders;

namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

struct Case {
  RelationalView view;
  std::string columns;  ///< As the view has them.
  std::string sql;
};

std::vector<Case> cases() {
  const auto sales = table<Sales>("public.sales");
  const auto orders = table<Orders>("public.orders");
  const auto customers = table<Customers>("public.customers");
  const auto by_customer = orders.group_by(&Orders::customer_id)
                               .aggregate(count("n"), sum("cents", &Orders::total_cents));
  std::vector<Case> all;
  all.push_back(
      {view("regions", Version{1})
           .from(sales)
           .where([](const TableRow<Sales>& s) { return !s[&Sales::region].is_null(); })
           .group_by(&Sales::region)
           .aggregate(count("n"), count("priced", &Sales::amount), sum("pieces", &Sales::pieces),
                      avg("mean_pieces", &Sales::pieces), sum("amount", &Sales::amount),
                      avg("mean_amount", &Sales::amount),
                      projections::min("least", decimal(&Sales::amount)),
                      projections::max("most", decimal(&Sales::amount)),
                      sum("weight", &Sales::weight), projections::max("heaviest", &Sales::weight),
                      distinct_count("weights", &Sales::weight))
           .into(cache_table{}),
       "region, n, priced, pieces, mean_pieces, amount, mean_amount, least, most, weight, "
       "heaviest, weights",
       "SELECT region COLLATE \"C\" AS r, count(*), count(amount), sum(pieces), avg(pieces), "
       "sum(amount), avg(amount),"
       " min(amount), max(amount), sum(weight), max(weight), count(DISTINCT weight) FROM sales"
       " WHERE region IS NOT NULL GROUP BY region ORDER BY r"});
  all.push_back({view("customer_totals", Version{1})
                     .from(customers)
                     .left_join(by_customer, &Customers::id,
                                [](const TableRow<Customers>& c, const Record* t) {
                                  return Record{{"name", c[&Customers::name]},
                                                {"n", t ? (*t)["n"] : Datum(0)},
                                                {"cents", t ? (*t)["cents"] : Datum()}};
                                })
                     .into(cache_table{.key = integer("id"),
                                       .columns = {text("name"), integer("n"), blob("cents")}}),
                 "id, name, n, cents",
                 "SELECT c.id, c.name, count(o.id), sum(o.total_cents) FROM customers c"
                 " LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.id ORDER BY c.id"});
  all.push_back({view("lines", Version{1})
                     .from(orders)
                     .join(customers, &Orders::customer_id,
                           [](const TableRow<Orders>& o, const TableRow<Customers>* c) {
                             return Record{{"name", (*c)[&Customers::name]},
                                           {"city", (*c)[&Customers::city]},
                                           {"status", o[&Orders::status]}};
                           })
                     .into(cache_table{.key = integer("id"),
                                       .columns = {text("name"), text("city"), text("status")}}),
                 "id, name, city, status",
                 "SELECT o.id, c.name, c.city, o.status FROM orders o JOIN customers c ON c.id = "
                 "o.customer_id ORDER BY o.id"});
  return all;
}

/// Random statements, in transactions of which some are rolled back.
class Statements {
 public:
  explicit Statements(std::uint64_t seed) : random_(seed) {}

  std::string transaction() {
    std::string sql = "BEGIN;";
    for (int n = 1 + below(6); n > 0; --n) sql += statement();
    return sql + (below(6) == 0 ? "ROLLBACK;" : "COMMIT;");
  }

 private:
  int below(int end) { return static_cast<int>(random_() % static_cast<std::uint64_t>(end)); }
  std::string number(int end) { return std::to_string(below(end)); }
  std::string one_of(std::vector<std::string> values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }
  std::string amount() {
    return one_of({"NULL", "0", "1.5", "-2.25", "0.10", "19.900", "1e-12", "-1e-7",
                   "123456789012345678.55", "'NaN'", "7"});
  }
  std::string weight() { return one_of({"NULL", "0", "0.25", "-1.5", "3", "1024.75"}); }
  std::string region() {
    return one_of({"NULL", "'north'", "'south'", "'Östlich'", "''", "'x,y'"});
  }

  std::string statement() {
    const std::string id = number(30), customer = number(8);
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        return "INSERT INTO sales VALUES(" + id + "," + region() + "," + number(9) + "," +
               amount() + "," + weight() +
               ") ON CONFLICT(id) DO UPDATE SET region = excluded.region, amount = excluded.amount,"
               " weight = excluded.weight;";
      case 3:
        return "UPDATE sales SET amount = " + amount() +
               ", pieces = pieces + 1 WHERE id % 5 = " + number(5) + ";";
      case 4: return "DELETE FROM sales WHERE id = " + id + ";";
      case 5:
        return "UPDATE sales SET id = id + 100 WHERE id = " + id +
               " AND NOT EXISTS(SELECT 1 FROM sales WHERE id = " + id + " + 100);";
      case 6:
        return "INSERT INTO customers VALUES(" + customer + ", 'c" + number(5) + "', 'e', " +
               region() +
               ") ON CONFLICT(id) DO UPDATE SET name = excluded.name, city = excluded.city;";
      case 7:
        return "DELETE FROM orders WHERE customer_id = " + customer +
               "; DELETE FROM customers WHERE id = " + customer + ";";
      case 8:
      case 9:
        return "INSERT INTO orders SELECT " + id + ", id, 'open', " + number(100) +
               " FROM customers WHERE id = " + customer +
               " ON CONFLICT(id) DO UPDATE SET customer_id = excluded.customer_id, total_cents = "
               "excluded.total_cents;";
      case 10:
        return "UPDATE orders SET status = 's" + number(4) +
               "', total_cents = total_cents + 1 WHERE id % 7 = " + number(7) + ";";
      default:
        return below(8) == 0 ? "TRUNCATE " + one_of({"sales", "orders"}) + ";"
                             : "DELETE FROM orders WHERE id = " + id + ";";
    }
  }

  std::mt19937_64 random_;
};

std::vector<std::string> rows_of(const std::filesystem::path& file, const std::string& sql) {
  const auto database = must(sqlite::Database::open(file, sqlite::Mode::kReadOnly));
  auto statement = must(database->prepare(sql));
  std::vector<std::string> rows;
  while (must(statement.step())) {
    std::string row;
    for (int i = 0; i < statement.column_count(); ++i) {
      const Value value = statement.column(i);
      char real[32];
      std::snprintf(real, sizeof real, "%.17g", value.real());
      row += i == 0 ? "" : "|";
      row += value.is_null()                         ? "null"
             : value.kind() == Value::Kind::kInteger ? std::to_string(value.integer())
             : value.kind() == Value::Kind::kReal    ? std::string(real)
                                                     : std::string(value.text());
    }
    rows.push_back(row);
  }
  return rows;
}

std::vector<std::string> rows_of(TestDatabase& database, const std::string& sql) {
  std::vector<std::string> rows;
  for (const auto& fields : database.query(sql)) {
    std::string row;
    for (const auto& field : fields)
      row += (&field == fields.data() ? "" : "|") + field.value_or("null");
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

TEST_CASE("declared views hold what the same queries give on the source",
          "[projections][relational][pg]") {
  const char* given = std::getenv("MILLRACE_SEEDS");
  const std::uint64_t seeds = given ? std::strtoull(given, nullptr, 10) : 2;
  const char* first = std::getenv("MILLRACE_SEED");
  const std::uint64_t begin = first ? std::strtoull(first, nullptr, 10) : 1;
  const std::vector<Case> all = cases();
  for (std::uint64_t seed = begin; seed < begin + seeds; ++seed) {
    INFO("MILLRACE_SEED=" << seed);
    TestDatabase database;
    TemporaryDirectory temporary("millrace-relational");
    const std::filesystem::path store = temporary / "store", views = temporary / "views";
    database.exec(
        "CREATE TABLE sales(id bigint PRIMARY KEY, region text, pieces int, amount numeric, weight "
        "double precision);"
        "CREATE TABLE customers(id bigint PRIMARY KEY, name text, email text, city text, "
        "created_at timestamptz);"
        "CREATE TABLE orders(id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text, "
        "total_cents bigint,"
        " created_at timestamptz)");
    Statements statements(seed);
    for (int round = 0; round < 5; ++round) {
      for (int i = 0; i < 12; ++i) database.exec(statements.transaction());
      const auto captured =
          run_command({MILLRACE_PROGRAM, "capture", "run", "--source", database.uri(), "--store",
                       store.string(), "--until-caught-up", "--log-level", "warn"});
      INFO(captured.err);
      REQUIRE(captured.exit_code == 0);
      const auto schemas = must(SchemaRegistry::open_read_only(store));
      const Context context{
          .store = store, .views = views, .program = "views", .schemas = schemas.get()};
      for (const Case& one : all) {
        INFO("view " << one.view.name() << ", round " << round);
        must(Worker(one.view, context, {.until_caught_up = true}).run());
        const auto file = views / (one.view.name() + ".db");
        REQUIRE(rows_of(file, "SELECT " + one.columns + " FROM " + one.view.name() +
                                  " ORDER BY 1") == rows_of(database, one.sql));
      }
    }
  }
}

TEST_CASE("a table with another primary key stops its view, until it was resynced and rebuilt",
          "[projections][relational][pg][resync]") {
  TestDatabase database;
  TemporaryDirectory temporary("millrace-rekeyed");
  const std::filesystem::path store = temporary / "store", views = temporary / "views";
  const auto millrace = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {MILLRACE_PROGRAM, "capture"});
    for (const auto& argument : {std::string("--source"), database.uri(), std::string("--store"),
                                 store.string(), std::string("--log-level"), std::string("warn")})
      arguments.push_back(argument);
    const auto done = run_command(arguments);
    INFO(done.err);
    REQUIRE(done.exit_code == 0);
  };
  const auto view = projections::view("names", Version{1})
                        .from(table<Customers>("public.customers"))
                        .into(cache_table{.key = text("key"), .columns = {text("name")}});
  database.exec(
      "CREATE TABLE customers(id bigint PRIMARY KEY, name text, email text NOT NULL, city text, "
      "created_at timestamptz);"
      "INSERT INTO customers VALUES(1, 'Ada', 'a@x'), (2, 'Bob', 'b@x')");
  millrace({"run", "--until-caught-up"});
  const auto follow = [&] {
    const auto schemas = must(SchemaRegistry::open_read_only(store));
    const Context context{
        .store = store, .views = views, .program = "views", .schemas = schemas.get()};
    return Worker(view, context, {.until_caught_up = true}).run();
  };
  must(follow());
  database.exec(
      "ALTER TABLE customers DROP CONSTRAINT customers_pkey, ADD PRIMARY KEY(email);"
      "UPDATE customers SET name = 'Ann' WHERE id = 1");
  millrace({"run", "--until-caught-up"});
  const auto stopped = follow();
  REQUIRE_FALSE(stopped);
  CHECK_THAT(stopped.error().to_string(), Catch::Contains("was (id) and is (email)"));
  millrace({"resync"});
  millrace({"run", "--until-caught-up"});
  const auto schemas = must(SchemaRegistry::open_read_only(store));
  const Context context{
      .store = store, .views = views, .program = "views", .schemas = schemas.get()};
  must(build_generation(view, context));
  must(follow());
  CHECK(rows_of(views / "names.db", "SELECT * FROM names ORDER BY 1") ==
        std::vector<std::string>{"a@x|Ann", "b@x|Bob"});
}
