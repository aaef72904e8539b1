// Values that only some databases have, or only at some time, through a whole capture.

#include "eventstore/log_reader.h"
#include "millrace/v1/change.pb.h"
#include "schemas/registry.h"
#include "schemas/row_text.h"
#include "tests/support/capture_runner.h"
#include "tests/support/capture_scene.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

/// The text of one column in every event of a store, in order.
std::vector<std::string> texts_of(const Path& store, std::string_view column) {
  std::vector<std::string> texts;
  const auto reader = LogReader::open(store);
  const auto schemas = SchemaRegistry::open_read_only(store);
  REQUIRE((reader && schemas));
  RowText row;
  while (Batch* batch = (*reader)->next().value()) {
    while (const EventView* event = batch->next()) {
      if (!event->type.empty()) continue;  // what capture has to say
      v1::Change change;
      REQUIRE(
          change.ParseFromArray(event->payload.data(), static_cast<int>(event->payload.size())));
      const auto schema = (*schemas)->find(event->category, change.schema());
      REQUIRE(schema);
      REQUIRE(row.read(**schema, change.after()));
      for (std::size_t i = 0; i < row.size(); ++i)
        if ((*schema)->columns[i].name == column)
          texts.emplace_back(row.value(i).value_or("<null>"));
    }
  }
  return texts;
}

void require_caught_up(const CaptureOptions& options) {
  const auto caught_up = catch_up(options);
  if (!caught_up) FAIL(caught_up.error().to_string());
}

}  // namespace

TEST_CASE("B14: bytes that are no UTF-8, of a database in SQL_ASCII, are kept as they are",
          "[capture][types]") {
  // With an inet beside it the stream comes as text, without one in binary.
  for (const std::string more : {"", ", ip inet"}) {
    Scene scene;
    PostgresServer& server = scene.database.server();
    const std::string name = scene.database.name() + "_ascii";
    server.exec("postgres",
                "CREATE DATABASE " + name +
                    " ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    server.exec(name, "CREATE TABLE words (id int PRIMARY KEY, word text" + more + ")");
    const std::string row = "INSERT INTO words (id, word) VALUES ";
    server.exec(name, row + "(1, E'caf\\351'), (2, E'\\377\\376\\200')");
    CaptureOptions options = scene.options();
    options.source = server.uri(name);
    require_caught_up(options);
    server.exec(name, row + "(3, E'caf\\351'), (4, E'\\377\\376\\200')");
    require_caught_up(options);
    CHECK(texts_of(scene.store(), "word") ==
          std::vector<std::string>{"caf\xe9", "\xff\xfe\x80", "caf\xe9", "\xff\xfe\x80"});
    server.drop_database(name);
  }
}

TEST_CASE("B13: a label that an enum got later is kept, in binary and in arrays too",
          "[capture][types]") {
  Scene scene;
  scene.database.exec(
      "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (id int PRIMARY KEY, m mood, l "
      "mood[])");
  BackgroundCapture capture(scene.options());
  CHECK(eventually([&] { return scene.is_streaming(); }));
  scene.database.exec("INSERT INTO moods VALUES (1, 'sad', '{sad,NULL}')");
  scene.database.exec("ALTER TYPE mood ADD VALUE 'very \"happy\"'");
  scene.database.exec(
      "INSERT INTO moods VALUES (2, 'very \"happy\"', ARRAY['very \"happy\"'::mood])");
  CHECK(eventually([&] { return scene.durable_changes() == 2; }));
  CHECK(capture.stop());
  CHECK(texts_of(scene.store(), "m") == std::vector<std::string>{"sad", "very \"happy\""});
  CHECK(texts_of(scene.store(), "l") ==
        std::vector<std::string>{"{sad,NULL}", "{\"very \\\"happy\\\"\"}"});
}

// What reads the log here copies a document by recursion, for which a sanitizer's frames are too
// large.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kLevels = 2'000;
#else
constexpr std::size_t kLevels = 10'000;
#endif

TEST_CASE("B13: JSON ten thousand levels deep is kept", "[capture][types]") {
  const std::string levels = std::to_string(kLevels);
  Scene scene;
  scene.database.exec("SET max_stack_depth = '6MB'");
  scene.database.exec("CREATE TABLE deep (id int PRIMARY KEY, j json)");
  require_caught_up(scene.options());
  scene.database.exec("INSERT INTO deep VALUES (1, (repeat('[', " + levels + ") || repeat(']', " +
                      levels + "))::json)");
  require_caught_up(scene.options());
  CHECK(texts_of(scene.store(), "j") ==
        std::vector<std::string>{std::string(kLevels, '[') + std::string(kLevels, ']')});
  CHECK(read_captured_log(scene.store()).events.size() == 1);
}

}  // namespace millrace::test
