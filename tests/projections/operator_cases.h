#pragma once

#include <string>
#include <vector>

#include "prices.pb.h"
#include "projections/projections.h"
#include "public.customers.pb.h"
#include "public.orders.pb.h"
#include "sales.pb.h"

// Declared views of every operator, each beside the query that gives the same rows on the source.

namespace millrace::projections::test {

/// What the queries need on the source. `visit()` appends an event to a stream and tells a table
/// beside the captured ones of it.
inline constexpr const char* kOperatorTables = R"(
  CREATE TABLE customers(id bigint PRIMARY KEY, name text, email text, city text, created_at timestamptz);
  CREATE TABLE orders(id bigint PRIMARY KEY, customer_id bigint, status text, total_cents bigint, created_at timestamptz);
  CREATE TABLE sales(id bigint PRIMARY KEY, region text, pieces int, amount numeric, weight double precision, note text);
  ALTER TABLE sales ALTER note SET STORAGE EXTERNAL;
  CREATE TABLE prices(region text, kind text, price numeric, PRIMARY KEY(region, kind));
  CREATE SCHEMA beside;
  CREATE TABLE beside.visits(at bigserial PRIMARY KEY, visitor text, type text, customer bigint, cents numeric);
  CREATE FUNCTION visit(visitor text, type text, customer bigint, cents numeric) RETURNS bigint LANGUAGE sql AS $$
    SELECT pg_logical_emit_message(true, 'millrace:' || type || '@visit/' || visitor,
                                   json_strip_nulls(json_build_object('customer', customer, 'cents', cents))::text);
    INSERT INTO beside.visits(visitor, type, customer, cents) VALUES(visitor, type, customer, cents) RETURNING at $$)";

struct OperatorCase {
  RelationalView view;
  std::string columns;  ///< As the view has them.
  std::string sql;      ///< On the source; rows come in any order.
};

