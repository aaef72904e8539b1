#pragma once

#include <string_view>

#include "base/result.h"

namespace millrace {

/// Sends spdlog's default logger to stderr, one line a message, at `level` ("trace", "debug",
/// "info", "warn", "error", "off"). A stderr that is full or closed never stops the program: to a
/// pipe or socket that nobody reads, lines are dropped, and their number is told when it is read
/// again. Log with spdlog itself: `spdlog::info("slot {} created", printable(name))`.
Result<void> start_logging(std::string_view level);

}  // namespace millrace
