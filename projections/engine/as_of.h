#pragma once

#include <optional>
#include <string_view>
#include <variant>

#include "base/clock.h"
#include "projections/engine/build.h"
#include "projections/engine/context.h"
#include "schemas/lsn.h"

namespace millrace::projections {

/// A moment of the log: the events below an offset, what the source had committed when its WAL was
/// at an LSN, or what was committed up to a time.
using AsOf = std::variant<Offset, Lsn, UnixMicros>;

/// "1204", "0/1C0ED5F8" or "2026-01-01T10:00:00Z". kInvalidArgument if it is none of them.
Result<AsOf> parse_as_of(std::string_view text);

/// The offset below which the events of that moment lie: whole transactions, in the order of the
/// log.
///
/// For an LSN they are those before the first one whose commit record starts there or later; for a
/// time, those before the first one that was committed later. Commit times need not ascend: what
/// lies behind that one is left out, also if it is older.
///
/// kInvalidArgument if the store does not reach so far, or if an offset lies within a transaction.
/// kGone if the log lacks events below it: they may have counted then.
Result<Offset> offset_as_of(const Context& context, const AsOf& moment);

/// Builds `view` as of that moment, or else as of the end, into a new file, beside everything else.
/// Events that were skipped in the live view are left out; others that its function can't take are
/// set aside in the file.
///
/// kConflict if the file is there already; else as offset_as_of() and the fold.
Result<BuildReport> build_as_of(const View& view, const Context& context,
                                const std::optional<AsOf>& moment, const Path& file,
                                const BuildHooks& hooks = {});

}  // namespace millrace::projections