namespace operators {

using ::sales::Prices;
using ::sales::Sales;
using shop::Customers;
using shop::Orders;

const auto customers = table<Customers>("public.customers");
const auto orders = table<Orders>("public.orders");
const auto sales = table<Sales>("public.sales");
const auto prices = table<Prices>("public.prices");
const auto visits = events("visit");
const auto totals =
    orders.where([](const TableRow<Orders>& o) { return !o[&Orders::customer_id].is_null(); })
        .group_by(&Orders::customer_id)
        .aggregate(count("n"), sum("cents", &Orders::total_cents));

inline ViewName named(const char* name) { return view(name, Version{1}); }
inline auto field(const char* name) {
  return [name](const Record& row) { return row[name]; };
}
inline auto text_of(const char* name) {
  return [name](const Record& row) { return std::string(row[name].text()); };
}
/// Not null.
template <typename Row, typename Column>
auto has(Column Row::*column) {
  return [column](const TableRow<Row>& row) { return !row[column].is_null(); };
}
/// A numeric as the database shows trim_scale() of it, since of equal ones it keeps any.
template <typename Row>
auto trimmed(const std::string& (Row::*column)() const) {
  return [column](const TableRow<Row>& row) {
    const auto number = Datum(row[column]).decimal();
    return number ? Datum(number->is_finite() ? number->reduced() : *number) : Datum();
  };
}
/// The first letters of a text that is often too long to be sent with an update, and its length.
inline Datum summary(const TableRow<Sales>& s) {
  const Value note = s[&Sales::note];
  if (note.is_null()) return {};
  return std::string(note.text().substr(0, 4)) + ":" + std::to_string(note.text().size());
}
inline Record line(const TableRow<Orders>& o, const TableRow<Customers>* c) {
  return {{"name", c ? Datum((*c)[&Customers::name]) : Datum("?")},
          {"city", c ? Datum((*c)[&Customers::city]) : Datum()},
          {"cents", o[&Orders::total_cents]}};
}

inline void add_rows(std::vector<OperatorCase>& all) {
  all.push_back({named("kept")
                     .from(sales)
                     .where(has(&Sales::amount))
                     .where([](const Sales& s) { return s.pieces() % 3 != 0; })
                     .map([](const TableRow<Sales>& s) {
                       return Record{{"region", s[&Sales::region]},
                                     {"pieces", 2 * s->pieces()},
                                     {"amount", s[&Sales::amount]},
                                     {"note", summary(s)}};
                     })
                     .into(cache_table{.key = integer("id"),
                                       .columns = {text("region"), integer("pieces"),
                                                   text("amount"), text("note")}}),
                 "id, region, pieces, amount, note",
                 "SELECT id, region, 2 * pieces, amount, left(note, 4) || ':' || length(note)"
                 " FROM sales WHERE amount IS NOT NULL AND pieces % 3 <> 0"});
  all.push_back(
      {named("pieces")
           .from(sales)
           .flat_map([](const TableRow<Sales>& s) {
             std::vector<Record> parts;
             for (int i = 1; i <= s->pieces() % 4; ++i)
               parts.push_back({{"part", i}, {"region", s[&Sales::region]}});
             return parts;
           })
           .into(cache_table{.key = text("piece"), .columns = {integer("part"), text("region")}}),
       "piece, part, region",
       "SELECT id || '/' || (part - 1), part, region FROM sales, generate_series(1, "
       "pieces % 4) part"});
  all.push_back(
      {named("numbers")
           .from(orders.map([](const Orders& o) { return o.customer_id(); }))
           .union_with(visits.map([](const Event<>& visit) { return visit["customer"].integer(); }))
           .union_with(sales.map([](const Sales& s) { return std::int64_t{s.pieces()}; }))
           .flat_map([](std::int64_t n) {
             return std::vector<std::int64_t>{n, n + 1};
           })
           .group_by(by("n", [](std::int64_t n) { return n; }))
           .aggregate(count("times"))
           .into(cache_table{}),
       "n, times",
       "WITH u AS (SELECT coalesce(customer_id, 0) n FROM orders UNION ALL SELECT "
       "customer FROM beside.visits UNION ALL SELECT coalesce(pieces, 0) FROM sales)"
       " SELECT n, count(*) FROM (SELECT n FROM u UNION ALL SELECT n + 1 FROM u) v GROUP "
       "BY n"});
}

inline void add_aggregates(std::vector<OperatorCase>& all) {
  all.push_back(
      {named("regions")
           .from(sales)
           .where(has(&Sales::region))
           .group_by(&Sales::region)
           .aggregate(count("n"), count("priced", &Sales::amount), sum("pieces", &Sales::pieces),
                      avg("mean_pieces", &Sales::pieces), sum("amount", &Sales::amount),
                      avg("mean_amount", &Sales::amount),
                      projections::min("least", trimmed(&Sales::amount)),
                      projections::max("most", trimmed(&Sales::amount)),
                      sum("weight", &Sales::weight), avg("mean_weight", &Sales::weight),
                      projections::max("heaviest", &Sales::weight),
                      projections::min("first", summary), projections::max("last", summary),
                      distinct_count("weights", &Sales::weight),
                      distinct_count("amounts", decimal(&Sales::amount)),
                      distinct_count("notes", &Sales::note))
           .into(cache_table{}),
       "region, n, priced, pieces, mean_pieces, amount, mean_amount, least, most, weight, "
       "mean_weight, heaviest, first, last, weights, amounts, notes",
       "SELECT region, count(*), count(amount), sum(pieces), avg(pieces), sum(amount), avg(amount),"
       " trim_scale(min(amount)), trim_scale(max(amount)), sum(weight), avg(weight), max(weight),"
       " min((left(note, 4) || ':' || length(note)) COLLATE \"C\"),"
       " max((left(note, 4) || ':' || length(note)) COLLATE \"C\"),"
       " count(DISTINCT weight), count(DISTINCT amount), count(DISTINCT note) FROM sales"
       " WHERE region IS NOT NULL GROUP BY region"});
  all.push_back(
      {named("greatest")
           .from(sales)
           .group_by(by("odd", [](const Sales& s) { return s.pieces() % 2; }))
           .aggregate(top("amounts", 3, trimmed(&Sales::amount)), top("regions", 4, &Sales::region),
                      top("most", 2, &Sales::pieces))
           .into(cache_table{}),
       "odd, amounts, regions, most",
       "WITH s AS (SELECT *, coalesce(pieces, 0) % 2 AS odd FROM sales),"
       " a AS (SELECT odd, amount, row_number() OVER (PARTITION BY odd ORDER BY amount DESC) AS r"
       "  FROM s WHERE amount IS NOT NULL),"
       " b AS (SELECT odd, region, row_number() OVER (PARTITION BY odd ORDER BY region COLLATE "
       "\"C\" DESC) AS r FROM s WHERE region IS NOT NULL),"
       " c AS (SELECT odd, pieces, row_number() OVER (PARTITION BY odd ORDER BY pieces DESC) AS r"
       "  FROM s WHERE pieces IS NOT NULL)"
       "SELECT odd,"
       " (SELECT '[' || coalesce(string_agg(to_json(trim_scale(amount)::text)::text, ',' ORDER BY "
       "r), '') || ']' FROM a WHERE a.odd = s.odd AND r <= 3),"
       " (SELECT '[' || coalesce(string_agg(to_json(region)::text, ',' ORDER BY r), '') || ']'"
       "  FROM b WHERE b.odd = s.odd AND r <= 4),"
       " (SELECT '[' || coalesce(string_agg(pieces::text, ',' ORDER BY r), '') || ']'"
       "  FROM c WHERE c.odd = s.odd AND r <= 2) FROM s GROUP BY odd"});
  all.push_back({named("by_amount")
                     .from(sales)
                     .where(has(&Sales::amount))
                     .group_by(decimal(&Sales::amount))
                     .aggregate(count("n"), distinct_count("regions", &Sales::region))
                     .into(cache_table{}),
                 "amount, n, regions",
                 "SELECT trim_scale(amount), count(*), count(DISTINCT region) FROM sales"
                 " WHERE amount IS NOT NULL GROUP BY amount"});
  all.push_back(
      {named("by_two")
           .from(sales)
           .group_by(&Sales::region, &Sales::weight)
           .aggregate(count("n"), sum("amount", &Sales::amount))
           .into(cache_table{}),
       "region, weight, n, amount",
       "SELECT region, weight, count(*), sum(amount) FROM sales GROUP BY region, weight"});
  all.push_back(
      {named("own_folds")
           .from(orders)
           .where(has(&Orders::customer_id))
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
                          in_order_of(&Orders::id)),
                      fold(
                          "by_status", 0,
                          [](int last, const Orders& o) {
                            return (last * 7 + static_cast<int>(o.id())) % 1009;
                          },
                          in_order_of(&Orders::status),
                          shown_as([](int last) { return "#" + std::to_string(last); })))
           .into(cache_table{}),
       "customer_id, squares, ids, by_status",
       "WITH RECURSIVE o AS (SELECT customer_id, id, row_number() OVER (PARTITION BY customer_id"
       "   ORDER BY status COLLATE \"C\" NULLS FIRST, id::text COLLATE \"C\") AS r FROM orders"
       "  WHERE customer_id IS NOT NULL),"
       " f AS (SELECT customer_id, r, id % 1009 AS last FROM o WHERE r = 1 UNION ALL"
       "  SELECT o.customer_id, o.r, (f.last * 7 + o.id) % 1009 FROM f JOIN o"
       "   ON o.customer_id = f.customer_id AND o.r = f.r + 1)"
       "SELECT customer_id, sum(coalesce(total_cents, 0) * coalesce(total_cents, 0)),"
       " string_agg(id::text, ',' ORDER BY id),"
       " (SELECT '#' || last FROM f WHERE f.customer_id = orders.customer_id ORDER BY r DESC LIMIT "
       "1) FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id"});
}

