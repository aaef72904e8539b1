#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace millrace::projections::test {

/// Random statements on the tables of kOperatorTables, the same for the same seed. Values are those
/// that views could get wrong: nulls, equal numerics of different scale, NaN, text that sorts
/// otherwise in most locales and texts that PostgreSQL leaves out of an update.
class OperatorStatements {
 public:
  explicit OperatorStatements(std::uint64_t seed) : random_(seed) {}

  /// What empties the captured tables, in one of the ways there are.
  std::string clear() {
    return one_of({"TRUNCATE customers, orders, sales, prices;",
                   "DELETE FROM sales; TRUNCATE orders; DELETE FROM customers; DELETE FROM prices;",
                   "BEGIN; TRUNCATE prices, sales; DELETE FROM orders; DELETE FROM customers; "
                   "COMMIT;"});
  }

  /// `events`: whether streams may be appended to.
  std::string transaction(bool events = true) {
    std::string sql = "BEGIN;";
    for (int n = 1 + below(6); n > 0; --n) {
      if (below(8) == 0)
        sql += "SAVEPOINT s;" + statement(events) + statement(events) +
               one_of({"ROLLBACK TO s;", "RELEASE s;"});
      sql += statement(events);
    }
    return sql + (below(7) == 0 ? "ROLLBACK;" : "COMMIT;");
  }

  /// One that no view misses.
  std::string last_transaction() {
    return "BEGIN;" + sale("1000") + customer("1000") + price() +
           "INSERT INTO orders VALUES(1000, 1000, 'last', 1) ON CONFLICT(id) DO UPDATE SET "
           "total_cents = orders.total_cents + 1;" +
           visit() + "COMMIT;";
  }

  int below(int end) { return static_cast<int>(random_() % static_cast<std::uint64_t>(end)); }

 private:
  std::string number(int end) { return std::to_string(below(end)); }
  std::string one_of(std::vector<std::string> values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }
  std::string maybe(const std::string& value) { return below(7) == 0 ? "NULL" : value; }

  std::string amount() {
    return one_of({"NULL", "0", "0.00", "1.5", "1.50", "-2.25", "0.10", "19.900", "19.9", "1e-12",
                   "-1e-7", "123456789012345678.55", "'NaN'", "7", "7.000", "100000000000000000000",
                   below(8) == 0 ? "'Infinity'" : "12", below(8) == 0 ? "'-Infinity'" : "-0.0"});
  }
  std::string weight() { return one_of({"NULL", "0", "0.25", "-1.5", "3", "1024.75", "-0.0"}); }
  std::string region() {
    if (below(2) == 0) return one_of({"'north'", "'North'", "'x,y'"});  // so that joins find some
    return one_of({"NULL", "'north'", "'North'", "'Östlich'", "'öst'", "''", "'x,y'", "'x\\y'",
                   "'a b'", "'a_b'", "'ab'", "E'o\\u0308st'", "'\U0001F30D'"});
  }
  std::string note() {
    return one_of({"NULL", "''", "'short'", "'b'", long_note(), long_note(), long_note()});
  }
  std::string long_note() {  // beyond what a row holds itself
    return "repeat(md5('" + number(9) + "'), " + std::to_string(80 + below(3)) + ")";
  }
  std::string status() {
    return one_of({"NULL", "'open'", "'Open'", "'void'", "'closed'", "'öffnen'", "''"});
  }

  std::string sale(const std::string& id) {
    return "INSERT INTO sales VALUES(" + id + "," + region() + "," + maybe(number(9)) + "," +
           amount() + "," + weight() + "," + note() +
           ") ON CONFLICT(id) DO UPDATE SET region = excluded.region, amount = excluded.amount,"
           " weight = excluded.weight" +
           (below(2) == 0 ? ", note = excluded.note;" : ";");
  }
  std::string customer(const std::string& id) {
    return "INSERT INTO customers VALUES(" + id + "," + maybe("'c" + number(5) + "'") + ",'e'," +
           region() + ") ON CONFLICT(id) DO UPDATE SET name = excluded.name, city = excluded.city;";
  }
  std::string order(const std::string& id) {
    return "INSERT INTO orders VALUES(" + id + "," + maybe(number(8)) + "," + status() + "," +
           maybe(number(100)) +
           ") ON CONFLICT(id) DO UPDATE SET customer_id = excluded.customer_id, total_cents = "
           "excluded.total_cents;";
  }
  std::string price() {
    const std::string region = this->region();
    return "INSERT INTO prices VALUES(" + (region == "NULL" ? "'none'" : region) + ",'k" +
           number(3) + "'," + amount() +
           ") ON CONFLICT(region, kind) DO UPDATE SET price = excluded.price;";
  }
  std::string visit() {
    return "SELECT visit('v" + number(4) + "','" + one_of({"Seen", "Left"}) + "'," + number(8) +
           "," + one_of({"NULL", "0", "3", "12", "1.5", "2.50"}) + ");";
  }
  /// To keys that are free; one in ten of all rows at once.
  std::string move(const std::string& table) {
    const std::string some = below(10) == 0 ? "" : " AND id % 7 = " + number(7);
    const std::string by = one_of({"100", "200"});
    return "UPDATE " + table + " SET id = id + " + by + " WHERE id < 100" + some + " AND id + " +
           by + " NOT IN (SELECT id FROM " + table + ");";
  }
  std::string move_price() {
    return "UPDATE prices SET region = region || 'z', price = " + amount() + " WHERE kind = 'k" +
           number(3) +
           "' AND region || 'z' NOT IN (SELECT region FROM prices) AND length(region) "
           "< 9;";
  }
  std::string remove(const std::string& table) {
    return "DELETE FROM " + table + " WHERE id % " + one_of({"30", "11", "5"}) + " = " + number(5) +
           ";";
  }
  std::string truncate() {
    return "TRUNCATE " + one_of({"sales", "orders", "customers", "prices", "orders, customers"}) +
           ";";
  }

  std::string statement(bool events) {
    switch (below(20)) {
      case 0:
      case 1:
      case 2: return sale(number(30)) + sale(number(30));
      case 3:
        return "UPDATE sales SET amount = " + amount() +
               ", pieces = pieces + 1 WHERE id % 5 = " + number(5) + ";";
      case 4: return "UPDATE sales SET region = " + region() + " WHERE id % 6 = " + number(6) + ";";
      case 5:
      case 6: return customer(number(8));
      case 7:
      case 8:
      case 9: return order(number(30));
      case 10:
        return "UPDATE orders SET status = " + status() +
               ", total_cents = total_cents + 1 WHERE id % 7 = " + number(7) + ";";
      case 11:
        return "UPDATE orders SET customer_id = (customer_id + 1) % 8 WHERE id % 4 = " + number(4) +
               ";";
      case 12: return price() + price() + price();
      case 13: return move_price();
      case 14: return move(one_of({"sales", "orders", "customers"}));
      case 15: return remove(one_of({"sales", "orders", "customers"}));
      case 16: return below(4) == 0 ? truncate() : remove("orders");
      case 17: return "DELETE FROM prices WHERE kind = 'k" + number(3) + "' AND price > 1;";
      default: return events ? visit() : sale(number(30));
    }
  }

  std::mt19937_64 random_;
};

}  // namespace millrace::projections::test
