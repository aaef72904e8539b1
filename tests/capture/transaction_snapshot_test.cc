// Which transactions a snapshot sees.
#include "capture/state/transaction_snapshot.h"

#include "tests/support/catch.h"
#include "tests/support/store_fixture.h"

namespace millrace {
namespace {

using test::must;

constexpr UnixMicros kNow{1'700'000'000'000'000};

TEST_CASE("F98: a snapshot sees what had ended, not what was running or came later",
          "[capture][verify]") {
  const auto snapshot = must(TransactionSnapshot::parse("100:110:100,103", kNow));
  CHECK(snapshot.sees(99, kNow));
  CHECK_FALSE(snapshot.sees(100, kNow));
  CHECK(snapshot.sees(101, kNow));
  CHECK_FALSE(snapshot.sees(103, kNow));
  CHECK(snapshot.sees(109, kNow));
  CHECK_FALSE(snapshot.sees(110, kNow));
  CHECK_FALSE(snapshot.sees(5000, kNow));
  const auto quiet = must(TransactionSnapshot::parse("110:110:", kNow));
  CHECK(quiet.sees(109, kNow));
  CHECK_FALSE(quiet.sees(110, kNow));
}

TEST_CASE("F93: transaction numbers that have wrapped around are told apart", "[capture][verify]") {
  // xmin 4294967290 of the first round, xmax 5 of the second.
  const auto snapshot =
      must(TransactionSnapshot::parse("4294967290:4294967301:4294967290,4294967299", kNow));
  CHECK_FALSE(snapshot.sees(4'294'967'290U, kNow));
  CHECK(snapshot.sees(4'294'967'289U, kNow));
  CHECK(snapshot.sees(4'294'967'295U, kNow));
  CHECK_FALSE(snapshot.sees(3, kNow));
  CHECK(snapshot.sees(4, kNow));
  CHECK_FALSE(snapshot.sees(5, kNow));
  CHECK_FALSE(snapshot.sees(6, kNow));
  // A number that is in the future now, of a transaction of hours ago: one of the round before.
  CHECK(snapshot.sees(6, UnixMicros{kNow.value - 7'200'000'000}));
}

TEST_CASE("what is no snapshot is refused", "[capture][verify]") {
  for (const char* text : {"", "1", "1:2", "1:2:x", "a:2:", "-1:2:"}) {
    CAPTURE(text);
    CHECK_FALSE(TransactionSnapshot::parse(text, kNow));
  }
}

}  // namespace
}  // namespace millrace
