// What docs/streams.md shows: see examples_test.cc.

#include <algorithm>
#include <filesystem>

#include "service/shared_store.h"
#include "tests/support/catch.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

using namespace millrace;
using millrace::test::run_command;
using millrace::test::TemporaryDirectory;

namespace {

Result<void> append_to_a_stream() {
  MILLRACE_ASSIGN_OR_RETURN(auto store, SharedStore::open("./store"));
  const NewStreamEvent event{.type = "ItemAdded", .payload = R"({"sku":"A-1"})"};
  const StreamAppend part{
      .stream = {"cart", "9f3a"}, .expected = ExpectedVersion::none(), .events = {&event, 1}};
  auto result = store->append_durably({.streams = {&part, 1}, .idempotency_key = "request 7"});
  if (!result && result.error().code() == ErrorCode::kConflict)
    return std::move(result).error().context("somebody was faster: read again, decide again");

  return result ? Result<void>() : std::move(result).error();
}

}  // namespace

TEST_CASE("streams.md: an event of one's own", "[docs]") {
  const TemporaryDirectory directory;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  const auto first = append_to_a_stream(), repeated = append_to_a_stream();
  std::filesystem::current_path(before);
  CHECK(first);
  CHECK(repeated);  // by its idempotency key
  const auto read = run_command({MILLRACE_PROGRAM, "stream", "read", "--json", "--store",
                                 directory.path() / "store", "--stream", "cart/9f3a"});
  INFO(read.err);
  CHECK(std::count(read.out.begin(), read.out.end(), '\n') == 1);
  CHECK_THAT(read.out, Catch::Contains("ItemAdded") && Catch::Contains(R"({"sku":"A-1"})"));
}
