#include <cstdlib>
#include <map>

#include "projections/projections.h"
#include "projections/testing.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"
#include "tests/support/catch.h"

// Every operator against SQL: random changes of two tables and events of streams go through views,
// and into the same tables of a SQL database; at the end each view must hold what a query gives.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::projections::testing;
using shop::Customers;
using shop::Orders;

namespace {

const auto customers = table<Customers>("public.customers");
const auto orders = table<Orders>("public.orders");

const auto visits = events("visit");

struct Case {
  RelationalView view;
  std::string sql;
};

auto field(const char* name) {
  return [name](const Record& row) { return row[name]; };
}

Record line(const TableRow<Orders>& o, const TableRow<Customers>* c) {
  return {{"name", c ? Datum((*c)[&Customers::name]) : Datum("?")},
          {"city", c ? Datum((*c)[&Customers::city]) : Datum()},
          {"cents", o[&Orders::total_cents]}};
}

std::vector<Case> cases() {
  const auto v = [](const char* name) { return view(name, Version{1}); };
  const auto totals =
      orders.where([](const TableRow<Orders>& o) { return !o[&Orders::customer_id].is_null(); })
          .group_by(&Orders::customer_id)
          .aggregate(count("n"), sum("cents", &Orders::total_cents));
  std::vector<Case> all;
  all.push_back(
      {v("aggregates")
           .from(orders)
           .where([](const Orders& o) { return o.status() != "void"; })
           .where([](const TableRow<Orders>& o) { return !o[&Orders::customer_id].is_null(); })
           .group_by(&Orders::customer_id)
           .aggregate(count("n"), count("statuses", &Orders::status),
                      sum("cents", &Orders::total_cents),
                      projections::min("least", &Orders::total_cents),
                      projections::max("most", &Orders::status),
                      distinct_count("amounts", &Orders::total_cents))
           .into(cache_table{}),
       "SELECT customer_id, count(*), count(status), sum(total_cents), min(total_cents), "
       "max(status),"
       " count(DISTINCT total_cents) FROM orders WHERE coalesce(status, '') <> 'void' AND "
       "customer_id NOT NULL"
       " GROUP BY 1 ORDER BY 1"});
  all.push_back({v("lines")
                     .from(orders.left_join(customers, &Orders::customer_id, line))
                     .into(cache_table{.key = integer("id"),
                                       .columns = {text("name"), text("city"), integer("cents")}}),
                 "SELECT o.id, CASE WHEN c.id IS NULL THEN '?' ELSE c.name END, c.city, "
                 "o.total_cents FROM orders o"
                 " LEFT JOIN customers c ON c.id = o.customer_id ORDER BY 1"});
  all.push_back(
      {v("by_city")
           .from(orders.join(customers, &Orders::customer_id, line))
           .where([](const Record& r) { return !r["city"].is_null(); })
           .group_by(by("city", [](const Record& r) { return std::string(r["city"].text()); }))
           .aggregate(count("n"), sum("cents", field("cents")),
                      projections::min("first", field("name")))
           .into(cache_table{}),
       "SELECT c.city, count(*), sum(o.total_cents), min(c.name) FROM orders o JOIN customers c ON "
       "c.id = o.customer_id"
       " WHERE c.city NOT NULL GROUP BY 1 ORDER BY 1"});
  all.push_back(
      {v("pairs")
           .from(orders.join(orders, on(&Orders::customer_id, &Orders::customer_id),
                             [](const TableRow<Orders>& a, const TableRow<Orders>* b) {
                               return Record{{"cents", a->total_cents() + (*b)->total_cents()}};
                             }))
           .into(cache_table{.key = text("pair"), .columns = {integer("cents")}}),
       "SELECT a.id || ',' || b.id AS pair, coalesce(a.total_cents, 0) + coalesce(b.total_cents, "
       "0) FROM orders a"
       " JOIN orders b ON a.customer_id = b.customer_id ORDER BY pair"});
  all.push_back(
      {v("all_customers")
           .from(customers.left_join(orders, on(&Customers::id, &Orders::customer_id),
                                     [](const TableRow<Customers>& c, const TableRow<Orders>* o) {
                                       return Record{{"name", c[&Customers::name]},
                                                     {"cents", o ? Datum((*o)[&Orders::total_cents])
                                                                 : Datum()}};
                                     }))
           .into(cache_table{.key = text("pair"), .columns = {text("name"), integer("cents")}}),
       "SELECT c.id || ',' || coalesce(o.id, '\\N') AS pair, c.name, o.total_cents FROM customers c"
       " LEFT JOIN orders o ON o.customer_id = c.id ORDER BY pair"});
  all.push_back(
      {v("with_totals")
           .from(customers.left_join(totals, &Customers::id,
                                     [](const TableRow<Customers>& c, const Record* t) {
                                       return Record{{"city", c[&Customers::city]},
                                                     {"n", t ? (*t)["n"] : Datum(0)},
                                                     {"cents", t ? (*t)["cents"] : Datum()}};
                                     }))
           .into(cache_table{.key = integer("id"),
                             .columns = {text("city"), integer("n"), blob("cents")}}),
       "SELECT c.id, c.city, coalesce(t.n, 0), t.cents FROM customers c LEFT JOIN (SELECT "
       "customer_id, count(*) n,"
       " sum(total_cents) cents FROM orders GROUP BY 1) t ON t.customer_id = c.id ORDER BY 1"});
  all.push_back(
      {v("by_count")
           .from(totals)
           .group_by(by("n", [](const Record& r) { return r["n"].integer(); }))
           .aggregate(count("customers"), projections::max("most", field("cents")))
           .into(cache_table{}),
       "SELECT n, count(*), max(cents) FROM (SELECT count(*) n, sum(total_cents) cents FROM orders"
       " WHERE customer_id NOT NULL GROUP BY customer_id) GROUP BY 1 ORDER BY 1"});
  all.push_back(
      {v("referring")
           .from(orders.left_join(orders, &Orders::total_cents,
                                  [](const TableRow<Orders>& a, const TableRow<Orders>* b) {
                                    return Record{
                                        {"other", b ? Datum((*b)[&Orders::status]) : Datum("none")},
                                        {"cents", a[&Orders::total_cents]}};
                                  }))
           .group_by(by("cents", [](const Record& r) { return r["cents"].integer(); }))
           .aggregate(count("n"), projections::max("other", field("other")))
           .into(cache_table{}),
       "SELECT coalesce(a.total_cents, 0) AS cents, count(*), max(CASE WHEN b.id IS NULL THEN "
       "'none' ELSE b.status END)"
       " FROM orders a LEFT JOIN orders b ON b.id = a.total_cents GROUP BY 1 ORDER BY 1"});
  all.push_back({v("numbers")
                     .from(orders.map([](const Orders& o) { return o.total_cents(); }))
                     .union_with(customers.map([](const Customers& c) { return c.id(); }))
                     .flat_map([](std::int64_t n) {
                       return std::vector<std::int64_t>{n, n + 1};
                     })
                     .group_by(by("n", [](std::int64_t n) { return n; }))
                     .aggregate(count("times"))
                     .into(cache_table{}),
                 "WITH u AS (SELECT coalesce(total_cents, 0) n FROM orders UNION ALL SELECT id "
                 "FROM customers)"
                 " SELECT n, count(*) FROM (SELECT n FROM u UNION ALL SELECT n + 1 FROM u) GROUP "
                 "BY 1 ORDER BY 1"});
  all.push_back(
      {v("visits")
           .from(visits.left_join(customers, member("customer"),
                                  [](const Event<>& visit, const TableRow<Customers>* c) {
                                    return Record{
                                        {"visitor", visit.key()},
                                        {"version", visit.column("version")},
                                        {"cents", visit["cents"]},
                                        {"name", c ? Datum((*c)[&Customers::name]) : Datum("?")}};
                                  }))
           .into(cache_table{
               .columns = {text("visitor"), integer("version"), integer("cents"), text("name")}}),
       "SELECT v.at, v.visitor, v.version, v.cents, CASE WHEN c.id IS NULL THEN '?' ELSE c.name END"
       " FROM visits v LEFT JOIN customers c ON c.id = v.customer ORDER BY 1"});
  all.push_back(
      {v("visitors")
           .from(visits)
           .where([](const Event<>& visit) { return visit.type() != "Left"; })
           .group_by(by("visitor", &Event<>::key))
           .aggregate(count("n"), count("paid", member("cents")), sum("cents", member("cents")),
                      projections::max("most", member("cents")),
                      fold("way", std::string(),
                           [](std::string way, const Event<>& visit) {
                             return way + (way.empty() ? "" : ">") +
                                    std::to_string(visit["customer"].integer());
                           }))
           .into(cache_table{.key = text("visitor")}),
       "SELECT visitor, count(*), count(cents), sum(cents), max(cents), group_concat(customer, '>')"
       " FROM (SELECT * FROM visits WHERE type <> 'Left' ORDER BY at) GROUP BY 1 ORDER BY 1"});
  all.push_back(
      {v("visits_of_customers")
           .from(customers.left_join(
               visits
                   .group_by(
                       by("customer", [](const Event<>& e) { return e["customer"].integer(); }))
                   .aggregate(count("n")),
               &Customers::id,
               [](const TableRow<Customers>& c, const Record* visited) {
                 return Record{{"city", c[&Customers::city]},
                               {"n", visited ? (*visited)["n"] : Datum(0)}};
               }))
           .into(cache_table{.key = integer("id"), .columns = {text("city"), integer("n")}}),
       "SELECT id, city, (SELECT count(*) FROM visits v WHERE v.customer = c.id) FROM customers c"
       " ORDER BY 1"});
  all.push_back(
      {v("visits_and_orders")
           .from(visits
                     .join(orders, on(member("customer"), &Orders::customer_id),
                           [](const Event<>& visit, const TableRow<Orders>* o) {
                             return std::to_string(visit["customer"].integer()) + "+" +
                                    std::to_string((*o)->id());
                           })
                     .union_with(
                         visits.map([](const Event<>& visit) { return std::string(visit.key()); })))
           .group_by(by("what", [](const std::string& what) { return what; }))
           .aggregate(count("n"))
           .into(cache_table{}),
       "SELECT what, count(*) FROM (SELECT v.customer || '+' || o.id AS what FROM visits v"
       " JOIN orders o ON o.customer_id = v.customer UNION ALL SELECT visitor FROM visits)"
       " GROUP BY 1 ORDER BY 1"});
  all.push_back(
      {v("own_folds")
           .from(orders)
           .where([](const TableRow<Orders>& o) { return !o[&Orders::customer_id].is_null(); })
           .group_by(&Orders::customer_id)
           .aggregate(fold(
                          "squares", std::int64_t{0},
                          [](std::int64_t sum, const Orders& o) {
                            return sum + o.total_cents() * o.total_cents();
                          },
                          take_back([](std::int64_t sum, const Orders& o) {
                            return sum - o.total_cents() * o.total_cents();
                          })),
                      fold(
                          "ids", std::string(),
                          [](std::string ids, const Orders& o) {
                            return ids + (ids.empty() ? "" : ",") + std::to_string(o.id());
                          },
                          in_order_of(&Orders::id)))
           .into(cache_table{}),
       "SELECT customer_id, sum(coalesce(total_cents, 0) * coalesce(total_cents, 0)),"
       " group_concat(id) FROM (SELECT * FROM orders WHERE customer_id NOT NULL ORDER BY id)"
       " GROUP BY 1 ORDER BY 1"});
  return all;
}

/// Random transactions, with what the tables hold after them.
class Workload {
 public:
  explicit Workload(std::uint64_t seed) : random_(seed) {}

