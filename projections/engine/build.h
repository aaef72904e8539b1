#pragma once

#include <chrono>
#include <functional>
#include <string_view>

#include "projections/engine/comparison.h"
#include "projections/engine/context.h"
#include "projections/engine/fold.h"

namespace millrace::projections {

struct BuildHooks {
  /// With each batch of the log that was folded.
  std::function<void(Offset done, Offset end)> progress{};
  /// At each step that leaves something new on disk, by name; for tests that stop there for good.
  std::function<void(std::string_view)> at_step{};
  /// Before the switch, with what differs between the live generation and the new one, both as of
  /// the same offset. The new one is dropped if this is false. Not called where nothing is live.
  /// The worker waits meanwhile, and the new generation is folded only as far as the live one is.
  std::function<bool(const VerifyReport&)> may_switch{};
  /// Events that were skipped are folded like all others: the decision is taken back.
  bool with_skipped = false;
  /// A SQLite transaction of the bulk fold takes in this many events. Larger: faster where the same
  /// pages change again and again; costs memory for each page that is changed.
  std::uint64_t events_per_commit = 200'000;
};

struct BuildReport {
  std::uint32_t generation = 0;
  Checkpoint checkpoint;
  QuarantineCounts set_aside{};
  bool switched = true;  ///< False if BuildHooks::may_switch said no.
  std::chrono::steady_clock::duration elapsed{};
};

/// Folds the log from offset zero into the next generation of `view`, beside the live one if there
/// is one, and makes it the live one once it has folded at least as much. Readers of the old one
/// keep it until they open anew.
///
/// A worker on the live generation goes on meanwhile. The switch happens while this holds the live
/// file's write lock, so that the worker, which looks at the link whenever it gets that lock, never
/// writes to a generation that nobody sees any more, and no reader ever sees the view go back.
///
/// Events that were skipped in the live generation are left out again; any other that its function
/// can't take is set aside in the new one.
///
/// Killed at any step, the old generation stays live and the next call starts again. Errors:
/// kLocked (another rebuild), kCancelled (stop was asked), those of the fold.
Result<BuildReport> build_generation(const View& view, const Context& context,
                                     const BuildHooks& hooks = {});

/// Brings the generation before the live one up to date and makes it the live one again, as a
/// rebuild does with a new one. The one that was live stays until the next rebuild.
///
/// kNotFound if there is none; kFailedPrecondition if it is of another version or shape than
/// `view` declares: roll the program back first. Else as build_generation().
Result<BuildReport> roll_back(const View& view, const Context& context,
                              const BuildHooks& hooks = {});

/// Gives the events from where `fold` stands up to `until`, the end of a source transaction, to it.
/// For files that nobody else sees: a commit now and then falls wherever it falls, also in the
/// middle of a source transaction, so that a huge one does not have to fit into SQLite's journal,
/// which these files have in memory. kCancelled if stop was asked.
Result<void> fold_until(Fold& fold, sqlite::Database& database, const View& view,
                        const Context& context, Offset until, std::uint64_t events_per_commit,
                        const std::function<void()>& progress);

/// Makes the tables of `view` in a new file, with the settings for filling it, and unless
/// `with_skipped` takes over what was decided about events in the live generation's quarantine.
Result<Checkpoint> begin_file(const View& view, const Context& context, sqlite::Database& database,
                              bool with_skipped = false);

}  // namespace millrace::projections
