#include "projections/sink_testing.h"
#include "sinks/postgres_table.h"
#include "sinks/redis_keys.h"
#include "tests/support/catch.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/redis_fixture.h"

namespace millrace::projections {
namespace {

using test::RedisServer;
using test::TestDatabase;

SinkShape shape(Column key) {
  return {"totals",
          std::move(key),
          {integer("number"), real("weight"), text("name"), blob("image"), numeric("spent"),
           counter("orders")},
          {{"name"}, {"number", "weight"}}};
}

TEST_CASE("a PostgreSQL table keeps what a sink promises", "[sink]") {
  for (std::uint64_t seed : {1, 2}) {
    CAPTURE(seed);
    const TestDatabase database;
    const auto kind = postgres_table({.server = database.uri()});
    CHECK(testing::broken_promise(*kind, shape(integer("id")), seed).value_or("kept") == "kept");
    const auto named = postgres_table({.server = database.uri(),
                                       .table = "public.by \"name\"",
                                       .types = {{"number", "numeric"},
                                                 {"spent", "numeric(400,1)"},
                                                 {"name", "character varying(3)"}}});
    CHECK(testing::broken_promise(*named, shape(text("sku")), seed).value_or("kept") == "kept");
  }
}

TEST_CASE("Redis hashes keep what a sink promises", "[sink]") {
  RedisServer redis;
  for (std::uint64_t seed : {1, 2}) {
    CAPTURE(seed);
    CHECK(
        testing::broken_promise(*redis_hashes({.server = redis.url()}), shape(integer("id")), seed)
            .value_or("kept") == "kept");
    redis.run({"FLUSHALL"});
    CHECK(testing::broken_promise(*redis_hashes({.server = redis.url(), .prefix = "a[b]*:"}),
                                  shape(text("sku")), seed)
              .value_or("kept") == "kept");
    redis.run({"FLUSHALL"});
  }
}

TEST_CASE("a Redis set keeps what a sink promises", "[sink]") {
  RedisServer redis;
  CHECK(testing::broken_promise(*redis_set({.server = redis.url()}), shape(text("sku")))
            .value_or("kept") == "kept");
}

TEST_CASE("a Redis sorted set keeps what a sink promises", "[sink]") {
  RedisServer redis;
  const auto kind = redis_sorted_set({.server = redis.url(), .key = "top", .score = "orders"});
  CHECK(testing::broken_promise(*kind, shape(integer("id"))).value_or("kept") == "kept");
}

}  // namespace
}  // namespace millrace::projections