  Transaction transaction() {
    Transaction changes;
    for (int n = 1 + below(6); n > 0; --n) {
      change(changes);
      if (below(3) == 0) event(changes);
    }
    offset_ += changes.size();
    return changes;
  }

  /// The tables, in SQL.
  std::string sql() const {
    std::string sql =
        "CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, city TEXT);"
        "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer_id INTEGER, status TEXT, total_cents "
        "INTEGER);";
    const auto text = [](bool there, const std::string& value) {
      return there ? "'" + value + "'" : "NULL";
    };
    const auto number = [](bool there, std::int64_t value) {
      return there ? std::to_string(value) : "NULL";
    };
    for (const auto& [id, row] : customers_)
      sql += "INSERT INTO customers VALUES(" + std::to_string(id) + "," +
             text(row.has_name(), row.name()) + "," + text(row.has_city(), row.city()) + ");";
    for (const auto& [id, row] : orders_)
      sql += "INSERT INTO orders VALUES(" + std::to_string(id) + "," +
             number(row.has_customer_id(), row.customer_id()) + "," +
             text(row.has_status(), row.status()) + "," +
             number(row.has_total_cents(), row.total_cents()) + ");";
    sql +=
        "CREATE TABLE visits(at INTEGER PRIMARY KEY, visitor TEXT, version INTEGER, type TEXT, "
        "customer INTEGER, cents INTEGER);";
    for (const auto& [at, visit] : visits_)
      sql += "INSERT INTO visits VALUES(" + std::to_string(at) + ",'" + visit.visitor + "'," +
             std::to_string(visit.version) + ",'" + visit.type + "'," +
             std::to_string(visit.customer) + "," + number(visit.cents >= 0, visit.cents) + ");";
    return sql;
  }

