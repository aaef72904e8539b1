#include "projections/engine/verify.h"

#include "projections/engine/continuation.h"
#include "projections/engine/fold.h"
#include "projections/engine/verify_sink.h"

namespace millrace::projections {
namespace {

using sqlite::Database;
using sqlite::Mode;

/// What was set aside or skipped in the live view is left out here too.
Result<void> compute(const View& view, const Context& context, Database& live, Database& scratch,
                     Offset until, const BuildHooks& hooks) {
  MILLRACE_ASSIGN_OR_RETURN(const auto set_aside, read_set_aside(live));
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint start, begin_file(view, context, scratch));
  MILLRACE_ASSIGN_OR_RETURN(const auto fold, Fold::make(view, scratch, *context.schemas, start));
  fold->leave_out(set_aside);
  return fold_until(*fold, scratch, view, context, until, hooks.events_per_commit, [&] {
    if (hooks.progress) hooks.progress(fold->checkpoint().offset, until);
  });
}

Result<VerifyReport> compare(const View& view, const Context& context, Database& live,
                             const BuildHooks& hooks) {
  // From here on `live` sees the file as of one commit.
  MILLRACE_RETURN_IF_ERROR(live.begin());
  MILLRACE_ASSIGN_OR_RETURN(const Checkpoint checkpoint, read_checkpoint(live));
  MILLRACE_RETURN_IF_ERROR(continue_from(view, context, checkpoint));
  const Path file = context.generations(view).scratch();
  MILLRACE_ASSIGN_OR_RETURN(const auto scratch, Database::open(file, Mode::kBulk, context.stop));
  MILLRACE_RETURN_IF_ERROR(compute(view, context, live, *scratch, checkpoint.offset, hooks));
  VerifyReport report{.offset = checkpoint.offset, .differences = {}};
  MILLRACE_ASSIGN_OR_RETURN(report.left_out, count_set_aside(live));
  MILLRACE_RETURN_IF_ERROR(compare_views(view, live, *scratch, report));
  return report;
}

}  // namespace

Result<VerifyReport> verify_view(const View& view, const Context& context,
                                 const BuildHooks& hooks) {
  const Generations generations = context.generations(view);
  MILLRACE_ASSIGN_OR_RETURN(const auto generation, generations.live());
  if (!generation)
    return Error(ErrorCode::kNotFound,
                 "view " + view.name() + " was never made in " + context.views.string())
        .hint("Make it with `" + context.program + " run`, or with `" + context.program +
              " rebuild`.");
  MILLRACE_ASSIGN_OR_RETURN(const auto lock, generations.lock_verify(context.holder("verify")));
  MILLRACE_RETURN_IF_ERROR(
      generations.remove_file(generations.scratch()));  // a killed verify may have left one
  MILLRACE_ASSIGN_OR_RETURN(const auto live, Database::open(generations.file(*generation),
                                                            Mode::kReadOnly, context.stop));
  auto report = compare(view, context, *live, hooks);
  MILLRACE_RETURN_IF_ERROR(generations.remove_file(generations.scratch()));
  if (report && view.sink() != nullptr)
    MILLRACE_RETURN_IF_ERROR(verify_sink(view, context, generations.file(*generation), *report));
  return report;
}

}  // namespace millrace::projections
