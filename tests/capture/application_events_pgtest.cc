// Domain events that an application writes inside its transactions, by message and by outbox.
//
// The server has so little memory for decoding that larger transactions are streamed.
#include <csignal>
#include <random>
#include <thread>

#include "capture/check.h"
#include "capture/resnapshot.h"
#include "capture/resync.h"
#include "capture/setup.h"
#include "capture/tail.h"
#include "capture/verify.h"
#include "eventstore/event_metadata.h"
#include "eventstore/log_reader.h"
#include "eventstore/stream_reader.h"
#include "service/shared_store.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/log_lines.h"
#include "tests/support/process.h"

namespace millrace {
namespace {

using test::BackgroundCapture;
using test::catch_up;
using test::eventually;

template <typename T>
T must(Result<T> result) {
  if (!result) FAIL(result.error().to_string());
  return *std::move(result);
}

test::PostgresServer& server() {
  static test::PostgresServer server({.settings = {{"logical_decoding_work_mem", "64kB"}}});
  return server;
}

constexpr const char* kOutbox =
    "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text, "
    "aggregateid text, type text, payload jsonb, made timestamptz DEFAULT now());";

struct Shop {
  test::TestDatabase database{server()};
  test::TemporaryDirectory directory;

  Shop() { database.exec(test::kOrders); }
  Path store() const { return directory.path() / "store"; }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = database.uri();
    options.store = store();
    options.slot = options.publication = database.name();
    options.status_interval = std::chrono::milliseconds(100);
    return options;
  }
  CaptureOptions with_outbox() const {
    CaptureOptions options = this->options();
    options.outbox = {"public.outbox"};
    return options;
  }
  void exec(const std::string& sql) { database.exec(sql); }
};

std::string emit(const std::string& prefix, const std::string& payload) {
  return "SELECT pg_logical_emit_message(true, '" + prefix + "', " + payload + ");";
}

/// An event as "category/key type payload version", for a captured change "category/key" alone.
std::vector<std::string> read_all(const Path& store) {
  std::vector<std::string> events;
  const auto reader = must(LogReader::open(store));
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next()) {
      if (event->category == "$capture") continue;
      std::string line = std::string(event->category) + "/" + std::string(event->key);
      if (!event->type.empty())
        line += " " + std::string(event->type) + " " + std::string(event->payload) + " " +
                (event->version ? std::to_string(*event->version) : "-");
      events.push_back(std::move(line));
    }
  return events;
}

using Lines = std::vector<std::string>;

/// The versions of each stream of `category`; fails the test where one is missing or given twice.
std::map<std::string, std::uint64_t> count_versions(const Path& store, std::string_view category) {
  std::map<std::string, std::uint64_t> next;
  const auto reader = must(LogReader::open(store));
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next())
      if (event->category == category) {
        REQUIRE(event->version);
        REQUIRE(*event->version == next[std::string(event->key)]++);
      }
  return next;
}

