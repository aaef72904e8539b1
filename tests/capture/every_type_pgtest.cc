// Every type that a PostgreSQL has, put through capture: a row that the snapshot read, one that the
// stream sent and one that a binary COPY gave are the same bytes, and turned back into SQL they
// make a row that PostgreSQL calls equal. The seed is printed; MILLRACE_SEED repeats it.

#include <cstdlib>
#include <random>
#include <set>

#include "capture/pgoutput/binary_value.h"
#include "capture/pipeline/copy_binary.h"
#include "capture/postgres/binary_choice.h"
#include "capture/postgres/catalog.h"
#include "eventstore/log_reader.h"
#include "millrace/v1/change.pb.h"
#include "schemas/registry.h"
#include "schemas/row_text.h"
#include "tests/support/capture_fakes.h"
#include "tests/support/capture_runner.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/type_values.h"

namespace millrace::test {
namespace {

const std::string kPinned = std::string(pin_session_settings());

/// Types that no table of a user has: of system catalogs or indexes, without an input function.
const std::set<std::string> kNoValues = {"pg_node_tree",
                                         "pg_ndistinct",
                                         "pg_dependencies",
                                         "pg_mcv_list",
                                         "gtsvector",
                                         "pg_brin_bloom_summary",
                                         "pg_brin_minmax_multi_summary",
                                         "ghstore",
                                         "ltree_gist",
                                         "intbig_gkey"};

struct TypeInTable {
  std::string table;      ///< "t12"
  std::string name;       ///< As SQL takes it: "public._mood".
  std::string send;       ///< Its send function; empty for none.
  std::string send_cast;  ///< Behind the value that it is given.
  std::string element;    ///< Table of an array's element type.
  std::string type_name;  ///< Of pg_type.
};

double seed() {
  const char* given = std::getenv("MILLRACE_SEED");
  const unsigned number = given != nullptr ? static_cast<unsigned>(std::stoul(given))
                                           : std::random_device{}() % 1'000'000;
  WARN("seed " << number << ": MILLRACE_SEED repeats it");
  return number / 1e6;
}

std::string quoted(const std::string& text) {
  std::string out;
  REQUIRE(append_sql_literal(text, out));
  return out;
}

/// A database with a table `origin.tN (id, v TYPE)` of values for every type there is.
class EveryType {
 public:
  EveryType() {
    database_.exec("SELECT setseed(" + std::to_string(seed()) + ")");
    database_.exec(
        "CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;"
        "CREATE EXTENSION cube; CREATE EXTENSION seg; CREATE EXTENSION isn;"
        "CREATE EXTENSION intarray");
    database_.exec(own_types_sql());
    database_.exec("CREATE SCHEMA origin; CREATE SCHEMA twin");
    find_types();
    database_.exec(kPinned + "; SET search_path = pg_catalog, public");
    for (const TypeInTable& type : types_) fill(type);
  }

  TestDatabase& database() { return database_; }
  const std::vector<TypeInTable>& types() const { return types_; }

 private:
  void find_types() {
    // Elements before their arrays.
    // A send function that fails for want of the element's is none; not every one takes what it is
    // made for without a cast.
    for (const auto& row : database_.query(R"(
        SELECT t.oid, quote_ident(n.nspname) || '.' || quote_ident(t.typname), t.typname,
               CASE WHEN t.typsend <> 0 AND coalesce(e.typsend, 1) <> 0 THEN t.typsend::text END,
               e.oid,
               '::' || CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, NULL)
                            WHEN a.typtype <> 'p' THEN format_type(a.oid, NULL) END
        FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid LEFT JOIN pg_class c ON c.oid = t.typrelid
             LEFT JOIN pg_class ec ON ec.oid = e.typrelid JOIN pg_namespace n ON n.oid = t.typnamespace
             LEFT JOIN pg_proc s ON s.oid = t.typsend LEFT JOIN pg_type a ON a.oid = s.proargtypes[0]
        WHERE t.typtype <> 'p' AND coalesce(e.typtype, 'b') <> 'p' AND t.typisdefined
          AND coalesce(c.relkind, 'c') = 'c' AND coalesce(ec.relkind, 'c') = 'c'
        ORDER BY e.oid IS NOT NULL, t.oid)")) {
      const std::string type_name = row[2].value();
      const std::string element = row[4] ? "t" + *row[4] : "";
      if (kNoValues.contains(type_name) || kNoValues.contains(type_name.substr(1))) continue;
      types_.push_back({.table = "t" + row[0].value(),
                        .name = row[1].value(),
                        .send = row[3].value_or(""),
                        .send_cast = row[5].value_or(""),
                        .element = element,
                        .type_name = type_name});
    }
  }