inline void add_joins(std::vector<OperatorCase>& all) {
  all.push_back(
      {named("lines")
           .from(orders.join(customers, &Orders::customer_id, line))
           .into(cache_table{.key = integer("id"),
                             .columns = {text("name"), text("city"), integer("cents")}}),
       "id, name, city, cents",
       "SELECT o.id, c.name, c.city, o.total_cents FROM orders o JOIN customers c ON c.id "
       "= o.customer_id"});
  all.push_back({named("all_lines")
                     .from(orders.left_join(customers, &Orders::customer_id, line))
                     .into(cache_table{.key = integer("id"),
                                       .columns = {text("name"), text("city"), integer("cents")}}),
                 "id, name, city, cents",
                 "SELECT o.id, CASE WHEN c.id IS NULL THEN '?' ELSE c.name END, c.city, "
                 "o.total_cents FROM orders o LEFT JOIN customers c ON c.id = o.customer_id"});
  all.push_back(
      {named("priced")
           .from(sales.left_join(
               prices,
               [](const TableRow<Sales>& s) {
                 const Datum region(s[&Sales::region]);
                 return region.is_null()
                            ? Datum()
                            : Datum(region.key_part() + ",k" + std::to_string(s->pieces() % 3));
               },
               [](const TableRow<Sales>& s, const TableRow<Prices>* p) {
                 return Record{{"region", s[&Sales::region]},
                               {"price", p ? Datum((*p)[&Prices::price]) : Datum("none")}};
               }))
           .into(cache_table{.key = integer("id"), .columns = {text("region"), text("price")}}),
       "id, region, price",
       "SELECT s.id, s.region, CASE WHEN p.kind IS NULL THEN 'none' ELSE p.price::text END FROM "
       "sales s LEFT JOIN prices p ON p.region = s.region AND p.kind = 'k' || coalesce(s.pieces, "
       "0) % 3"});
  all.push_back(
      {named("as_dear")
           .from(sales.join(
               prices, on(decimal(&Sales::amount), decimal(&Prices::price)),
               [](const TableRow<Sales>& s, const TableRow<Prices>* p) {
                 return Record{{"sold", s[&Sales::amount]}, {"kind", (*p)[&Prices::kind]}};
               }))
           .into(cache_table{.key = text("pair"), .columns = {text("sold"), text("kind")}}),
       "sold, kind", "SELECT s.amount, p.kind FROM sales s JOIN prices p ON p.price = s.amount"});
  all.push_back(
      {named("offers")
           .from(prices.left_join(sales, on(&Prices::region, &Sales::region),
                                  [](const TableRow<Prices>& p, const TableRow<Sales>* s) {
                                    return Record{{"region", p[&Prices::region]},
                                                  {"kind", p[&Prices::kind]},
                                                  {"note", s ? summary(*s) : Datum("none")}};
                                  }))
           .into(cache_table{.key = text("pair"),
                             .columns = {text("region"), text("kind"), text("note")}}),
       "region, kind, note",
       "SELECT p.region, p.kind, CASE WHEN s.id IS NULL THEN 'none' ELSE left(s.note, 4) || ':' || "
       "length(s.note) END FROM prices p LEFT JOIN sales s ON s.region = p.region"});
  all.push_back(
      {named("couples")
           .from(orders.join(orders, on(&Orders::customer_id, &Orders::customer_id),
                             [](const TableRow<Orders>& a, const TableRow<Orders>* b) {
                               return Record{{"cents", a->total_cents() + (*b)->total_cents()}};
                             }))
           .into(cache_table{.key = text("pair"), .columns = {integer("cents")}}),
       "pair, cents",
       "SELECT a.id || ',' || b.id, coalesce(a.total_cents, 0) + coalesce(b.total_cents, 0)"
       " FROM orders a JOIN orders b ON a.customer_id = b.customer_id"});
}