TEST_CASE("a message to a stream is a domain event in the order of its transaction",
          "[capture][application]") {
  Shop shop;
  REQUIRE(catch_up(shop.options()));
  shop.exec("INSERT INTO orders VALUES (1, 'new', 1, NULL);" +
            emit("millrace:ItemAdded@cart/9f3a", "'{\"sku\":\"A-1\"}'") +
            "INSERT INTO orders VALUES (2, 'new', 1, NULL);" +
            emit("millrace:cart/9f3a", "'\\x41ff'::bytea") + emit("millrace", "'own'") +
            "SELECT pg_logical_emit_message(false, 'millrace:cart/9f3a', 'in no transaction');");
  shop.exec(  // as docs/streams.md has it
      "CREATE FUNCTION add_event(stream text, type text, data jsonb) RETURNS void LANGUAGE sql AS "
      "$$ SELECT pg_logical_emit_message(true, 'millrace:' || type || '@' || stream, data::text) "
      "$$");
  shop.exec("SELECT add_event('cart/b@c', 'Added', '[1]')");
  shop.exec("BEGIN; SAVEPOINT s;" + emit("millrace:cart/9f3a", "'undone'") + "ROLLBACK TO s;" +
            emit("millrace:Kept@cart/a/b", "''") + "COMMIT");
  shop.exec("BEGIN;" + emit("millrace:cart/9f3a", "'undone'") + "ROLLBACK");
  REQUIRE(catch_up(shop.options()));
  CHECK(read_all(shop.store()) ==
        Lines{"public.orders/1", "cart/9f3a ItemAdded {\"sku\":\"A-1\"} 0", "public.orders/2",
              "cart/9f3a message A\xff 1", "cart/b@c Added [1] 0", "cart/a/b Kept  0"});
  const auto log = test::read_captured_log(shop.store());
  CHECK(log.faults.empty());
  const auto events = log.of("cart", "a");
  REQUIRE(events.size() == 4);
  CHECK(events[0]["data"]["sku"] == "A-1");
  CHECK(events[0]["source"]["xid"] == log.of("public.orders", "c")[0]["source"]["xid"]);
  CHECK(events[1]["data_base64"] == "Qf8=");
  const auto reader = must(StreamReader::open(shop.store()));
  CHECK(must(reader->last_version({"cart", "9f3a"})) == 1);
}

TEST_CASE("a message that names no stream is kept, and warned of", "[capture][application]") {
  Shop shop;
  REQUIRE(catch_up(shop.options()));
  const test::LogLines lines;
  shop.exec(emit("millrace:cart", "'1'") + emit("millrace:Changed@public.orders/1", "'2'") +
            emit("millrace:$capture/x", "'3'") + emit("millrace:cart/1", "'4'"));
  REQUIRE(catch_up(shop.options()));
  const auto log = test::read_captured_log(shop.store());
  REQUIRE(log.of("$messages", "m").size() == 3);
  CHECK(log.of("$messages", "m")[1]["prefix"] == "millrace:Changed@public.orders/1");
  CHECK(log.of("$messages", "m")[1]["content"] == "2");
  CHECK(log.of("cart", "a").size() == 1);
  CHECK(lines.count("prefix millrace:cart is no domain event: a stream is category/key") == 1);
  CHECK(lines.count("is no domain event") == 1);
}

TEST_CASE("versions go on whoever appends, a serving capture or an application",
          "[capture][application]") {
  Shop shop;
  CaptureOptions options = shop.options();
  options.serve = true;
  BackgroundCapture capture(options);
  REQUIRE(eventually([&] {
    return shop.database.value(
               "SELECT count(*) FROM pg_replication_slots WHERE active AND NOT "
               "temporary AND slot_name = '" +
               shop.database.name() + "'") == "1";
  }));
  constexpr int kEach = 60;
  std::atomic<int> failures = 0;
  const auto append = [&](unsigned seed) {
    const auto store = SharedStore::open(shop.store());
    if (!store) return ++failures, void();
    std::minstd_rand random(seed);
    for (int i = 0; i < kEach; ++i) {
      const NewStreamEvent event{.type = "Appended"};
      const std::string key = std::to_string(random() % 3);
      const StreamAppend part{.stream = {"cart", key}, .expected = {}, .events = {&event, 1}};
      if (!(*store)->append_durably({.streams = {&part, 1}})) ++failures;
    }
  };
  std::jthread one([&] { append(1); }), two([&] { append(2); });
  std::minstd_rand random(3);
  for (int i = 0; i < kEach; ++i) {
    const std::string key = std::to_string(random() % 3);
    shop.exec("BEGIN;" + emit("millrace:Emitted@cart/" + key, "'a'") +
              (i % 7 == 0 ? "SELECT count(pg_logical_emit_message(true, 'millrace:Emitted@cart/" +
                                key + "', repeat('x', 1000))) FROM generate_series(1, 400);"
                          : "") +
              emit("millrace:Emitted@cart/" + std::to_string(random() % 3), "'b'") + "COMMIT");
  }
  one.join(), two.join();
  constexpr std::uint64_t kWanted = 4 * kEach + 400 * ((kEach + 6) / 7);
  REQUIRE(eventually([&] { return test::count_changes(shop.store()) == kWanted; }));
  CHECK(failures == 0);
  const auto next = count_versions(shop.store(), "cart");
  REQUIRE(next.size() == 3);
  // What a message did is a conflict for who has not seen it.
  const auto store = must(SharedStore::open(shop.store()));
  const NewStreamEvent event{.type = "Appended"};
  const auto expecting = [&](std::uint64_t version) {
    const StreamAppend part{.stream = {"cart", "0"},
                            .expected = ExpectedVersion::exact(version),
                            .events = {&event, 1}};
    return store->append_durably({.streams = {&part, 1}});
  };
  CHECK(expecting(next.at("0") - 2).error().code() == ErrorCode::kConflict);
  CHECK(must(expecting(next.at("0") - 1)).next_versions.at(0) == next.at("0") + 1);
  REQUIRE(capture.stop());
}

