#include "base/progress.h"

#include "base/counted.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

using std::chrono::seconds;

TEST_CASE("a progress line tells share, rate and the time that is left", "[base]") {
  CHECK(progress_text("rebuild v", 500'000, 2'000'000, ProgressUnit::kEvents, seconds(1)) ==
        "rebuild v  25 %  500 k events/s  0:03 left");
  CHECK(progress_text("verify", 3 << 20, 3'000ull << 20, ProgressUnit::kBytes, seconds(3)) ==
        "verify  0 %  1.0 MiB/s  49:57 left");
  CHECK(progress_text("verify", 1, 7201, ProgressUnit::kEvents, seconds(1)) ==
        "verify  0 %  1 events/s  2:00:00 left");
}

TEST_CASE("a progress line does without what is not known", "[base]") {
  CHECK(progress_text("load", 1'500, 0, ProgressUnit::kEvents, seconds(1)) ==
        "load  1.5 k events  1.5 k events/s");
  CHECK(progress_text("load", 0, 10, ProgressUnit::kEvents, seconds(0)) == "load  0 %  0 events/s");
  CHECK(progress_text("load", 12, 10, ProgressUnit::kEvents, seconds(1)) ==
        "load  100 %  12 events/s");
}

TEST_CASE("numbers are grouped by thousands", "[base]") {
  CHECK(grouped(0) == "0");
  CHECK(grouped(999) == "999");
  CHECK(grouped(1000) == "1,000");
  CHECK(grouped(1234567) == "1,234,567");
}

TEST_CASE("one of a thing is told without an s", "[base]") {
  CHECK(counted(0, "row") == "0 rows");
  CHECK(counted(1, "row") == "1 row");
  CHECK(counted(2000, "row") == "2,000 rows");
}

TEST_CASE("sizes are told in the unit that fits", "[base]") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1536) == "1.5 KiB");
  CHECK(human_bytes(150.0 * (1 << 20)) == "150 MiB");
  CHECK(human_count(999) == "999");
  CHECK(human_count(1'200'000) == "1.2 M");
}

}  // namespace
}  // namespace millrace::test
