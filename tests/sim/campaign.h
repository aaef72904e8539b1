#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/sim/probes.h"
#include "tests/sim/trace.h"

namespace millrace::sim {

/// How a run ended. A process that died or hung is a failed check as well.
struct Outcome {
  bool failed = false;
  std::string checker;  ///< Which check; "signal 6", "hang" for a process that came to that.
  std::string message;
  std::uint64_t hash = 0;
};

/// Runs a trace in a process of its own.
Outcome run_in_child(const Trace& trace);

struct Campaign {
  std::uint64_t from = 1;
  std::uint64_t seeds = 0;
  unsigned jobs = 1;
  /// Called now and then with the number of seeds that are done.
  std::function<void(std::uint64_t)> progress;
};

struct CampaignResult {
  std::uint64_t done = 0;
  std::uint64_t failed_seed = 0;
  Outcome outcome;  ///< Of the failed seed, if one failed: the first ends the campaign.
  std::array<std::uint64_t, kProbes> probes{};
};

/// Runs seeds in several processes. Every hundredth runs twice and has to do the same twice.
CampaignResult run_campaign(const Campaign& campaign);

/// The smallest trace that was found within `seconds` for which the same check fails.
Trace shrink(Trace trace, const std::string& checker, int seconds);

}  // namespace millrace::sim