TEST_CASE("a large transaction's events come once, without those of its parts that were undone",
          "[capture][application]") {
  Shop shop;
  shop.exec(kOutbox);
  REQUIRE(catch_up(shop.with_outbox()));
  CaptureOptions options = shop.with_outbox();
  SECTION("streamed while it runs") {}
  SECTION("drained in stretches") {
    options.catch_up = {.from = 4096, .stretch_min = 4096, .stretch_max = 4 << 20, .confirm = 1};
  }
  std::string sql = "BEGIN;";
  for (int part = 0; part < 6; ++part) {
    const std::string from = std::to_string(part * 300 + 1), to = std::to_string(part * 300 + 300);
    sql +=
        "SAVEPOINT s;"
        "SELECT count(pg_logical_emit_message(true, 'millrace:E@cart/' || g % 7, repeat('x', "
        "300) || g)) FROM generate_series(" +
        from + ", " + to +
        ") g;"
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) SELECT 'box', g % 5, "
        "'B', to_jsonb(g) FROM generate_series(" +
        from + ", " + to + ") g;" + (part % 2 == 0 ? "" : "ROLLBACK TO s;");
  }
  shop.exec(sql + "DELETE FROM outbox; COMMIT");
  REQUIRE(catch_up(options));
  REQUIRE(catch_up(options));
  std::uint64_t carts = 0, boxes = 0;
  for (const auto& [key, count] : count_versions(shop.store(), "cart")) carts += count;
  for (const auto& [key, count] : count_versions(shop.store(), "box")) boxes += count;
  CHECK(carts == 900);
  CHECK(boxes == 900);
  CHECK(read_all(shop.store()).size() == 1800);
}

TEST_CASE("events are there once, however often capture is killed",
          "[capture][application][kill]") {
  Shop shop;
  shop.exec(kOutbox);
  const std::string store = shop.store();
  const auto command = [&](bool to_the_end) {
    std::vector<std::string> argv{MILLRACE_PROGRAM,
                                  "capture",
                                  "run",
                                  "--source",
                                  shop.database.uri(),
                                  "--store",
                                  store,
                                  "--slot",
                                  shop.database.name(),
                                  "--publication",
                                  shop.database.name(),
                                  "--outbox",
                                  "public.outbox",
                                  "--log-level",
                                  "warn"};
    if (to_the_end) argv.emplace_back("--until-caught-up");
    return argv;
  };
  const auto run_to_the_end = [&] {
    test::ChildProcess capture(command(true));
    const auto code = capture.wait();
    INFO(capture.error_output());
    REQUIRE(code == 0);
  };
  run_to_the_end();  // from here on there is a slot
  int written = 0;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::minstd_rand random(seed);
  for (int round = 0; round < 8; ++round) {
    test::ChildProcess capture(command(false));
    const int until = written + 20 + static_cast<int>(random() % 30);
    const std::uint64_t before = test::count_changes(store);
    while (written < until) {
      ++written;
      const std::string n = std::to_string(written);
      shop.exec("BEGIN;" + emit("millrace:E@cart/one", "'" + n + "'") +
                "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('cart', "
                "'two', 'B', '" +
                n + "'); DELETE FROM outbox; COMMIT");
    }
    REQUIRE(eventually([&] { return test::count_changes(store) > before; }));
    capture.kill(SIGKILL);
    capture.wait();
  }
  run_to_the_end();
  Lines expected;
  for (int n = 1; n <= written; ++n) {
    const std::string number = std::to_string(n), version = std::to_string(n - 1);
    expected.push_back("cart/one E " + number + " " + version);
    expected.push_back("cart/two B " + number + " " + version);
  }
  CHECK(read_all(store) == expected);
}

