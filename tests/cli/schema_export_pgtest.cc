// `schema export --source`: the files that the first capture of the database would give.

#include <filesystem>
#include <fstream>
#include <map>

#include "tests/cli/sample_store.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/type_values.h"

namespace millrace::test {
namespace {

using Catch::Matchers::Contains;

/// Every file below `folder`, by its path there.
std::map<std::string, std::string> files_below(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().lexically_relative(folder).string()] =
        std::string(std::istreambuf_iterator<char>(file), {});
  }
  return files;
}

class Export {
 public:
  CommandResult from_source(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"schema", "export", "--source", database.uri(), "--out", live()});
    return millrace(more);
  }
  CommandResult from_store(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"schema", "export", "--store", store(), "--out", captured()});
    return millrace(more);
  }
  CommandResult capture(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"capture", "run", "--source", database.uri(), "--store", store(),
                               "--slot", database.name(), "--until-caught-up"});
    return millrace(more);
  }
  /// Both ways, before and after a first capture with these options: the same files.
  std::map<std::string, std::string> both(const std::vector<std::string>& options) {
    const CommandResult before = from_source(options);
    INFO(before.err);
    REQUIRE(before.exit_code == 0);
    const CommandResult run = capture(options);
    INFO(run.err);
    REQUIRE(run.exit_code == 0);
    const CommandResult after = from_store();
    INFO(after.err);
    REQUIRE(after.exit_code == 0);
    auto files = files_below(live());
    const auto expected = files_below(captured());
    for (const auto& [name, text] : expected) {
      INFO(name);
      CHECK(files[name] == text);
    }
    CHECK(files == expected);
    return files;
  }
  std::string live() const { return (directory.path() / "live").string(); }
  std::string captured() const { return (directory.path() / "captured").string(); }
  std::string store() const { return (directory.path() / "store").string(); }

  TestDatabase database;
  TemporaryDirectory directory;
};

/// A table with a column of each type that PostgreSQL has, and of its array.
const char* const kEveryType = R"(DO $$ BEGIN
  EXECUTE (SELECT 'CREATE TABLE every_type (id bigint PRIMARY KEY, '
      || string_agg(format('%I %s', 'c_' || t.typname, t.oid::regtype), ', ' ORDER BY t.oid) || ')'
    FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
    WHERE t.typnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace)
      AND t.typtype IN ('b', 'd', 'e', 'r', 'm') AND t.typcategory <> 'Z' AND coalesce(e.typrelid, 0) = 0
      AND coalesce(e.typtype, 'b') <> 'p' AND coalesce(e.typcategory, '') <> 'Z');
END $$)";

