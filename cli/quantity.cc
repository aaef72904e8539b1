#include "cli/quantity.h"

#include <limits>
#include <span>
#include <string>

#include "base/bytes.h"
#include "cli/text.h"

namespace millrace {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t size;
};
constexpr Unit kAges[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
constexpr Unit kSizes[] = {
    {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40}};

Result<std::uint64_t> parse(std::string_view option, std::string_view text,
                            std::span<const Unit> units, std::string_view example) {
  const auto wrong = [&] {
    return Error(ErrorCode::kInvalidArgument, std::string(option) + " is '" + printable(text) +
                                                  "', not a quantity like " + std::string(example));
  };
  Unit unit{{}, 1};
  for (const Unit& one : units)
    if (text.ends_with(one.name)) unit = one;
  const auto number = parse_number(option, text.substr(0, text.size() - unit.name.size()));
  if (!number || *number > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / unit.size)
    return wrong();
  return *number * unit.size;
}

}  // namespace

Result<std::chrono::seconds> parse_age(std::string_view option, std::string_view text) {
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t seconds, parse(option, text, kAges, "30d or 90s"));
  return std::chrono::seconds(static_cast<std::int64_t>(seconds));
}

Result<std::uint64_t> parse_bytes(std::string_view option, std::string_view text) {
  return parse(option, text, kSizes, "10GiB or 500MiB");
}

std::string bytes_text(std::uint64_t bytes) {
  Unit best{{}, 1};
  for (const Unit& unit : kSizes)
    if (bytes != 0 && bytes % unit.size == 0) best = unit;
  return std::to_string(bytes / best.size) + std::string(best.name);
}

}  // namespace millrace