  void fill(const TypeInTable& type) {
    CAPTURE(type.name);
    database_.exec("CREATE TABLE origin." + type.table + " (id serial PRIMARY KEY, v " + type.name +
                   "); INSERT INTO origin." + type.table + " (v) VALUES (NULL)");
    if (!type.element.empty()) return fill_array(type);
    const auto known = type_values().find(type.type_name);
    if (known == type_values().end()) FAIL("a type that no test has values for: " << type.name);
    const TypeValues& values = known->second;
    CHECK_FALSE(values.literals.empty());
    for (const std::string& literal : values.literals) insert(type, quoted(literal));
    if (!values.random.empty())
      insert(type, "(" + values.random + ")::" + type.name + " FROM generate_series(1, " +
                       std::to_string(values.randoms) + ") AS i");
  }

  /// Empty, with nulls, of two dimensions, with bounds of their own.
  void fill_array(const TypeInTable& type) {
    const std::string some = "(SELECT v FROM origin." + type.element +
                             " WHERE v IS NOT NULL AND length(v::text) < 10000 ORDER BY random() "
                             "LIMIT 1)";
    const std::string cast = "::" + type.name;
    insert(type, "'{}'" + cast);
    insert(type, "'{NULL}'" + cast);
    insert(type, "ARRAY(SELECT v FROM origin." + type.element + " ORDER BY id LIMIT 40)" + cast);
    const bool of_arrays = type.type_name == "_int2vector" || type.type_name == "_oidvector" ||
                           type.type_name.starts_with("_some_");
    if (of_arrays) return;
    insert(type, "ARRAY(SELECT CASE WHEN random() < 0.8 THEN v END FROM origin." + type.element +
                     " WHERE i > 0 AND length(v::text) < 10000 ORDER BY random() LIMIT 1 + i % 5)" +
                     cast + " FROM generate_series(1, 8) AS i");
    insert(type, "array_fill(" + some + ", ARRAY[2], ARRAY[0])" + cast);
    insert(type, "array_fill(" + some + ", ARRAY[2, 1, 3], ARRAY[-2, 1, 5])" + cast);
    insert(type, "ARRAY[ARRAY[" + some + ", NULL], ARRAY[" + some + ", " + some + "]]" + cast);
  }

  void insert(const TypeInTable& type, const std::string& select) {
    try {
      database_.exec("INSERT INTO origin." + type.table + " (v) SELECT " + select);
    } catch (const std::runtime_error& error) {
      FAIL_CHECK("the test's own values of " << type.name << ": " << error.what());
    }
  }

