#include "tests/support/capture_workload.h"

#include <algorithm>

namespace millrace::test {
namespace {

/// The table as SQL sees it now, in the words of the log's JSON.
CapturedLog::Table table_now(test::TestDatabase& database, const std::string& sql) {
  CapturedLog::Table table;
  for (const auto& row : database.query(sql)) table[*row[0]] = nlohmann::json::parse(*row[1]);
  return table;
}

std::string text_of(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

constexpr const char* kShapes = "CREATE TABLE shapes (id int PRIMARY KEY, v text)";

}  // namespace

void Workload::make_tables() {
  database_.exec(kWorkloadTables);
  if (kind_ == Kind::kEverything) database_.exec(create_outbox("outbox") + ";" + kShapes);
}

void Workload::one_transaction() {
  std::string sql = "BEGIN;";
  written_ = {};
  for (int i = pick(1, 6); i > 0; --i) sql += statement() + ";" + events_and_shapes(written_);
  if (pick(1, 10) == 1) {
    WrittenEvents undone;
    sql += "SAVEPOINT s; " + statement() + "; " + events_and_shapes(undone) + "ROLLBACK TO s;";
  }
  const bool keep = pick(1, 8) != 1;
  sql += "INSERT INTO audit VALUES (" + std::to_string(++number_) + ");";
  database_.exec(sql + (keep ? "COMMIT" : "ROLLBACK"));
  if (keep) this->keep();
}

void Workload::settle() {
  if (database_.value("SELECT 1 FROM audit WHERE id = " + std::to_string(number_)) == "1") keep();
}

void Workload::keep() {
  committed_.push_back(number_);
  committed_events_.push_back(std::move(written_));
}

std::string Workload::event_difference(std::size_t streamed, std::vector<std::string> found) const {
  std::vector<std::string> there, expected;
  for (std::size_t i = 0; i < committed_events_.size(); ++i) {
    const bool came = i + streamed >= committed_events_.size();
    const WrittenEvents& written = committed_events_[i];
    std::vector<std::string>& list = came ? expected : there;
    for (const std::string& line : came ? written.lines : written.left) list.push_back(line);
  }
  std::ranges::sort(there);  // a table's rows lie in any order
  std::sort(found.begin(),
            found.begin() + static_cast<std::ptrdiff_t>(std::min(there.size(), found.size())));
  expected.insert(expected.begin(), there.begin(), there.end());
  return first_difference(expected, found);
}

/// Beside every third statement.
std::string Workload::events_and_shapes(WrittenEvents& written) {
  if (kind_ == Kind::kRows) return {};
  switch (pick(1, 12)) {
    case 1:
    case 2:
    case 3: return events_.write(written);
    case 4:
      if (pick(1, 10) != 1) return shape() + ";";
      // The largest go to the store's disk before their commit.
      return events_.write_many(written, pick(1, 40) == 1 ? 16'000 : pick(100, 400));
    default: return {};
  }
}

/// Names of columns are never given again. Those that are not there change nothing.
std::string Workload::shape() {
  const auto if_there = [](const std::string& alter) {
    return "DO $$ BEGIN " + alter + "; EXCEPTION WHEN undefined_column THEN NULL; END $$";
  };
  const std::string alter = "ALTER TABLE shapes ";
  const std::string fresh = "c" + std::to_string(columns_ + 1);
  const std::string any = "c" + std::to_string(pick(std::max(columns_ - 8, 0), columns_));
  switch (pick(1, 16)) {
    case 1: return ++columns_, alter + "ADD " + fresh + " int DEFAULT 7";
    case 2: return ++columns_, alter + "ADD " + fresh + " text";
    case 3: return ++columns_, if_there(alter + "RENAME " + any + " TO " + fresh);
    case 4: return alter + "DROP COLUMN IF EXISTS " + any;
    case 5: return if_there(alter + "ALTER " + any + " TYPE text");
    case 6: return if_there("UPDATE shapes SET " + any + " = '5' WHERE id % 3 = 1");
    case 7: return "TRUNCATE shapes";
    case 8: return "DROP TABLE shapes; " + std::string(kShapes);
    case 9:
    case 10: return "DELETE FROM shapes WHERE id % 5 = " + std::to_string(pick(0, 4));
    case 11:
    case 12: return "UPDATE shapes SET v = v || 'x' WHERE id % 7 = " + std::to_string(pick(0, 6));
    default:
      return "INSERT INTO shapes (id, v) SELECT g, repeat('v', g * 100) FROM generate_series(" +
             std::to_string(pick(1, 40)) + ", 40) g ON CONFLICT DO NOTHING";
  }
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
  if (database.value("SELECT to_regclass('shapes')") == "shapes")
    if (const std::string difference = shaped_difference(database, "shapes", log);
        !difference.empty())
      differences.push_back("public.shapes: " + difference);
  return differences;
}

std::string shaped_difference(TestDatabase& database, const std::string& table,
                              const CapturedLog& log) {
  CapturedLog::Table told;
  if (const auto found = log.tables.find("public." + table); found != log.tables.end())
    told = found->second;
  for (const auto& [key, row] :
       table_now(database, "SELECT id::text, to_jsonb(t) FROM " + table + " t")) {
    const auto known = told.find(key);
    if (known == told.end()) return "the log lacks " + row.dump();
    if (row.contains("v") && !known->second.contains("v")) return "no v in " + known->second.dump();
    for (const auto& [name, value] : known->second.items())
      if (row.contains(name) && text_of(row[name]) != text_of(value))
        return name + " differs: " + row.dump() + " is told as " + known->second.dump();
    told.erase(known);
  }
  return told.empty() ? std::string() : "the log has beyond the table " + told.begin()->first;
}

}  // namespace millrace::test