inline void add_events(std::vector<OperatorCase>& all) {
  all.push_back({named("visits")
                     .from(visits.left_join(
                         customers, member("customer"),
                         [](const Event<>& visit, const TableRow<Customers>* c) {
                           return Record{{"visitor", visit.key()},
                                         {"version", visit.column("version")},
                                         {"cents", visit["cents"]},
                                         {"name", c ? Datum((*c)[&Customers::name]) : Datum("?")}};
                         }))
                     .into(cache_table{.columns = {text("visitor"), integer("version"),
                                                   text("cents"), text("name")}}),
                 "visitor, version, cents, name",
                 "SELECT visitor, row_number() OVER (PARTITION BY visitor ORDER BY at) - 1, cents,"
                 " CASE WHEN c.id IS NULL THEN '?' ELSE c.name END"
                 " FROM beside.visits v LEFT JOIN customers c ON c.id = v.customer"});
  all.push_back(
      {named("visitors")
           .from(visits)
           .where([](const Event<>& visit) { return visit.type() != "Left"; })
           .group_by(by("visitor", &Event<>::key))
           .aggregate(count("n"), count("paid", member("cents")), sum("cents", member("cents")),
                      projections::max("last", member("customer")),
                      fold("way", std::string(),
                           [](std::string way, const Event<>& visit) {
                             return way + (way.empty() ? "" : ">") +
                                    std::to_string(visit["customer"].integer());
                           }))
           .into(cache_table{.key = text("visitor")}),
       "visitor, n, paid, cents, last, way",
       "SELECT visitor, count(*), count(cents), sum(cents), max(customer),"
       " string_agg(customer::text, '>' ORDER BY at) FROM beside.visits WHERE type <> 'Left' GROUP "
       "BY visitor"});
  all.push_back(
      {named("cities_seen")
           .from(visits.join(
               customers, member("customer"),
               [](const Event<>& visit, const TableRow<Customers>* c) {
                 return Record{{"city", (*c)[&Customers::city]}, {"visitor", visit.key()}};
               }))
           .group_by(by("city", field("city")))
           .aggregate(count("n"), distinct_count("visitors", field("visitor")))
           .map([](const Record& r) {
             return Record{{"label", r["city"].is_null() ? Datum("nowhere") : r["city"]},
                           {"n", r["n"]},
                           {"visitors", r["visitors"]}};
           })
           .group_by(by("label", field("label")))
           .aggregate(sum("n", field("n")), projections::max("visitors", field("visitors")))
           .into(cache_table{.key = text("label")}),
       "label, n, visitors",
       "SELECT coalesce(city, 'nowhere'), sum(n), max(visitors) FROM (SELECT city, count(*) AS n,"
       " count(DISTINCT visitor) AS visitors FROM beside.visits v JOIN customers c ON c.id = "
       "v.customer GROUP BY city) t GROUP BY 1"});
}

