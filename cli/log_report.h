#pragma once

#include <array>
#include <map>
#include <string>

#include "base/result.h"
#include "eventstore/inspect.h"

namespace millrace {

/// The operations of an event's JSON, in the order of a report's columns.
inline constexpr std::string_view kOperations = "crudtma";

struct EventCounts {
  std::array<std::uint64_t, kOperations.size()> by_operation{};
  std::uint64_t events = 0;
  std::uint64_t bytes = 0;  ///< Of key, type, payload and metadata.
};

/// By category, sorted by its bytes.
using CategoryCounts = std::map<std::string, EventCounts, std::less<>>;

/// Reads the whole log, with progress on a terminal.
Result<CategoryCounts> count_events(const Path& store);

/// Renders every event of the log and adds a fault for each that can't be; after the first twenty,
/// they are counted in one fault.
Result<void> verify_events(const Path& store, VerifyReport& report);

std::string stat_text(const StoreSummary& store, const CategoryCounts& counts);
std::string stat_json(const StoreSummary& store, const CategoryCounts& counts);
std::string verify_text(const VerifyReport& report);
std::string verify_json(const VerifyReport& report);

}  // namespace millrace