TEST_CASE("an outbox's rows are events, those that are there before the first start too",
          "[capture][application][outbox]") {
  Shop shop;
  shop.exec(std::string(kOutbox) +
            "INSERT INTO outbox VALUES ('00000000-0000-0000-0000-000000000001', 'cart', '9', 'A', "
            "'{\"n\":1}'), ('00000000-0000-0000-0000-000000000002', 'cart', '9', 'B', NULL);"
            "INSERT INTO orders VALUES (1, 'new', 1, NULL)");
  REQUIRE(catch_up(shop.with_outbox()));
  shop.exec(
      "INSERT INTO outbox VALUES ('00000000-0000-0000-0000-000000000003', 'cart', '9', 'C', "
      "'[1, 2]'); DELETE FROM outbox WHERE type = 'C'; UPDATE orders SET total = 2");
  shop.exec("UPDATE outbox SET type = 'never'");
  shop.exec("TRUNCATE outbox; TRUNCATE outbox, orders");
  REQUIRE(catch_up(shop.with_outbox()));
  CHECK(read_all(shop.store()) == Lines{"cart/9 A {\"n\": 1} 0", "cart/9 B  1", "public.orders/1",
                                        "cart/9 C [1, 2] 2", "public.orders/1", "public.orders/"});
  const auto reader = must(LogReader::open(shop.store()));
  Lines ids;
  while (Batch* batch = must(reader->next()))
    while (const EventView* event = batch->next()) {
      CHECK(event->key != "public.outbox");  // no snapshot of it is told of
      if (event->category == "cart")
        ids.emplace_back(must(decode_metadata(event->metadata)).event_id);
    }
  CHECK(ids == Lines{"00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002",
                     "00000000-0000-0000-0000-000000000003"});
}

TEST_CASE("an outbox has no rows to verify, to resync or to read once more",
          "[capture][application][outbox]") {
  Shop shop;
  shop.exec(kOutbox);
  REQUIRE(catch_up(shop.with_outbox()));
  const std::string insert =
      "INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'A')";
  shop.exec(insert + "; INSERT INTO orders VALUES (1, 'new', 1, NULL)");
  REQUIRE(catch_up(shop.with_outbox()));
  const auto none = [](const TableDifference&) -> Result<void> {
    return Error(ErrorCode::kCorruption, "a difference");
  };
  const auto reports =
      must(verify_source({.source = shop.database.uri(), .store = shop.store()}, {}, none));
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].category == "public.orders");
  CHECK_FALSE(request_resnapshot({.source = shop.database.uri(),
                                  .store = shop.store(),
                                  .tables = {"public.outbox"},
                                  .where = {}}));
  shop.exec("SELECT pg_drop_replication_slot('" + shop.database.name() + "')");
  shop.exec("UPDATE orders SET total = 2; " + insert);  // lost, as docs/streams.md says
  const auto resynced =
      must(resync_source({.source = shop.database.uri(), .store = shop.store()}, {}));
  REQUIRE(resynced.tables.size() == 1);
  shop.exec(insert);
  REQUIRE(catch_up(shop.with_outbox()));
  CHECK(read_all(shop.store()) ==
        Lines{"cart/1 A  0", "public.orders/1", "public.orders/1", "cart/1 A  1"});
}

