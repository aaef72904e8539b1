// Sorting more than fits into memory.
#include "capture/state/spill_sorter.h"

#include <filesystem>
#include <map>
#include <random>

#include "tests/support/catch.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace {
namespace {

using test::must;
using test::TemporaryDirectory;

TEST_CASE("records come back by key and order, however many runs they made", "[capture][sorter]") {
  const TemporaryDirectory folder;
  std::minstd_rand random(GENERATE(1U, 2U, 3U));
  const std::size_t memory = GENERATE(std::size_t{200}, std::size_t{20'000}, std::size_t{64} << 20);
  CAPTURE(memory);
  SpillSorter sorter(folder.path(), memory);
  std::map<std::pair<std::string, std::uint64_t>, std::string> model;
  // With the smallest memory that is more runs than are merged at once.
  for (std::uint64_t order = 0; order < 3000; ++order) {
    const std::string key = "key " + std::to_string(random() % 500);
    const std::string value(random() % 300 == 0 ? 100'000 : random() % 50, 'v');
    must(sorter.add({.key = key, .order = order, .replaces = false, .value = value}));
    model[{key, order}] = value;
  }
  CHECK((sorter.spilled_bytes() > 0) == (memory < 1 << 20));
  CHECK(std::filesystem::is_empty(folder.path()));
  for (const auto& [place, value] : model) {
    const auto* record = must(sorter.next());
    REQUIRE(record != nullptr);
    REQUIRE(record->key == place.first);
    REQUIRE(record->order == place.second);
    REQUIRE(record->value == value);
  }
  CHECK(must(sorter.next()) == nullptr);
  CHECK(must(sorter.next()) == nullptr);
  must(sorter.clear());
  CHECK(must(sorter.next()) == nullptr);
}

TEST_CASE("a row that changes a thousand times takes the disk of one", "[capture][sorter]") {
  const TemporaryDirectory folder;
  SpillSorter sorter(folder.path(), 10'000);
  for (std::uint64_t order = 0; order < 100'000; ++order)
    must(sorter.add({.key = "k", .order = order, .replaces = true, .value = "0123456789"}));
  CHECK(sorter.spilled_bytes() < 100'000);
  std::uint64_t last = 0;
  while (const auto* record = must(sorter.next())) last = record->order;
  CHECK(last == 99'999);
}

TEST_CASE("a folder that is not there is named with the way out", "[capture][sorter]") {
  SpillSorter sorter("/nonexistent/folder", 100);
  Result<void> added;
  for (int i = 0; i < 10 && added; ++i)
    added = sorter.add({.key = "k", .value = "0123456789012345678901234567890123456789"});
  REQUIRE_FALSE(added);
  CHECK(added.error().message().find("/nonexistent/folder") != std::string::npos);
  CHECK(added.error().hint().find("--spill") != std::string::npos);
}

}  // namespace
}  // namespace millrace