 private:
  int below(int end) { return static_cast<int>(random_() % static_cast<std::uint64_t>(end)); }

  Customers customer(int id) {
    Customers row;
    row.set_id(id);
    if (below(8) != 0) row.set_name("name" + std::to_string(below(4)));
    if (below(6) != 0) row.set_city("city" + std::to_string(below(3)));
    return row;
  }
  Orders order(int id) {
    Orders row;
    row.set_id(id);
    if (below(10) != 0) row.set_customer_id(below(6));
    if (below(6) != 0) row.set_status(below(4) == 0 ? "void" : "open" + std::to_string(below(3)));
    if (below(10) != 0) row.set_total_cents(below(12));
    return row;
  }

  template <typename Row>
  void put(Transaction& changes, std::map<int, Row>& rows, const std::string& category, Row row) {
    const int id = static_cast<int>(row.id());
    const std::string key = std::to_string(id);
    const bool there = rows.contains(id);
    changes.push_back(there ? updated(category, key, row) : inserted(category, key, row));
    if (there && below(4) == 0) {  // a column that was not sent
      Row sent = row;
      const int number = 2 + below(2);
      const auto* column = Row::descriptor()->FindFieldByNumber(number);
      const Row& old = rows[id];
      const auto* reflection = row.GetReflection();
      reflection->ClearField(&row, column);
      sent = row;
      if (reflection->HasField(old, column)) {
        if (column->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING)
          reflection->SetString(&row, column, reflection->GetString(old, column));
        else
          reflection->SetInt64(&row, column, reflection->GetInt64(old, column));
      }
      changes.back() = updated(category, key, sent);
      changes.back().unchanged = {static_cast<std::uint32_t>(number)};
    }
    rows[id] = row;
  }

