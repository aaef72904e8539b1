#pragma once

#include <optional>
#include <string>
#include <vector>

#include "projections/engine/context.h"
#include "projections/engine/quarantine.h"

namespace millrace::projections {

/// Which keys are meant: one, or all that wait.
struct QuarantineChoice {
  std::optional<std::string> category{}, key{};
};

struct RetryReport {
  std::uint64_t folded = 0;   ///< Events that wait no more.
  std::uint64_t skipped = 0;  ///< Events that were left out for good.
  /// Those at which keys still wait, with the new reason.
  std::vector<SetAsideEvent> failed{};
  QuarantineCounts left{};
};

/// Keys that wait for one another: a change of key makes both wait for what either waits for. Each
/// group in the order of the log; its first event, or in a change of key its second, is the one
/// that can't be folded.
std::vector<std::vector<SetAsideEvent>> groups_of(std::vector<SetAsideEvent> events);
/// The event of a group that can't be folded.
const SetAsideEvent& cause_of(const std::vector<SetAsideEvent>& group);

/// What waits in the live generation of `view`; nothing if it was never made. Errors: kNotFound,
/// kIo, kCorruption.
Result<std::vector<SetAsideEvent>> list_set_aside(const View& view, const Context& context);

/// Folds the events that wait, each key's in the order of the log until one still fails, in one
/// transaction with the audit. A worker may run beside; a rebuild may not (kLocked), or what is
/// decided here would be lost with the old generation. An error leaves everything as it was.
Result<RetryReport> retry_set_aside(const View& view, const Context& context,
                                    const QuarantineChoice& choice, const AuditNote& note);

/// The same, but leaves the event that keeps each key waiting out for good, also in every rebuild
/// and verify. If a later one fails too, the key waits for that one.
Result<RetryReport> skip_set_aside(const View& view, const Context& context,
                                   const QuarantineChoice& choice, const AuditNote& note);

}  // namespace millrace::projections
