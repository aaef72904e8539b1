#include "cli/text.h"

#include "cli/quantity.h"
#include "tests/support/catch.h"

namespace millrace::test {
namespace {

TEST_CASE("a mistyped word finds the one that was meant, a strange one finds none", "[cli]") {
  const std::vector<std::string> words{"log tail", "log stat", "status"};
  CHECK(closest("log tial", words) == "log tail");
  CHECK(closest("statu", words) == "status");
  CHECK(closest("staus", words) == "status");
  CHECK_FALSE(closest("projection", words));
  CHECK_FALSE(closest("", words));
}

TEST_CASE("a number is digits only and fits 64 bits", "[cli]") {
  CHECK(parse_number("limit", "18446744073709551615").value() == ~std::uint64_t{0});
  for (const char* wrong : {"", "-1", "+1", " 1", "1 ", "1e3", "0x10", "18446744073709551616"})
    CHECK_FALSE(parse_number("limit", wrong));
}

TEST_CASE("a table aligns text left and numbers right, by characters", "[cli]") {
  TextTable table({"name", "events"});
  table.add({"größe", "7"});
  table.add({"b", "1,200"});
  std::string text;
  table.append_to(text);
  CHECK(text ==
        "name   events\n"
        "größe       7\n"
        "b       1,200\n");
}

TEST_CASE("B26: a number of bytes is written as it is read", "[cli]") {
  CHECK(bytes_text(0) == "0");
  CHECK(bytes_text(1023) == "1023");
  CHECK(bytes_text(4 << 20) == "4MiB");
  CHECK(bytes_text((4 << 20) + 1024) == "4097KiB");
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1} << 40, std::uint64_t{12345}})
    CHECK(parse_bytes("--rate", bytes_text(bytes)).value() == bytes);
  for (const char* wrong : {"", "x", "-1", "4MB", "4 MiB", "99999999TiB"})
    CHECK_FALSE(parse_bytes("--rate", wrong));
}

}  // namespace
}  // namespace millrace::test
