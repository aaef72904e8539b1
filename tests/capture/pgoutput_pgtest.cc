#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/bytes.h"
#include "capture/pipeline/stream_applier.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/catch.h"
#include "tests/support/pgoutput_bytes.h"
#include "tests/support/postgres_fixture.h"

namespace millrace {
namespace {

using test::TestDatabase;
using test::bytes::Recorded;

constexpr const char* kProtocol1 = "'proto_version', '1', 'messages', 'true'";
constexpr const char* kProtocol2 = "'proto_version', '2', 'streaming', 'true', 'messages', 'true'";

std::string file_text(const std::string& path) {
  std::ifstream file(std::string(MILLRACE_SOURCE_DIR) + "/" + path);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Runs tests/golden/pgoutput_workload.sql: statements divided by lines of dashes, one transaction
/// each.
void run_workload(TestDatabase& database) {
  database.exec(
      "SELECT pg_replication_origin_create('other') WHERE NOT EXISTS "
      "(SELECT FROM pg_replication_origin WHERE roname = 'other')");
  const std::string sql = file_text("tests/golden/pgoutput_workload.sql");
  const std::string divider = "\n----\n";
  for (std::size_t at = 0; at < sql.size();) {
    const std::size_t end = std::min(sql.find(divider, at), sql.size());
    database.exec(sql.substr(at, end - at));
    at = end + divider.size();
  }
}

std::vector<Recorded> peek(TestDatabase& database, const std::string& options) {
  database.exec("SET logical_decoding_work_mem = '64kB'");
  std::vector<Recorded> messages;
  for (const auto& row :
       database.query("SELECT lsn, encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes("
                      "'recorder', NULL, NULL, 'publication_names', 'recorded', " +
                      options + ")"))
    messages.push_back({parse_lsn(row.at(0).value()).value(), from_hex(row.at(1).value()).value()});
  return messages;
}

/// The kinds of messages with what the grammar makes of them, apart from numbers that differ in
/// every run.
std::string outline(const std::vector<Recorded>& messages) {
  pgoutput::Decoder decoder;
  std::string out;
  for (const Recorded& recorded : messages) {
    const auto message = decoder.decode(recorded.bytes);
    if (!message) FAIL(message.error().to_string() + ": " + to_hex(recorded.bytes));
    out += recorded.bytes[0];
    if (const auto* update = std::get_if<const pgoutput::Update*>(&*message))
      out += "-KO"[static_cast<int>((*update)->old_kind)];
    if (const auto* relation = std::get_if<const pgoutput::Relation*>(&*message))
      out += std::to_string((*relation)->columns.size()) + (*relation)->replica_identity;
  }
  return out;
}

/// With MILLRACE_RECORD=1 in the environment the golden file is written anew instead.
void compare_with_golden(const std::string& name, const std::vector<Recorded>& messages) {
  if (std::getenv("MILLRACE_RECORD") != nullptr) {
    std::ofstream file(std::string(MILLRACE_SOURCE_DIR) + "/tests/golden/" + name);
    file << "# What PostgreSQL sent for pgoutput_workload.sql; see README.md.\n";
    for (const Recorded& message : messages)
      file << to_string(message.lsn) << ' ' << to_hex(message.bytes) << '\n';
    return;
  }
  CHECK(outline(messages) == outline(test::bytes::read_golden(name)));
}

TEST_CASE("this PostgreSQL sends the messages that the golden files hold",
          "[capture][pgoutput][pg]") {
  TestDatabase database;
  database.exec(file_text("tests/golden/pgoutput_schema.sql"));
  database.exec("SELECT pg_create_logical_replication_slot('recorder', 'pgoutput')");
  run_workload(database);
  compare_with_golden("pgoutput_15_proto1.hex", peek(database, kProtocol1));
  compare_with_golden("pgoutput_15_proto2_streaming.hex", peek(database, kProtocol2));
}

TEST_CASE("the events of a real stream, folded, are the table", "[capture][pg]") {
  TestDatabase database;
  database.exec(file_text("tests/golden/pgoutput_schema.sql"));
  database.exec("SELECT pg_create_logical_replication_slot('recorder', 'pgoutput')");
  run_workload(database);

  test::FakeCatalog catalog;  // enough: the columns that are compared are text and integers
  const std::string full = database.value("SELECT 'full_identity'::regclass::oid");
  catalog.primary_keys[static_cast<std::uint32_t>(std::stoul(full))] = {"id"};
  const auto registry = SchemaRegistry::in_memory();
  test::MemoryOut out;
  ChangeEncoder encoder(*registry, catalog, out);
  StreamApplier applier(encoder, out, 1, Lsn{});
  for (const Recorded& message : peek(database, kProtocol1)) {
    const auto applied = applier.apply(message.bytes, message.lsn);
    if (!applied) FAIL(applied.error().to_string());
  }
  CHECK(applier.transactions() > 10);

  for (const std::string table : {"things", "full_identity", "indexed"}) {
    std::map<std::string, std::map<std::string, std::string>> rows, gone;  // by key
    for (const auto& transaction : out.transactions) {
      for (const auto& event : transaction.events) {
        if (event.category != "public." + table) continue;
        const v1::Change change = event.change();
        const auto schema = registry->find(event.category, change.schema());
        REQUIRE(schema);
        if (has(event.flags, EventFlags::kCategoryTombstone)) {
          rows.clear();
        } else if (has(event.flags, EventFlags::kTombstone)) {
          REQUIRE(rows.contains(event.key));
          gone[event.key] = rows.extract(event.key).mapped();
        } else {
          auto row = test::row_of(**schema, change.after());
          const auto& older =
              change.moved_from().empty() ? rows[event.key] : gone.at(change.moved_from());
          for (const std::uint32_t field : change.unchanged()) {
            const std::string& name = (*schema)->column_of_field(field)->name;
            const auto kept = older.find(name);
            if (kept != older.end()) row[name] = kept->second;
          }
          rows[event.key] = row;
        }
      }
    }
    std::map<std::string, std::string> expected, folded;
    for (const auto& row : database.query("SELECT key::text, name, note FROM (SELECT *, " +
                                          std::string(table == "indexed" ? "code" : "id") +
                                          " AS key FROM " + table + ") AS rows"))
      expected[row[0].value()] = row[1].value_or("<null>") + "|" + row[2].value_or("<null>");
    for (auto& [key, row] : rows)
      folded[key] = (row.contains("name") ? row["name"] : "<null>") + "|" +
                    (row.contains("note") ? row["note"] : "<null>");
    CHECK(folded == expected);
    CHECK_FALSE(expected.empty());
  }
}

}  // namespace
}  // namespace millrace
