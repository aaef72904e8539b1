// Streaming in binary, and how capture comes back to text: what is captured is the same.

#include "capture/postgres/binary_choice.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

/// The command with which the running capture streams.
std::string streaming_command(Scene& scene) {
  return scene.database.value(
      "SELECT a.query FROM pg_stat_activity a JOIN pg_replication_slots s ON s.active_pid = a.pid "
      "WHERE s.slot_name = '" +
      scene.database.name() + "'");
}
bool streams_in_binary(Scene& scene) {
  return streaming_command(scene).find("binary 'true'") != std::string::npos;
}

bool exact(Scene& scene) {
  const auto address = SourceAddress::parse(scene.database.uri());
  REQUIRE(address);
  Catalog catalog(*address);
  const auto answer = binary_is_exact(catalog, "millrace");
  REQUIRE(answer);
  return *answer;
}

/// Waits until the store holds this many events, then gives them.
CapturedLog events(Scene& scene, std::size_t count) {
  CHECK(eventually([&] { return scene.durable_changes() >= count; }));
  CapturedLog log = read_captured_log(scene.store());
  CHECK(log.events.size() == count);
  CHECK(log.faults.empty());
  return log;
}

}  // namespace

TEST_CASE("where every column's binary form is exact it is streamed, and tells the same",
          "[capture][binary]") {
  Scene scene;
  scene.database.exec("INSERT INTO orders VALUES (1, 'new', 19.90, 'it''s')");
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming(); }));
  CHECK(exact(scene));
  CHECK(streams_in_binary(scene));
  scene.database.exec("INSERT INTO orders VALUES (2, NULL, -0.05, '')");
  scene.database.exec("UPDATE orders SET id = 3, total = 'NaN' WHERE id = 2");
  scene.database.exec("DELETE FROM orders WHERE id = 1");
  const CapturedLog log = events(scene, 5);
  CHECK(log.tables.at("public.orders").size() == 1);
  const nlohmann::json row = {{"id", 3}, {"status", nullptr}, {"total", "NaN"}, {"note", ""}};
  CHECK(log.tables.at("public.orders").at("3") == row);
  CHECK(capture.stop());
}

TEST_CASE(
    "B11: a column that must be text, added while binary is streamed, brings text, exactly once",
    "[capture][binary]") {
  Scene scene;
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming() && streams_in_binary(scene); }));
  // Both before and after the new column, in one transaction: it is sent again whole.
  scene.database.exec(
      "INSERT INTO orders VALUES (1, 'a', 1, NULL); ALTER TABLE orders ADD ip inet;"
      "INSERT INTO orders VALUES (2, 'b', 2, NULL, '10.0.0.0/8')");
  scene.database.exec("INSERT INTO orders VALUES (3, 'c', 3, NULL, '::1')");
  const CapturedLog log = events(scene, 3);
  CHECK(log.tables.at("public.orders").at("1")["total"] == "1.00");
  CHECK(log.tables.at("public.orders").at("2")["ip"] == "10.0.0.0/8");
  CHECK(log.tables.at("public.orders").at("3")["ip"] == "::1");
  CHECK_FALSE(exact(scene));
  CHECK_FALSE(streams_in_binary(scene));
  CHECK(capture.stop());
}

TEST_CASE("B11: a column that the server can't send in binary brings text, exactly once",
          "[capture][binary]") {
  Scene scene;
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming() && streams_in_binary(scene); }));
  scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1, NULL)");
  scene.database.exec(
      "ALTER TABLE orders ADD acl aclitem[];"
      "INSERT INTO orders VALUES (2, 'b', 2, NULL, '{postgres=r/postgres}')");
  const CapturedLog log = events(scene, 2);
  CHECK(log.tables.at("public.orders").at("2")["acl"] ==
        nlohmann::json::array({"postgres=r/postgres"}));
  CHECK_FALSE(streams_in_binary(scene));
  CHECK(capture.stop());
}

TEST_CASE("a new connection after text asks for binary no more, a new capture does",
          "[capture][binary]") {
  Scene scene;
  {
    BackgroundCapture capture(scene.options());
    CHECK(eventually([&] { return scene.is_streaming() && streams_in_binary(scene); }));
    scene.database.exec("ALTER TABLE orders ADD ip inet");
    scene.database.exec("INSERT INTO orders VALUES (1, 'a', 1, NULL, '::1')");
    events(scene, 1);
    scene.database.exec("ALTER TABLE orders DROP ip");
    const std::string pid = scene.slot_column("active_pid");
    scene.database.exec("SELECT pg_terminate_backend(" + pid + ")");
    CHECK(
        eventually([&] { return scene.is_streaming() && scene.slot_column("active_pid") != pid; }));
    CHECK_FALSE(streams_in_binary(scene));
    CHECK(capture.stop());
  }
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming(); }));
  CHECK(streams_in_binary(scene));
  scene.database.exec("INSERT INTO orders VALUES (2, 'b', 2, NULL)");
  CHECK(events(scene, 2).tables.at("public.orders").size() == 2);
  CHECK(capture.stop());
}

/// Takes some gibibytes of memory, so it is run by hand: capture_pgtest '[huge]'.
TEST_CASE("F80, B4: a value whose text PostgreSQL can't make comes in binary", "[huge][.]") {
  Scene scene;
  scene.database.exec("CREATE TABLE blobs (id int PRIMARY KEY, data bytea)");
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming() && streams_in_binary(scene); }));
  scene.database.exec(
      "INSERT INTO blobs SELECT 1, decode(repeat('00ff', 300 * 1024 * 1024 / 2), 'hex') || "
      "decode(repeat('01fe', 300 * 1024 * 1024 / 2), 'hex')");
  CHECK(eventually([&] { return scene.durable_changes() == 1; }, std::chrono::minutes(3)));
  CHECK(capture.stop());
}

}  // namespace millrace::test
