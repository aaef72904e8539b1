// Databases that are not in UTF-8: what they hold comes as UTF-8 where the server can make it so,
// and byte by byte where it can't.
#include <libpq-fe.h>

#include "tests/support/capture_runner.h"
#include "tests/support/captured_log.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

struct Case {
  std::string encoding, table;
  std::string sent;      ///< In an escape string, in the database's encoding.
  nlohmann::json after;  ///< In the log.
};

TEST_CASE("F96: text of any server encoding is kept, and marked where it is no UTF-8",
          "[capture][encodings]") {
  PostgresServer server({.settings = {}, .initdb_arguments = {"-E", "EUC_JP", "--locale=C"}});
  REQUIRE(server.value("postgres", "SHOW server_encoding") == "EUC_JP");
  const std::vector<Case> cases = {
      {"EUC_JP", "\xc9\xbd", "\\306\\374\\313\\334\\244\\253\\217\\260\\241", "日本か丂"},
      {"LATIN1", "t\xe9l\xe9", "caf\\351 \\377\\200", "café ÿ\xc2\x80"},
      {"SQL_ASCII", "plain", "caf\\351", {{"base64", "Y2Fm6Q=="}}},
      {"SQL_ASCII", "caf\xe9", "\\377\\376", {{"base64", "//4="}}}};
  int number = 0;
  for (const auto& [encoding, table, sent, after] : cases) {
    CAPTURE(encoding, table);
    const std::string name = "d" + std::to_string(++number);
    server.exec("postgres", "CREATE DATABASE " + name + " ENCODING '" + encoding +
                                "' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    server.exec(name, "CREATE TABLE \"" + table + "\" (id int PRIMARY KEY, word text)");
    const auto insert = [&](int id, const std::string& word) {
      server.exec(name, "INSERT INTO \"" + table + "\" VALUES (" + std::to_string(id) + ", E'" +
                            word + "')");
    };
    insert(1, sent);
    const TemporaryDirectory directory;
    CaptureOptions options;
    options.source = server.uri(name);
    options.store = directory / "store";
    options.slot = name;
    for (int round = 0; round < 2; ++round) {
      const auto outcome = catch_up(options);
      INFO((outcome ? "" : outcome.error().to_string()));
      REQUIRE(outcome);
      if (round == 0) insert(2, sent), insert(3, "plain");
    }
    const CapturedLog log = read_captured_log(options.store);
    CHECK(log.faults == std::vector<std::string>());
    std::vector<nlohmann::json> words;
    for (const auto& event : log.events)
      if (event["op"] == "r" || event["op"] == "c") words.push_back(event["after"]["word"]);
    CHECK(words == std::vector<nlohmann::json>{after, after, "plain"});
  }
}

}  // namespace
}  // namespace millrace::test
