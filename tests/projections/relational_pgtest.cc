#include "projections/engine/build.h"
#include "projections/engine/context.h"
#include "projections/engine/worker.h"
#include "projections/projections.h"
#include "public.customers.pb.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

// Declared views of a database that changes its shape.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::test;
using shop::Customers;

namespace {

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::vector<std::string> rows_of(const std::filesystem::path& file, const std::string& sql) {
  const auto database = must(sqlite::Database::open(file, sqlite::Mode::kReadOnly));
  auto statement = must(database->prepare(sql));
  std::vector<std::string> rows;
  while (must(statement.step())) {
    std::string row;
    for (int i = 0; i < statement.column_count(); ++i) {
      const Value value = statement.column(i);
      row += (i == 0 ? "" : "|") + std::string(value.is_null() ? "null" : value.text());
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

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