TEST_CASE_METHOD(Export, "a database's export is that of its first capture, byte for byte",
                 "[cli][schema][export]") {
  database.exec(own_types_sql());
  database.exec(kEveryType);
  database.exec(R"(
    CREATE SCHEMA "Other Schema";
    CREATE TABLE plain (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(10) NOT NULL,
                        price numeric(12, 2) DEFAULT 0, m mood, p positive, ps pair[], n some_numbers);
    CREATE TABLE "Other Schema"."Weird ""Table""" ("select" int, "a b" text, "A B" text, "ü" text,
                                                  a_b int, "aB" int, image bytea, has_image bool,
                                                  PRIMARY KEY ("a b", "select"));
    CREATE TABLE generated (a int, sum int GENERATED ALWAYS AS (a + b) STORED, b int PRIMARY KEY);
    CREATE TABLE dropped (id int PRIMARY KEY, gone text, kept text);
    ALTER TABLE dropped DROP COLUMN gone, ADD COLUMN gone int;
    CREATE TABLE covering (a int, b int, c text, PRIMARY KEY (c, a) INCLUDE (b));
    CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c int);
    CREATE UNIQUE INDEX by_index_key ON by_index (b, a);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
    CREATE TABLE whole (a int, b text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE whole_keyed (a int, b text PRIMARY KEY);
    ALTER TABLE whole_keyed REPLICA IDENTITY FULL;
    CREATE TABLE parts (region text, id int, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu');
    CREATE TABLE parts_us (note text, id int NOT NULL, region text NOT NULL, PRIMARY KEY (id, region));
    ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN ('us');
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
    CREATE VIEW a_view AS SELECT * FROM plain;
    CREATE TABLE left_out (id int PRIMARY KEY);
    CREATE TABLE events (id uuid PRIMARY KEY, aggregatetype text, aggregateid text, type text, payload jsonb);
    INSERT INTO parts VALUES ('eu', 1, 'x'), ('us', 2, 'y');
    INSERT INTO dropped VALUES (1, 'kept', 7);
  )");
  const auto files =
      both({"--tables", "public.*,Other Schema.*,!public.left_out", "--outbox", "public.events"});
  const std::vector<std::string> expected{"Other%20Schema.Weird%20%22Table%22.proto",
                                          "millrace/v1/values.proto",
                                          "public.by_index.proto",
                                          "public.covering.proto",
                                          "public.dropped.proto",
                                          "public.every_type.proto",
                                          "public.generated.proto",
                                          "public.parts.proto",
                                          "public.plain.proto",
                                          "public.whole.proto",
                                          "public.whole_keyed.proto"};
  std::vector<std::string> names;
  for (const auto& [name, text] : files) names.push_back(name);
  CHECK(names == expected);
  CHECK_THAT(files.at("public.generated.proto"), !Contains("sum"));
  CHECK_THAT(files.at("public.parts.proto"), Contains("part of the key"));
}

TEST_CASE_METHOD(Export, "a publication that is there says which tables and columns",
                 "[cli][schema][export]") {
  if (database.server().version() < 15) return;  // column lists are of PostgreSQL 15
  database.exec(
      "CREATE TABLE orders (id int PRIMARY KEY, secret text, note text);"
      "CREATE TABLE other (id int PRIMARY KEY);"
      "CREATE PUBLICATION millrace FOR TABLE orders (note, id)");
  const auto files = both({});
  CHECK(files.size() == 2);
  CHECK_THAT(files.at("public.orders.proto"), Contains("note") && !Contains("secret"));
}

TEST_CASE_METHOD(Export, "an export needs no right to capture, and changes nothing",
                 "[cli][schema][export]") {
  database.exec(
      "CREATE TABLE orders (id int PRIMARY KEY);"
      "CREATE ROLE looker_" +
      database.name() + " LOGIN; GRANT SELECT ON orders TO looker_" + database.name());
  const std::string everything =
      "SELECT (SELECT md5(string_agg(c::text, ',' ORDER BY oid)) FROM pg_class c)"
      " || (SELECT count(*) FROM pg_publication) || '/' || (SELECT count(*) FROM "
      "pg_replication_slots)";
  const std::string before = database.value(everything);
  const CommandResult exported =
      millrace({"schema", "export", "--out", live(), "--source",
                database.server().uri(database.name(), "looker_" + database.name())});
  INFO(exported.err);
  CHECK(exported.exit_code == 0);
  CHECK(exported.out == live() + "/public.orders.proto\n" + live() + "/millrace/v1/values.proto\n");
  CHECK(database.value(everything) == before);
  database.exec("DROP OWNED BY looker_" + database.name() + "; DROP ROLE looker_" +
                database.name());
}

TEST_CASE_METHOD(Export, "what keeps a table from being captured keeps it from being exported",
                 "[cli][schema][export]") {
  database.exec(
      "CREATE TABLE keyless (note text);"
      "CREATE TABLE secrets (id int PRIMARY KEY);"
      "CREATE ROLE nobody_" +
      database.name() + " LOGIN");
  const CommandResult missing = from_source({"--tables", "public.order"});
  CHECK(missing.exit_code == 1);
  CHECK_THAT(missing.err, Contains("There is no table public.order, which --tables names"));
  const CommandResult none = from_source({"--tables", "shop.*"});
  CHECK(none.exit_code == 1);
  CHECK_THAT(none.err, Contains("No table matches"));
  const CommandResult keyless = from_source({"--tables", "public.keyless"});
  CHECK(keyless.exit_code == 1);
  CHECK_THAT(keyless.err, Contains("table public.keyless: It has no primary key") &&
                              Contains("REPLICA IDENTITY FULL"));
  const CommandResult refused =
      millrace({"schema", "export", "--tables", "public.secrets", "--out", live(), "--source",
                database.server().uri(database.name(), "nobody_" + database.name())});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Contains("may not read it") && Contains("GRANT SELECT"));
  const CommandResult gone = millrace(
      {"schema", "export", "--source", "postgresql:///shop?host=/nowhere", "--out", live()});
  CHECK(gone.exit_code == 4);
  CHECK_THAT(gone.err, Contains("connect to database shop on /nowhere"));
  CHECK_FALSE(std::filesystem::exists(live()));
  database.exec("DROP ROLE nobody_" + database.name());
}

TEST_CASE_METHOD(Export, "with store and source, the store tells once it has tables",
                 "[cli][schema][export]") {
  database.exec("CREATE TABLE orders (id int PRIMARY KEY, note text)");
  const auto both_given = [&] { return from_source({"--store", store()}); };
  REQUIRE(both_given().exit_code == 0);  // no store yet
  REQUIRE(capture().exit_code == 0);
  const auto first = files_below(live());
  database.exec("ALTER TABLE orders DROP COLUMN note, ADD COLUMN note bigint");
  REQUIRE(both_given().exit_code == 0);
  CHECK(files_below(live()) == first);
  database.exec("INSERT INTO orders VALUES (1, 2)");
  REQUIRE(capture().exit_code == 0);
  REQUIRE(both_given().exit_code == 0);
  CHECK_THAT(files_below(live()).at("public.orders.proto"),
             Contains("version 2 of its schema") && Contains("optional sint64 note = 3"));

  const CommandResult other = from_store({"--tables", "public.products"});
  CHECK(other.exit_code == 1);
  CHECK_THAT(other.err, Contains("no captured table matches --tables"));
  const CommandResult neither = millrace({"schema", "export", "--out", live()});
  CHECK(neither.exit_code == 2);
  CHECK_THAT(neither.err, Contains("--store or --source is missing"));
}

}  // namespace
}  // namespace millrace::test
