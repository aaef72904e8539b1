#include "projections/engine/context.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"
#include "projections/projections.h"
#include "public.customers.pb.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

// Views of events that come in all the ways there are: messages and outbox rows of a transaction of
// PostgreSQL, and appends beside it.

using namespace millrace;
using namespace millrace::projections;
using namespace millrace::test;
using shop::Customers;

namespace {

using Lines = std::vector<std::string>;

template <typename T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

class Scene {
 public:
  Scene() {
    source.exec(
        "CREATE TABLE customers(id bigint PRIMARY KEY, name text, email text, city text, "
        "created_at timestamptz);"
        "CREATE TABLE outbox(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT "
        "NULL, aggregateid text NOT NULL, type text NOT NULL, payload jsonb)");
  }

  void capture() {
    millrace({"capture", "run", "--source", source.uri(), "--store", store_.string(),
              "--until-caught-up", "--outbox", "public.outbox", "--log-level", "warn"});
  }
  void append(const std::string& stream, const std::string& type, const std::string& data) {
    millrace({"stream", "append", "--store", store_.string(), "--stream", stream, "--type", type,
              "--data", data});
  }
  void erase(const std::string& category, const std::string& key) {
    millrace({"log", "erase", "--store", store_.string(), "--category", category, "--key", key,
              "--yes"});
  }

  Lines rows(const View& view) {
    const auto schemas = must(SchemaRegistry::open_read_only(store_));
    const std::filesystem::path views = temporary_ / "views";
    const Context context{
        .store = store_, .views = views, .program = "views", .schemas = schemas.get()};
    must(Worker(view, context, {.until_caught_up = true}).run());
    CHECK(must(verify_view(view, context)).different == 0);
    const auto database =
        must(sqlite::Database::open(views / (view.name() + ".db"), sqlite::Mode::kReadOnly));
    auto statement = must(database->prepare("SELECT * FROM " + view.name() + " ORDER BY visitor"));
    Lines rows;
    while (must(statement.step())) {
      std::string row;
      for (int i = 0; i < statement.column_count(); ++i) {
        const Value value = statement.column(i);
        row += i == 0 ? "" : "|";
        row += value.is_null()                         ? "null"
               : value.kind() == Value::Kind::kInteger ? std::to_string(value.integer())
                                                       : std::string(value.text());
      }
      rows.push_back(row);
    }
    return rows;
  }

  TestDatabase source;

 private:
  void millrace(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), MILLRACE_PROGRAM);
    const auto done = run_command(arguments);
    INFO(done.err);
    REQUIRE(done.exit_code == 0);
  }

  TemporaryDirectory temporary_{"millrace-event-views"};
  const std::filesystem::path store_ = temporary_ / "store";
};

std::string emit(const std::string& prefix, const std::string& content) {
  return "SELECT pg_logical_emit_message(true, '" + prefix + "', '" + content + "');";
}

}  // namespace

TEST_CASE("events of transactions, of an outbox and of other programs make one view with rows",
          "[projections][events][pg]") {
  const auto named = events("visit").left_join(
      table<Customers>("public.customers"), member("customer"),
      [](const Event<>& visit, const TableRow<Customers>* c) {
        return Record{{"visitor", visit.key()},
                      {"step", visit.type()},
                      {"name", c ? Datum((*c)[&Customers::name]) : Datum("?")}};
      });
  const auto view =
      projections::view("visits", Version{1})
          .from(named)
          .group_by(by("visitor", [](const Record& r) { return std::string(r["visitor"].text()); }))
          .aggregate(fold("way", std::string(),
                          [](std::string way, const Record& r) {
                            return way + std::string(r["step"].text()) + ":" +
                                   std::string(r["name"].text()) + " ";
                          }))
          .into(cache_table{});
  const auto said = projections::view("said", Version{1})
                        .from(messages("audit"))
                        .into(cache_table{.key = integer("offset"), .columns = {text("visitor")}},
                              [](const Event<>& message) {
                                return Record{{"visitor", message.data()}};
                              });
  Scene scene;
  scene.capture();  // what comes before it is not sent
  scene.source.exec("BEGIN;" + emit("millrace:In@visit/s1", R"({"customer":7})") +
                    "INSERT INTO customers(id, name) VALUES(7, 'Ada');" + emit("audit", "first") +
                    emit("audits", "other") + "COMMIT");
  scene.capture();
  scene.source.exec("BEGIN;" + emit("millrace:Gone@visit/s1", "{}") + "ROLLBACK");
  scene.source.exec(
      "INSERT INTO outbox(aggregatetype, aggregateid, type, payload) "
      "VALUES('visit', 's2', 'In', '{\"customer\":8}')");
  scene.append("visit/s1", "Out", R"({"customer":7})");
  scene.capture();
  CHECK(scene.rows(view) == Lines{"s1|In:Ada Out:Ada ", "s2|In:? "});
  const Lines heard = scene.rows(said);
  REQUIRE(heard.size() == 1);
  CHECK_THAT(heard.front(), Catch::EndsWith("|first"));

  scene.source.exec("UPDATE customers SET name = 'Ann' WHERE id = 7");
  scene.source.exec("INSERT INTO customers(id, name) VALUES(8, 'Bob')");
  scene.capture();
  CHECK(scene.rows(view) == Lines{"s1|In:Ann Out:Ann ", "s2|In:Bob "});
  scene.erase("visit", "s1");
  CHECK(scene.rows(view) == Lines{"s2|In:Bob "});
  scene.append("visit/s1", "Back", R"({"customer":8})");
  CHECK(scene.rows(view) == Lines{"s1|Back:Bob ", "s2|In:Bob "});
}