inline void add_views_on_views(std::vector<OperatorCase>& all) {
  all.push_back(
      {named("with_totals")
           .from(customers.left_join(totals, &Customers::id,
                                     [](const TableRow<Customers>& c, const Record* t) {
                                       return Record{{"city", c[&Customers::city]},
                                                     {"n", t ? (*t)["n"] : Datum(0)},
                                                     {"cents", t ? (*t)["cents"] : Datum()}};
                                     }))
           .into(cache_table{.key = integer("id"),
                             .columns = {text("city"), integer("n"), blob("cents")}}),
       "id, city, n, cents",
       "SELECT c.id, c.city, count(o.id), sum(o.total_cents) FROM customers c LEFT JOIN orders o"
       " ON o.customer_id = c.id GROUP BY c.id"});
  all.push_back(
      {named("by_count")
           .from(totals)
           .group_by(by("n", [](const Record& r) { return r["n"].integer(); }))
           .aggregate(count("customers"), projections::max("most", field("cents")),
                      avg("mean", field("cents")))
           .into(cache_table{}),
       "n, customers, most, mean",
       "SELECT n, count(*), max(cents), avg(cents) FROM (SELECT count(*) n, sum(total_cents) cents "
       "FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id) t GROUP BY n"});
  const auto seen =
      visits.group_by(by("customer", [](const Event<>& e) { return e["customer"].integer(); }))
          .aggregate(count("n"));
  all.push_back(
      {named("as_often")
           .from(totals.left_join(seen, on(field("n"), field("n")),
                                  [](const Record& t, const Record* s) {
                                    return Record{{"customer", t["customer_id"]},
                                                  {"visitor", s ? (*s)["customer"] : Datum()},
                                                  {"cents", t["cents"]}};
                                  }))
           .into(cache_table{.key = text("pair"),
                             .columns = {integer("customer"), integer("visitor"), blob("cents")}}),
       "customer, visitor, cents",
       "SELECT t.customer_id, s.customer, t.cents FROM (SELECT customer_id, count(*) n, "
       "sum(total_cents) cents FROM orders WHERE customer_id IS NOT NULL GROUP BY 1) t"
       " LEFT JOIN (SELECT customer, count(*) n FROM beside.visits GROUP BY 1) s ON s.n = t.n"});
  all.push_back(
      {named("cities")
           .from(orders.join(customers, &Orders::customer_id, line))
           .where([](const Record& r) { return !r["city"].is_null(); })
           .group_by(by("city", text_of("city")))
           .aggregate(count("n"), sum("cents", field("cents")),
                      projections::min("first", field("name")))
           .left_join(sales.where(has(&Sales::region))
                          .group_by(&Sales::region)
                          .aggregate(sum("amount", &Sales::amount)),
                      field("city"),
                      [](const Record& city, const Record* region) {
                        return Record{{"n", city["n"]},
                                      {"cents", city["cents"]},
                                      {"first", city["first"]},
                                      {"amount", region ? (*region)["amount"] : Datum("none")}};
                      })
           .into(cache_table{
               .key = text("city"),
               .columns = {integer("n"), blob("cents"), text("first"), text("amount")}}),
       "city, n, cents, first, amount",
       "SELECT t.*, CASE WHEN s.region IS NULL THEN 'none' ELSE s.amount::text END FROM (SELECT "
       "c.city, count(*), sum(o.total_cents), min(c.name COLLATE \"C\") FROM orders o JOIN "
       "customers c ON c.id = o.customer_id WHERE c.city IS NOT NULL GROUP BY c.city) t"
       " LEFT JOIN (SELECT region, sum(amount) AS amount FROM sales GROUP BY 1) s ON s.region = "
       "t.city"});
}

}  // namespace operators

inline std::vector<OperatorCase> operator_cases() {
  std::vector<OperatorCase> all;
  operators::add_rows(all);
  operators::add_aggregates(all);
  operators::add_joins(all);
  operators::add_events(all);
  operators::add_views_on_views(all);
  return all;
}

}  // namespace millrace::projections::test
