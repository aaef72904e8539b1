#include "projections/sink.h"

#include <string>
#include <utility>
#include <vector>

#include "tests/support/catch.h"

namespace millrace::projections {
namespace {

TEST_CASE("a numeric column is the same however its number is written", "[sink]") {
  const std::string zeros(23, '0');
  const auto is_same = [](const std::string& here, const std::string& there) {
    return same_in_sink(numeric("spent"), here, there);
  };
  for (const auto& [here, there] :
       std::vector<std::pair<std::string, std::string>>{{"1e+05", "100000"},
                                                        {"1e+05", "100000.00"},
                                                        {"-1.25e+05", "-125000"},
                                                        {"1e-05", "0.00001"},
                                                        {"-2.5e-07", "-0.00000025"},
                                                        {"1e+23", "1" + zeros},
                                                        {"1.50", "1.5"},
                                                        {"-0", "0"},
                                                        {"inf", "Infinity"},
                                                        {"-inf", "-Infinity"},
                                                        {"nan", "NaN"}}) {
    INFO(here << " " << there);
    CHECK(is_same(here, there));
    CHECK(is_same(there, here));
  }
  for (const auto& [here, there] :
       std::vector<std::pair<std::string, std::string>>{{"1e+05", "1000000"},
                                                        {"1e+05", "100000.01"},
                                                        {"1e-05", "0.000011"},
                                                        {"inf", "-Infinity"},
                                                        {"1e+05", "1e"},
                                                        {"1e+05", "1e5x"},
                                                        {"1e+05", "1e99999999999"},
                                                        {"1e+05", ""},
                                                        {"", "0"},
                                                        {"e", "0"}}) {
    INFO(here << " " << there);
    CHECK_FALSE(is_same(here, there));
    CHECK_FALSE(is_same(there, here));
  }
  CHECK_FALSE(same_in_sink(numeric("spent"), "0", std::nullopt));
  CHECK_FALSE(same_in_sink(text("name"), "1e+05", "100000"));
}

}  // namespace
}  // namespace millrace::projections
