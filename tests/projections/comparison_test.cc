#include "projections/engine/comparison.h"

#include <limits>

#include "tests/support/catch.h"

namespace millrace::projections {
namespace {

TEST_CASE("values that differ are shown differently", "[sink]") {
  CHECK(shown(Value(0.1)) == "0.1");
  CHECK(shown(Value(0.1 + 0.2)) == "0.30000000000000004");
  CHECK(shown(Value(2e-9)) == "2e-09");
  CHECK(shown(Value(1e300)) == "1e+300");
  CHECK(shown(Value(std::numeric_limits<double>::infinity())) == "inf");
  CHECK(shown(Value(2.0)) == "2.0");
  CHECK(shown(Value(-2.0)) == "-2.0");
  CHECK(shown(Value(std::int64_t{2})) == "2");
  CHECK(shown(Value("2")) == "'2'");
  CHECK(shown(Value()) == "null");
}

}  // namespace
}  // namespace millrace::projections