  TestDatabase database_;
  std::vector<TypeInTable> types_;
};

/// What a store holds of one row: `after` of its `r` and of its `c` event.
struct Captured {
  std::string key, payload;
  v1::Change change;
};
using ByOpAndKey = std::map<std::pair<int, std::string>, Captured>;

std::map<std::string, ByOpAndKey> events_of(const Path& store) {
  std::map<std::string, ByOpAndKey> found;
  const auto reader = LogReader::open(store);
  REQUIRE(reader);
  while (Batch* batch = (*reader)->next().value()) {
    while (const EventView* event = batch->next()) {
      if (!event->type.empty()) continue;
      Captured captured{
          .key = std::string(event->key), .payload = std::string(event->payload), .change = {}};
      REQUIRE(captured.change.ParseFromString(captured.payload));
      const std::pair place(static_cast<int>(captured.change.op()), captured.key);
      CHECK(found[std::string(event->category)].emplace(place, captured).second);
    }
    REQUIRE(batch->status());
  }
  return found;
}

void require_caught_up(const CaptureOptions& options) {
  const auto caught_up = catch_up(options);
  if (!caught_up) FAIL(caught_up.error().to_string());
}

/// Captures what the tables hold now, then the same rows once more, from the stream.
std::map<std::string, ByOpAndKey> capture_twice(TestDatabase& database,
                                                const CaptureOptions& options,
                                                const std::vector<std::string>& tables) {
  require_caught_up(options);
  for (const std::string& table : tables)
    database.exec("DELETE FROM public." + table + "; INSERT INTO public." + table +
                  " SELECT * FROM origin." + table);
  require_caught_up(options);
  return events_of(options.store);
}

/// How many rows of a table came from the snapshot and, the same to the byte, from the stream.
std::size_t count_alike(const ByOpAndKey& rows) {
  std::size_t count = 0;
  for (const auto& [place, event] : rows) {
    if (place.first != v1::Change::READ) continue;
    const auto streamed = rows.find({v1::Change::CREATE, place.second});
    REQUIRE(streamed != rows.end());
    CHECK(streamed->second.change.after() == event.change.after());
    ++count;
  }
  return count;
}

/// Turns the rows of the snapshot's events into INSERTs of the table's twin.
void write_twin(TestDatabase& database, const std::string& table, const TableSchema& schema,
                const ByOpAndKey& events) {
  database.exec("CREATE TABLE twin." + table + " (LIKE origin." + table + ")");
  RowText text;
  std::string rows;
  for (const auto& [place, event] : events) {
    if (place.first != v1::Change::READ) continue;
    REQUIRE(text.read(schema, event.change.after()));
    rows += rows.empty() ? "(" : ",(";
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (i != 0) rows += ',';
      REQUIRE(append_sql_literal(text.value(i), rows));
    }
    rows += ')';
  }
  database.exec("INSERT INTO twin." + table + " VALUES " + rows);
}

/// Rows of original and twin that PostgreSQL does not call the same, by the type's text output
/// (which format() calls; a cast to text may be something else) and by its binary output.
std::string differences(TestDatabase& database, const TypeInTable& type) {
  const auto sent = [&](const std::string& value) {
    return type.send + "(" + value + type.send_cast + ")";
  };
  const std::string binary =
      type.send.empty() ? "" : " OR " + sent("o.v") + " IS DISTINCT FROM " + sent("w.v");
  const std::string by_text = "format('%L', o.v) IS DISTINCT FROM format('%L', w.v)";
  return database.value(
      "SELECT string_agg(format('%s: %L is not %L', id, left(o.v::text, 100), left(w.v::text, "
      "100)), '; ') FROM origin." +
      type.table + " o FULL JOIN twin." + type.table + " w USING (id) WHERE " + by_text + binary);
}

using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;

/// The table's rows, read by a binary COPY, as the encoder's events.
std::vector<RecordedEvent> copied_in_binary(TestDatabase& database, ChangeEncoder& encoder,
                                            MemoryOut& out, const std::string& table,
                                            std::uint32_t relation_oid) {
  const Connection connection(PQconnectdb(database.uri().c_str()), PQfinish);
  PQclear(PQexec(connection.get(), kPinned.c_str()));
  PQclear(
      PQexec(connection.get(), ("COPY public." + table + " TO STDOUT (FORMAT binary)").c_str()));
  CopyBinaryParser parser;
  char* bytes = nullptr;
  for (int size = 0; (size = PQgetCopyData(connection.get(), &bytes, 0)) > 0; PQfreemem(bytes)) {
    parser.feed({bytes, static_cast<std::size_t>(size)});
    for (;;) {
      const auto row = parser.next(2);
      if (!row) FAIL(row.error().to_string());
      if (*row == nullptr) break;
      const auto read = encoder.read(relation_oid, **row, Lsn{});
      if (!read) FAIL(read.error().to_string());
    }
  }
  CHECK(parser.ended());
  return out.take();
}

}  // namespace

