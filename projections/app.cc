#include "projections/app.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "base/output.h"
#include "projections/command/commands.h"
#include "projections/command/options.h"

namespace millrace::projections {
namespace {

using OwnedViews = std::vector<std::unique_ptr<View>>;

Result<void> check_declarations(const OwnedViews& views) {
  if (views.empty())
    return Error(ErrorCode::kInvalidArgument, "the program declares no view")
        .hint("Call app.add(...) before app.main().");
  for (auto view = views.begin(); view != views.end(); ++view) {
    MILLRACE_RETURN_IF_ERROR((*view)->check());
    if (std::any_of(views.begin(), view,
                    [&](const auto& earlier) { return earlier->name() == (*view)->name(); }))
      return Error(ErrorCode::kInvalidArgument, "two views are named '" + (*view)->name() + "'");
  }
  return {};
}

Result<Views> chosen(const OwnedViews& views, const std::vector<std::string>& names) {
  Views out;
  std::string there;
  for (const auto& view : views) {
    there += (there.empty() ? "" : ", ") + view->name();
    if (names.empty() || std::find(names.begin(), names.end(), view->name()) != names.end())
      out.push_back(view.get());
  }
  for (const auto& name : names)
    if (std::none_of(views.begin(), views.end(),
                     [&](const auto& view) { return view->name() == name; }))
      return Error(ErrorCode::kInvalidArgument,
                   "there is no view '" + name + "'; the program has: " + there);
  return out;
}

Result<int> print_help(const std::string& program) {
  Output output;
  output.text() = help_text(program);
  if (auto written = output.flush(); !written && written.error().code() != ErrorCode::kCancelled)
    return std::move(written).error();
  return kExitDone;
}

Result<int> execute(const std::string& program, const OwnedViews& views, const Options& options) {
  MILLRACE_RETURN_IF_ERROR(check_declarations(views));
  MILLRACE_ASSIGN_OR_RETURN(const Views picked, chosen(views, options.names));
  if (options.command == Command::kDescribe) return describe_views(picked);
  MILLRACE_RETURN_IF_ERROR(check_store(options.store));
  MILLRACE_ASSIGN_OR_RETURN(const auto schemas, SchemaRegistry::open_read_only(options.store));
  const Context context{
      .store = options.store, .views = options.views, .program = program, .schemas = schemas.get()};
  switch (options.command) {
    case Command::kRun: return run_views(picked, context, options);
    case Command::kRebuild: return rebuild_views(picked, context, options);
    case Command::kVerify: return verify_views(picked, context, options);
    case Command::kStatus: return show_status(picked, context, options);
    case Command::kWait: return wait_for_views(picked, context, options);
    case Command::kRollback: return roll_back_views(picked, context);
    case Command::kBuild: return build_view(picked, context, options);
    case Command::kQuarantine: return quarantine(picked, context, options);
    case Command::kDescribe:
    case Command::kHelp: break;
  }
  return kExitDone;
}

}  // namespace

int App::main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that goes away is an error of write()
  const auto options = parse_options(argc, argv);
  auto done = [&]() -> Result<int> {
    if (auto started = start_logging(options ? options->log_level : "info"); !started) {
      MILLRACE_RETURN_IF_ERROR(start_logging("info"));  // or there would be nowhere to say so
      return std::move(started).error();
    }
    if (!options) return options.error();
    if (options->command == Command::kHelp) return print_help(name_);
    return execute(name_, views_, *options);
  }();
  if (done) return *done;
  report(done.error());
  return exit_code_for(done.error().code());
}

}  // namespace millrace::projections
