#include "tests/support/capture_workload.h"

namespace millrace::test {
namespace {

/// The table as SQL sees it now, in the words of the log's JSON.
CapturedLog::Table table_now(test::TestDatabase& database, const std::string& sql) {
  CapturedLog::Table table;
  for (const auto& row : database.query(sql)) table[*row[0]] = nlohmann::json::parse(*row[1]);
  return table;
}

}  // namespace

void Workload::one_transaction() {
  std::string sql = "BEGIN;";
  for (int i = pick(1, 6); i > 0; --i) sql += statement() + ";";
  if (pick(1, 10) == 1) sql += "SAVEPOINT s; " + statement() + "; ROLLBACK TO s;";
  const bool keep = pick(1, 8) != 1;
  sql += "INSERT INTO audit VALUES (" + std::to_string(++number_) + ");";
  database_.exec(sql + (keep ? "COMMIT" : "ROLLBACK"));
  if (keep) committed_.push_back(number_);
}

void Workload::settle() {
  if (database_.value("SELECT 1 FROM audit WHERE id = " + std::to_string(number_)) == "1")
    committed_.push_back(number_);
}

std::string Workload::statement() {
  switch (pick(1, 14)) {
    case 1:
      return "INSERT INTO items VALUES (" + id() +
             ", 'n''ew\\', NULL, NULL, '[1, null]', repeat('y', " + id() +
             " * 20)) ON CONFLICT DO NOTHING";
    case 2:
      return "UPDATE items SET name = md5(" + id() + "::text), price = " + id() +
             ".125 WHERE id = " + id();
    case 3:
      return "UPDATE items SET big = repeat('z', " + id() +
             " * 30), tags = ARRAY[NULL, 'q\"'] WHERE id = " + id();
    case 4:
      return "UPDATE items SET id = id + 1000 WHERE id = " + id() +
             " AND NOT EXISTS (SELECT FROM items o WHERE o.id = items.id + 1000)";
    case 5: return "DELETE FROM items WHERE id = " + id();
    case 6:
      return "INSERT INTO pairs VALUES (" + id() + ", 'b,\\" + id() +
             "', 1) ON CONFLICT (a, b) DO UPDATE SET n = pairs.n + 1";
    case 7:
      return "UPDATE pairs SET b = b || '!' WHERE a = " + id() +
             " AND NOT EXISTS (SELECT FROM pairs o WHERE o.a = pairs.a AND o.b = pairs.b || '!')";
    case 8: return "DELETE FROM pairs WHERE a < " + std::to_string(pick(1, 20));
    case 9:
      return "INSERT INTO codes VALUES (" + id() + ", 'c" + id() +
             "', now()) ON CONFLICT DO NOTHING";
    case 10: return "UPDATE codes SET at = 'infinity' WHERE id % 7 = " + std::to_string(pick(0, 6));
    case 11:
      return "UPDATE codes SET code = code || '*' WHERE id = " + id() +
             " AND NOT EXISTS (SELECT FROM codes o WHERE o.code = codes.code || '*')";
    case 12:
      return "INSERT INTO items SELECT g, 'bulk', g, NULL, NULL, NULL FROM generate_series(" +
             id() + ", " + id() + ") g ON CONFLICT DO NOTHING";
    case 13:
      return pick(1, 15) == 1 ? "TRUNCATE codes" : "UPDATE items SET doc = NULL WHERE id % 11 = 3";
    default: return "UPDATE items SET name = name WHERE id = " + id();
  }
}

std::vector<std::string> workload_differences(TestDatabase& database, const CapturedLog& log) {
  const std::map<std::string, std::string> queries = {
      {"public.items",
       "SELECT id::text, jsonb_build_object('id', id, 'name', name, 'price', price::text, 'tags', "
       "tags, 'doc', doc, 'big', big) FROM items"},
      {"public.pairs",
       R"(SELECT a || ',' || replace(replace(b, '\', '\\'), ',', '\,'), to_jsonb(pairs) FROM pairs)"},
      {"public.codes", "SET TimeZone = 'UTC'; SELECT code, to_jsonb(codes) FROM codes"}};
  std::vector<std::string> differences;
  for (const auto& [category, sql] : queries) {
    const auto found = log.tables.find(category);
    const CapturedLog::Table folded =
        found == log.tables.end() ? CapturedLog::Table() : found->second;
    const CapturedLog::Table now = table_now(database, sql);
    if (folded == now) continue;
    std::string difference = category + ": " + std::to_string(folded.size()) +
                             " rows in the log, " + std::to_string(now.size()) + " in the table";
    for (const auto& [key, row] : now) {
      const auto other = folded.find(key);
      if (other != folded.end() && other->second == row) continue;
      difference += "; first at " + key + ": " +
                    (other == folded.end() ? "missing" : other->second.dump()) + " instead of " +
                    row.dump();
      break;
    }
    differences.push_back(difference);
  }
  return differences;
}

}  // namespace millrace::test