TEST_CASE("an outbox may have other types, and other columns", "[capture][application][outbox]") {
  Shop shop;
  shop.exec(
      "CREATE TYPE kind AS ENUM ('cart', 'order');"
      "CREATE TABLE outbox (seen inet, payload bytea, type varchar(20), aggregateid bigint, "
      "aggregatetype kind, id bigserial PRIMARY KEY);");
  if (GENERATE(false, true)) shop.exec("ALTER TABLE outbox DROP COLUMN seen");  // comes in binary
  const std::string insert =
      "INSERT INTO outbox (payload, type, aggregateid, aggregatetype) VALUES ";
  shop.exec(insert + "('\\x00ff', 'A', -7, 'order')");
  REQUIRE(catch_up(shop.with_outbox()));
  shop.exec(insert + "('\\x01', 'B', -7, 'order'), (NULL, 'C', NULL, 'cart')");
  REQUIRE(catch_up(shop.with_outbox()));
  const Lines events = read_all(shop.store());
  REQUIRE(events.size() == 3);
  CHECK(events[0] == std::string("order/-7 A \0\xff 0", 15));
  CHECK(events[1] == "order/-7 B \x01 1");
  CHECK(events[2] == "$messages/outbox:public.outbox");
}

TEST_CASE("a table that can be no outbox is refused before anything is made",
          "[capture][application][outbox]") {
  Shop shop;
  const auto problem = [&](const std::string& text) {
    const auto outcome = catch_up(shop.with_outbox());
    REQUIRE_FALSE(outcome);
    CHECK_THAT(outcome.error().message(), Catch::Matchers::Contains(text));
    const auto findings = check_source({.source = shop.database.uri(),
                                        .tables = {},
                                        .slot = shop.database.name(),
                                        .publication = shop.database.name(),
                                        .outbox = {"public.outbox"}});
    REQUIRE(findings);
    CHECK(std::ranges::any_of(*findings, [&](const Finding& finding) {
      return finding.severity == Finding::Severity::kProblem && !finding.fix.empty() &&
             (finding.subject + ": " + finding.message).find(text) != std::string::npos;
    }));
    CHECK_FALSE(must(FileSystem::real().exists(shop.store())));
  };
  const auto publications = [&] {
    return shop.database.value("SELECT count(*) FROM pg_publication");
  };
  problem("outbox public.outbox: There is no such table");
  shop.exec("CREATE TABLE outbox (id int PRIMARY KEY, aggregateid text, type int, payload text)");
  problem("column aggregatetype is missing. column type is of type integer");
  shop.exec("ALTER TABLE outbox ADD aggregatetype text, ALTER type TYPE text");
  CHECK(publications() == "0");
  shop.exec("CREATE PUBLICATION " + shop.database.name() + " FOR TABLE orders");
  problem("Publication " + shop.database.name() + " does not have it");
  shop.exec("ALTER PUBLICATION " + shop.database.name() + " ADD TABLE outbox");
  CHECK(catch_up(shop.with_outbox()));
}

TEST_CASE("setup publishes an outbox that --tables does not name",
          "[capture][application][outbox]") {
  Shop shop;
  shop.exec("CREATE SCHEMA app; SET search_path = app; " + std::string(kOutbox) +
            "RESET search_path");
  const auto report = set_up_source({.source = shop.database.uri(),
                                     .tables = {"public.orders"},
                                     .slot = shop.database.name(),
                                     .publication = shop.database.name(),
                                     .outbox = {"app.outbox"}});
  REQUIRE(report);
  CHECK(report->made_publication);
  CHECK(shop.database.value("SELECT string_agg(schemaname || '.' || tablename, ' ' ORDER BY "
                            "schemaname) FROM pg_publication_tables") ==
        "app.outbox public.orders");
  CaptureOptions options = shop.options();
  options.tables = {"public.orders"};
  options.outbox = {"app.outbox"};
  shop.exec("INSERT INTO app.outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'A')");
  REQUIRE(catch_up(options));
  CHECK(read_all(shop.store()) == Lines{"cart/1 A  0"});
}

