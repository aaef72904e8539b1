#include <cstdlib>
#include <iostream>

#include "projections/projections.h"
#include "tests/projections/tally.h"

// A program with a view in memory that takes a snapshot of it every TALLY_EVENTS events. It prints
// what readers see when `run` has ended.

int main(int argc, char** argv) {
  using namespace millrace::projections;
  const char* events = std::getenv("TALLY_EVENTS");
  const auto view = test::tally(
      {.snapshot_events = events == nullptr ? 500'000 : std::strtoull(events, nullptr, 10)});
  App app("tally");
  app.add(view);
  const int code = app.main(argc, argv);
  if (view.shown())
    for (const std::string& line : test::lines_of(view)) std::cout << line << '\n';
  return code;
}