  void change(Transaction& changes) {
    const int id = below(10);
    switch (below(20)) {
      case 0: orders_.clear(); return changes.push_back(truncated("public.orders"));
      case 1:
      case 2:
      case 3:
      case 4:
        if (orders_.erase(id) != 0) changes.push_back(deleted("public.orders", std::to_string(id)));
        return;
      case 5:
      case 6:
        if (customers_.erase(id % 6) != 0)
          changes.push_back(deleted("public.customers", std::to_string(id % 6)));
        return;
      case 7:
      case 8:
      case 9: return put(changes, customers_, "public.customers", customer(id % 6));
      default: return put(changes, orders_, "public.orders", order(id));
    }
  }

  struct Visit {
    std::string visitor, type;
    int version = 0, customer = 0, cents = 0;  ///< No cents if below 0.
  };

  /// One that is appended, or rarely all of a visitor's erased.
  void event(Transaction& changes) {
    const std::size_t at = offset_ + changes.size();
    const std::string visitor = "v" + std::to_string(below(4));
    if (below(9) == 0) {
      std::erase_if(visits_, [&](const auto& one) { return one.second.visitor == visitor; });
      return changes.push_back(erased("visit", visitor));
    }
    Visit visit{visitor, below(4) == 0 ? "Left" : "Seen", versions_[visitor]++, below(6),
                below(15) - 3};
    changes.push_back(
        appended("visit", visitor, visit.type,
                 "{\"customer\":" + std::to_string(visit.customer) +
                     (visit.cents < 0 ? "}" : ",\"cents\":" + std::to_string(visit.cents) + "}")));
    visits_[at] = visit;
  }

  std::mt19937_64 random_;
  std::map<std::size_t, Visit> visits_;  ///< By offset.
  std::map<std::string, int> versions_;
  std::size_t offset_ = 0;  ///< Of the transaction's first event.
  std::map<int, Customers> customers_;
  std::map<int, Orders> orders_;
};

std::vector<std::string> query(sqlite::Database& database, const std::string& sql) {
  auto statement = database.prepare(sql);
  REQUIRE(statement);
  std::vector<std::string> rows;
  for (;;) {
    const auto more = statement->step();
    REQUIRE(more);
    if (!*more) return rows;
    std::string row;
    for (int i = 0; i < statement->column_count(); ++i) {
      const Value value = statement->column(i);
      row += i == 0 ? "" : "|";
      row += value.is_null()                         ? "null"
             : value.kind() == Value::Kind::kInteger ? std::to_string(value.integer())
                                                     : std::string(value.text());
    }
    rows.push_back(row);
  }
}

}  // namespace

TEST_CASE("every operator gives what the same query gives, however the changes come",
          "[projections][relational][random]") {
  const char* given = std::getenv("MILLRACE_SEEDS");
  const std::uint64_t seeds = given ? std::strtoull(given, nullptr, 10) : 25;
  const char* first = std::getenv("MILLRACE_SEED");
  const std::uint64_t begin = first ? std::strtoull(first, nullptr, 10) : 1;
  const std::vector<Case> all = cases();
  for (std::uint64_t seed = begin; seed < begin + seeds; ++seed) {
    Workload workload(seed);
    std::vector<Transaction> transactions;
    for (int i = 0; i < 30; ++i) transactions.push_back(workload.transaction());
    const auto database = sqlite::Database::open(":memory:", sqlite::Mode::kBulk);
    REQUIRE(database);
    REQUIRE((*database)->execute(workload.sql()));
    for (const Case& one : all) {
      INFO("MILLRACE_SEED=" << seed << ", view " << one.view.name());
      ViewTester tester(one.view);
      for (const Transaction& transaction : transactions) tester.given(transaction);
      REQUIRE(tester.rows() == query(**database, one.sql));
      const auto difference = first_difference(one.view, transactions, seed);
      INFO(difference.value_or(""));
      REQUIRE_FALSE(difference);
    }
  }
}
