#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace millrace::sim {

inline constexpr std::size_t kArguments = 4;
using Arguments = std::array<std::uint32_t, kArguments>;

/// One operation and what it draws from. Zeros are the simplest case of every operation.
struct Step {
  std::size_t operation = 0;  ///< Index into operations().
  Arguments arguments{};
};

/// Everything that a run does. No other randomness: the same steps are the same run.
using Trace = std::vector<Step>;

/// The trace of a seed. Each seed leaves out some operations and likes others (swarm testing).
Trace trace_of(std::uint64_t seed);

/// A line for each step: the operation's name and its arguments. `#` starts a comment.
std::string to_text(const Trace& trace);
Result<Trace> parse_trace(const std::string& text);

}  // namespace millrace::sim
