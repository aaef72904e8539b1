#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "projections/command/options.h"
#include "projections/engine/comparison.h"
#include "projections/engine/context.h"
#include "projections/view.h"

namespace millrace::projections {

using Views = std::vector<const View*>;

// The subcommands. Each gives the exit code; an error is for what keeps the whole command from
// being done, what concerns one view is logged and counts in the code.

/// Until SIGTERM or SIGINT, or until a view has stopped for good and the others have caught up.
Result<int> run_views(const Views& views, Context context, const Options& options);
Result<int> rebuild_views(const Views& views, Context context, const Options& options);
Result<int> build_view(const Views& views, Context context, const Options& options);
Result<int> verify_views(const Views& views, Context context, const Options& options);
Result<int> show_status(const Views& views, const Context& context, const Options& options);
Result<int> wait_for_views(const Views& views, Context context, const Options& options);
Result<int> roll_back_views(const Views& views, Context context);
Result<int> quarantine(const Views& views, Context context, const Options& options);
Result<int> describe_views(const Views& views);

/// Whether the store has what a view is made of, as the view expects it.
Result<void> check_sources(const View& view, const Context& context);
std::string to_json(const View& view, const VerifyReport& report);
/// The first code that is not 0 stays.
int worse(int code, int other);
/// Of an error that concerns one view: what went wrong while folding is no wrong command line.
int exit_code_of_work(const Error& error);
/// Logs an error as all commands do.
void report(const Error& error);

}  // namespace millrace::projections