TEST_CASE(
    "B11, B12, B13: a value of every type is the same from snapshot, stream and binary, "
    "and equal when it is written back",
    "[capture][types]") {
  EveryType every;
  TestDatabase& database = every.database();
  const TemporaryDirectory directory;
  CaptureOptions options;
  options.source = database.uri();
  options.store = directory.path() / "store";
  options.slot = database.name();
  std::vector<std::string> tables;
  for (const TypeInTable& type : every.types()) tables.push_back(type.table);
  for (const std::string& table : tables)
    database.exec("CREATE TABLE public." + table + " (LIKE origin." + table +
                  "); ALTER TABLE public." + table + " ADD PRIMARY KEY (id); INSERT INTO public." +
                  table + " SELECT * FROM origin." + table);
  const auto events = capture_twice(database, options, tables);

  const auto schemas = SchemaRegistry::open_read_only(options.store);
  REQUIRE(schemas);
  const auto address = SourceAddress::parse(database.uri());
  REQUIRE(address);
  Catalog catalog(*address);
  const auto in_memory = SchemaRegistry::in_memory();
  MemoryOut out;
  ChangeEncoder encoder(*in_memory, catalog, out);
  std::size_t values = 0, in_binary = 0;
  std::set<std::string> exact;
  std::vector<std::string> exact_tables;
  for (const TypeInTable& type : every.types()) {
    CAPTURE(type.name, type.table);
    const auto found = events.find("public." + type.table);
    REQUIRE(found != events.end());
    const ByOpAndKey& rows = found->second;
    const auto schema = (*schemas)->latest(found->first);
    REQUIRE(schema);
    CHECK((*schema)->version == 1);
    const std::size_t count = count_alike(rows);
    CHECK(std::to_string(count) == database.value("SELECT count(*) FROM origin." + type.table));
    values += count;

    write_twin(database, type.table, **schema, rows);
    CHECK(differences(database, type) == "");

    const ColumnSchema& column = (*schema)->columns.at(1);
    const auto known = catalog.type(column.type_oid, column.type_modifier);
    REQUIRE(known);
    if (!pgoutput::binary_type(known->base_oid, known->kind, known->array).exact()) continue;
    exact.insert(type.type_name);
    exact_tables.push_back(type.table);
    pgoutput::Relation relation{.oid = (*schema)->relation_oid,
                                .schema_name = "public",
                                .table_name = type.table,
                                .replica_identity = 'd',
                                .columns = {}};
    for (const ColumnSchema& of_row : (*schema)->columns)
      relation.columns.push_back({.key = of_row.key,
                                  .name = of_row.name,
                                  .type_oid = of_row.type_oid,
                                  .type_modifier = of_row.type_modifier});
    REQUIRE(encoder.relation(relation, Lsn{(*schema)->source_lsn}));
    const auto copied = copied_in_binary(database, encoder, out, type.table, relation.oid);
    CHECK(copied.size() == count);
    for (const RecordedEvent& event : copied) {
      const auto snapshot = rows.find({v1::Change::READ, event.key});
      REQUIRE(snapshot != rows.end());
      CHECK(event.payload == snapshot->second.payload);
      ++in_binary;
    }
  }
  CHECK(values > 5000);
  CHECK(in_binary > 2500);
  for (const char* name :
       {"bool",         "bytea",     "name",          "int8",      "int2",        "int4",
        "text",         "oid",       "json",          "float4",    "float8",      "bpchar",
        "varchar",      "date",      "time",          "timestamp", "timestamptz", "timetz",
        "numeric",      "uuid",      "jsonb",         "_bool",     "_bytea",      "_numeric",
        "_timestamptz", "_jsonb",    "_text",         "_timetz",   "mood",        "_mood",
        "moody",        "positive",  "more_positive", "amount",    "word",        "short",
        "some_numbers", "some_words"})
    CHECK(exact.contains(name));
  for (const char* name : {"interval", "char", "xml", "geo", "citext", "pair", "good_pair"})
    CHECK_FALSE(exact.contains(name));

  // The same for a stream in binary, which capture asks for where nothing else is published.
  CaptureOptions of_binary = options;
  of_binary.store = directory.path() / "binary";
  of_binary.slot += "_binary";
  of_binary.publication = "of_binary";
  for (const std::string& table : exact_tables) of_binary.tables.push_back("public." + table);
  const auto in_both = capture_twice(database, of_binary, exact_tables);
  CHECK(binary_is_exact(catalog, "of_binary").value());
  CHECK_FALSE(binary_is_exact(catalog, "millrace").value());
  std::size_t streamed_in_binary = 0;
  for (const auto& [category, rows] : in_both) {
    CAPTURE(category);
    streamed_in_binary += count_alike(rows);
    for (const auto& [place, event] : rows) {
      if (place.first != v1::Change::CREATE) continue;
      const auto text = events.at(category).find(place);
      REQUIRE(text != events.at(category).end());
      CHECK(event.change.after() == text->second.change.after());
    }
  }
  CHECK(streamed_in_binary == in_binary);
}

}  // namespace millrace::test
