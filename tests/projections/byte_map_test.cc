#include "projections/relational/byte_map.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "tests/support/catch.h"

namespace millrace::projections::internal {
namespace {

using Model = std::map<std::string, std::optional<std::string>>;

std::optional<std::string> copy_of(std::optional<std::string_view> value) {
  return value ? std::optional<std::string>(*value) : std::nullopt;
}

Model content(const std::vector<const ByteMap::Entry*>& entries) {
  Model rows;
  for (const auto* entry : entries)
    REQUIRE(rows.emplace(entry->key(), copy_of(entry->value())).second);
  return rows;
}

TEST_CASE("a byte map is what was put into it", "[projections][byte_map]") {
  const auto seed = GENERATE(1u, 2u, 3u);
  std::minstd_rand random(seed);
  const auto number = [&](int below) {
    return std::uniform_int_distribution<int>(0, below - 1)(random);
  };
  ByteMap map;
  Model model;
  for (int step = 0; step < 30'000; ++step) {
    const std::string key = number(50) == 0
                                ? std::string(static_cast<std::size_t>(number(300)), 'k')
                                : std::to_string(number(4'000));
    // Also values that are larger than a piece of memory, and than what is put off.
    const int size = number(2'000) == 0 ? 3'000'000 : number(20) == 0 ? number(5'000) : number(90);
    std::optional<std::string> value;
    if (number(8) > 0)
      value = std::string(static_cast<std::size_t>(size), static_cast<char>(number(256)));
    switch (number(10)) {
      case 0: {
        const auto* entry = map.find(key);
        const auto there = model.find(key);
        REQUIRE((entry != nullptr) == (there != model.end()));
        if (entry != nullptr) REQUIRE(copy_of(entry->value()) == there->second);
        break;
      }
      case 1:
        map.put(key, value);
        model[key] = value;
        break;
      default: map.put_soon(key, value); model[key] = value;
    }
    if (number(8'000) == 0) {
      REQUIRE(content(map.entries()) == model);
      map.clear();
      model.clear();
      REQUIRE(map.empty());
      REQUIRE(map.find(key) == nullptr);
    }
    REQUIRE(map.empty() == model.empty());
  }
  CHECK(content(map.entries()) == model);
  CHECK(content(map.in_order()) == model);
  CHECK(content(map.in_order(ByteMap::Order::kLength)) == model);
}

TEST_CASE("a byte map gives its entries in the order of bytes, of numbers, and as they came",
          "[projections][byte_map]") {
  ByteMap map;
  const std::vector<std::string> keys{
      "9", "10", "", "100000001", "100000000", "99", std::string("\0", 1), "\xff", "1"};
  for (const std::string& key : keys) map.put(key, key);
  const auto keys_of = [](const std::vector<const ByteMap::Entry*>& entries) {
    std::vector<std::string> found;
    for (const auto* entry : entries) found.emplace_back(entry->key());
    return found;
  };
  CHECK(keys_of(map.entries()) == keys);
  std::vector<std::string> sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  CHECK(keys_of(map.in_order()) == sorted);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& left, const auto& right) { return left.size() < right.size(); });
  CHECK(keys_of(map.in_order(ByteMap::Order::kLength)) == sorted);
}

TEST_CASE("a byte map tells the memory that it has, and gives it back", "[projections][byte_map]") {
  ByteMap map;
  for (int i = 0; i < 100'000; ++i) map.put_soon(std::to_string(i), std::string(100, 'x'));
  CHECK(map.bytes() > 100'000 * 105);
  CHECK(map.bytes() < 100'000 * 160);
  const std::size_t before = map.bytes();
  for (int i = 0; i < 100'000; ++i) map.put_soon(std::to_string(i), std::string(100, 'y'));
  CHECK(map.bytes() == before);  // in the same places
  map.clear();
  CHECK(map.bytes() == 0);
  // What grows again and again takes a multiple of its size, not its square.
  for (std::size_t size = 1; size < 20'000; ++size) map.put("key", std::string(size, 'x'));
  CHECK(map.bytes() < 1'000'000);
}

}  // namespace
}  // namespace millrace::projections::internal
