#include <thread>

#include "capture/postgres/catalog.h"
#include "capture/postgres/source_address.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"

namespace millrace::test {
namespace {

TEST_CASE("F69: tables that are dropped while the catalog is read are there or not, and no error",
          "[capture][catalog]") {
  constexpr int kTables = 500;
  constexpr int kRounds = 5;
  TestDatabase database;
  database.exec(
      "CREATE PUBLICATION everything FOR ALL TABLES; CREATE TABLE stays (id int PRIMARY KEY)");
  int readings = 0;
  for (int round = 0; round < kRounds; ++round) {
    // A new session: its server process knows none of the tables yet.
    Catalog catalog(SourceAddress::parse(database.uri()).value());
    database.exec(
        "DO $$BEGIN FOR i IN 1.." + std::to_string(kTables) +
        " LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', i); END LOOP; END$$");
    std::jthread dropper([&](const std::stop_token& stop) {
      // From the last, so that they are gone when the reading comes to them.
      for (int i = kTables; i > 0 && !stop.stop_requested(); --i)
        database.exec("DROP TABLE t" + std::to_string(i));
    });
    std::size_t left = kTables;
    while (left > 0) {
      const auto tables = catalog.tables();
      INFO((tables ? std::string() : tables.error().message()));
      REQUIRE(tables);
      REQUIRE(!tables->empty());
      CHECK(tables->front().table_name == "stays");
      const auto publication = catalog.publication("everything");
      INFO((publication ? std::string() : publication.error().message()));
      REQUIRE(publication);
      CHECK(tables->size() <= left + 1);
      left = tables->size() - 1;
      ++readings;
    }
  }
  CHECK(readings > kRounds);  // they have met the dropping
}

}  // namespace
}  // namespace millrace::test
