// A program of views with sinks, to be killed: balances in PostgreSQL (BALANCES_POSTGRES) and Redis
// (BALANCES_REDIS), as far as they are given.

#include <cstdlib>

#include "tests/sinks/balances.h"

using namespace millrace::projections;
using millrace::projections::test::balances;

int main(int argc, char** argv) {
  App app("balances");
  if (const char* server = std::getenv("BALANCES_POSTGRES"))
    app.add(balances(postgres_table({.server = server}), "in_postgres"));
  if (const char* server = std::getenv("BALANCES_REDIS")) {
    app.add(balances(redis_hashes({.server = server}), "in_hashes"));
    app.add(balances(redis_set({.server = server}), "in_set"));
    app.add(balances(redis_sorted_set({.server = server, .score = "cents"}), "in_ranks"));
  }
  return app.main(argc, argv);
}
