#include "base/error.h"

#include <cerrno>
#include <limits>
#include <set>

#include "base/check.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/result.h"
#include "tests/support/catch.h"

using namespace millrace;

namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error(ErrorCode::kInvalidArgument, "odd");
  return value / 2;
}

Result<int> quarter(int value) {
  MILLRACE_ASSIGN_OR_RETURN(const int once, half(value));
  MILLRACE_ASSIGN_OR_RETURN(const int twice, half(once));
  return twice;
}

Result<void> is_even(int value) {
  MILLRACE_RETURN_IF_ERROR(half(value));
  return {};
}

}  // namespace

TEST_CASE("an error gains context on its way up and keeps the hint nearest to its cause",
          "[base]") {
  const Error error = Error(ErrorCode::kNotFound, "no such file")
                          .hint("Look again.")
                          .context("read store.json")
                          .context("open store ./store")
                          .hint("Never mind.");
  CHECK(error.message() == "open store ./store: read store.json: no such file");
  CHECK(error.hint() == "Look again.");
  CHECK(error.to_string() == "open store ./store: read store.json: no such file\n  Look again.");
  CHECK(Error(ErrorCode::kIo, "bad").to_string() == "bad");
}

TEST_CASE("errno becomes the code that says what can be done", "[base]") {
  CHECK(Error::from_errno(ENOSPC, "write").code() == ErrorCode::kNoSpace);
  CHECK(Error::from_errno(EDQUOT, "write").code() == ErrorCode::kNoSpace);
  CHECK(Error::from_errno(EFBIG, "write").code() == ErrorCode::kNoSpace);
  CHECK(Error::from_errno(ENOENT, "open").code() == ErrorCode::kNotFound);
  CHECK(Error::from_errno(EIO, "read").code() == ErrorCode::kIo);
  CHECK_FALSE(Error::from_errno(ENOSPC, "write").hint().empty());
  CHECK(Error::from_errno(EIO, "read x").message() == "read x: Input/output error");
}

TEST_CASE("every code has a name of its own and a documented exit code", "[base]") {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code)
    names.insert(name_of(static_cast<ErrorCode>(code)));
  CHECK(names.size() == static_cast<std::size_t>(ErrorCode::kInternal) + 1);
  CHECK(exit_code_for(ErrorCode::kInvalidArgument) == 2);
  CHECK(exit_code_for(ErrorCode::kCorruption) == 3);
  CHECK(exit_code_for(ErrorCode::kUnavailable) == 4);
  CHECK(exit_code_for(ErrorCode::kIo) == 1);
}

TEST_CASE("a result hands its error on through the macros", "[base]") {
  CHECK(quarter(8) == 2);
  CHECK(quarter(6).error().message() == "odd");
  CHECK(quarter(3).error().code() == ErrorCode::kInvalidArgument);
  CHECK(is_even(2));
  CHECK(is_even(3).error().message() == "odd");
}

TEST_CASE("time is printed in UTC with microseconds, also before 1970", "[base]") {
  CHECK(to_iso8601({0}) == "1970-01-01T00:00:00.000000Z");
  CHECK(to_iso8601({1'767'225'600'000'001}) == "2026-01-01T00:00:00.000001Z");
  CHECK(to_iso8601({-1}) == "1969-12-31T23:59:59.999999Z");
  CHECK(to_iso8601({951'782'400'000'000}) == "2000-02-29T00:00:00.000000Z");
  CHECK(to_iso8601({-62'167'219'200'000'001}) == "-0001-12-31T23:59:59.999999Z");
  CHECK(to_iso8601({std::numeric_limits<std::int64_t>::min()}).starts_with("-290308-"));
  CHECK(to_iso8601({std::numeric_limits<std::int64_t>::max()}).starts_with("294247-"));
  std::string out = "at ";  // what was there stays
  append_iso8601({0}, out);
  CHECK(out == "at 1970-01-01T00:00:00.000000Z");
}

TEST_CASE("the system's clocks run forward and near the present", "[base]") {
  Clock& clock = Clock::system();
  const auto before = clock.monotonic();
  CHECK(clock.monotonic() >= before);
  CHECK(clock.wall().value > 1'700'000'000'000'000);
}

TEST_CASE("the checksum is XXH3-64 with a seed", "[base]") {
  CHECK(checksum("") == 0x2d06800538d394c2ull);  // from the xxHash project
  CHECK(checksum("a") != checksum("b"));
  CHECK(checksum("a", 1) != checksum("a", 2));
}