TEST_CASE("another outbox than before is noticed, and read from then on if that is accepted",
          "[capture][application][outbox]") {
  Shop shop;
  REQUIRE(catch_up(shop.options()));
  shop.exec(std::string(kOutbox) +
            "INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'Before')");
  const auto outcome = catch_up(shop.with_outbox());
  CHECK(test::state_of(outcome) == "OUTBOX_CHANGED");
  CaptureOptions accepting = shop.with_outbox();
  accepting.accept_publication_change = true;
  const auto lacking = catch_up(accepting);  // the publication does not have it yet
  REQUIRE_FALSE(lacking);
  CHECK_THAT(lacking.error().message(), Catch::Matchers::Contains("does not have it"));
  shop.exec("ALTER PUBLICATION " + shop.database.name() + " ADD TABLE outbox");
  REQUIRE(catch_up(accepting));
  shop.exec("INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'After')");
  REQUIRE(catch_up(shop.with_outbox()));
  CHECK(read_all(shop.store()) == Lines{"cart/1 After  0"});
  CHECK(test::state_of(catch_up(shop.options())) == "OUTBOX_CHANGED");
}

TEST_CASE("an outbox that was made anew or left the publication halts capture",
          "[capture][application][outbox]") {
  Shop shop;
  shop.exec(kOutbox);
  REQUIRE(catch_up(shop.with_outbox()));
  SECTION("made anew") {
    shop.exec(
        "ALTER TABLE outbox RENAME TO outbox_old; CREATE TABLE outbox (LIKE outbox_old INCLUDING "
        "ALL)");
  }
  SECTION("dropped") { shop.exec("DROP TABLE outbox;" + std::string(kOutbox)); }
  SECTION("not published any more") {
    shop.exec("ALTER PUBLICATION " + shop.database.name() + " DROP TABLE outbox");
  }
  shop.exec("INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'Lost')");
  CHECK(test::state_of(catch_up(shop.with_outbox())) == "PUBLICATION_CHANGED");
  CHECK(shop.database.value(
            "SELECT count(*) FROM pg_publication_tables WHERE tablename = 'outbox'") == "0");
}

TEST_CASE("a publication that lacks the outbox is not gone on with, and what mends it is told",
          "[capture][application][outbox]") {
  Shop shop;
  shop.exec(kOutbox);
  REQUIRE(catch_up(shop.with_outbox()));
  shop.exec("ALTER PUBLICATION " + shop.database.name() + " DROP TABLE outbox");
  CaptureOptions chosen = shop.with_outbox();
  for (const bool accepted : {false, true}) {
    chosen.accept_publication_change = accepted;
    const auto outcome = catch_up(chosen);
    REQUIRE(test::state_of(outcome) == "PUBLICATION_CHANGED");
    CHECK_THAT(outcome.error().message(),
               Catch::Matchers::Contains("is without the outbox public.outbox"));
    CHECK_THAT(outcome.error().hint(),
               Catch::Matchers::Contains("ALTER PUBLICATION \"" + shop.database.name() +
                                         "\" ADD TABLE \"public\".\"outbox\";"));
  }
  shop.exec("ALTER PUBLICATION " + shop.database.name() + " ADD TABLE outbox");
  CHECK(test::state_of(catch_up(shop.with_outbox())) == "PUBLICATION_CHANGED");
  REQUIRE(catch_up(chosen));
  shop.exec("INSERT INTO outbox (aggregatetype, aggregateid, type) VALUES ('cart', '1', 'After')");
  REQUIRE(catch_up(shop.with_outbox()));
  CHECK(read_all(shop.store()) == Lines{"cart/1 After  0"});
}

TEST_CASE("tail shows domain events as they are committed", "[capture][application]") {
  Shop shop;
  std::stop_source stop;
  Lines seen;
  const auto outcome = tail_source(
      {.source = shop.database.uri(), .tables = {}}, stop.get_token(),
      [&](const EventRecord& event, SchemaRegistry&) -> Result<void> {
        seen.push_back(std::string(event.category) + "/" + std::string(event.key) + " " +
                       std::string(event.type) + " " + std::string(event.payload));
        stop.request_stop();
        return {};
      },
      [&] { shop.exec(emit("millrace:ItemAdded@cart/9", "'{}'")); });
  REQUIRE(outcome);
  CHECK(seen == Lines{"cart/9 ItemAdded {}"});
}

}  // namespace
}  // namespace millrace
