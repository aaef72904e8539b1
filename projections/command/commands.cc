#include "projections/command/commands.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "projections/command/lines.h"
#include "projections/engine/build.h"
#include "projections/engine/row_check.h"
#include "projections/engine/status.h"
#include "projections/engine/unseen_events.h"
#include "projections/engine/verify.h"
#include "projections/engine/worker.h"

namespace millrace::projections {
namespace {

/// What one thread does for one view; gives its part of the exit code.
///
/// A view that stopped for good has the whole program end, or nobody would ever start it again. The
/// others first fold what there is: should the program be started again and again, they get on.
int run_view(const View& view, const Context& context, const Options& options,
             std::stop_source& finish) {
  Worker worker(view, context,
                {.until_caught_up = options.until_caught_up, .finish = finish.get_token()});
  const auto done = worker.run();
  if (done) return kExitDone;
  report(done.error());
  if (finish.request_stop() && !options.until_caught_up)
    spdlog::error("view {} has stopped: {} ends once its other views have caught up", view.name(),
                  context.program);
  return exit_code_of_work(done.error());
}

BuildHooks shown_on(Progress& line) {
  return {.progress = [&line](Offset done, Offset end) { line.update(done.value, end.value); }};
}

Result<VerifyReport> check_view(const View& view, const Context& context) {
  MILLRACE_RETURN_IF_ERROR(check_sources(view, context));
  Progress line("verify " + view.name(), 0, ProgressUnit::kEvents);
  return verify_view(view, context, shown_on(line));
}

/// " without 2 events that wait in the quarantine and 1 that was skipped"
std::string left_out_text(const QuarantineCounts& left_out) {
  std::string text;
  if (left_out.events != 0)
    text += " without " + grouped(left_out.events) + " events that wait in the quarantine";
  if (left_out.skipped != 0)
    text += std::string(text.empty() ? " without " : " and ") + grouped(left_out.skipped) +
            " that were skipped";
  return text;
}

std::string to_text(const View& view, const VerifyReport& report, const std::string& program) {
  const std::string up_to = " the log up to offset " + std::to_string(report.offset.value) +
                            left_out_text(report.left_out);
  if (report.different == 0)
    return view.name() + ": equal to" + up_to + " (" + grouped(report.compared) + " compared)";
  std::string text = view.name() + ": " + grouped(report.different) + " differences to" + up_to;
  for (const auto& difference : report.differences)
    text += "\n  " + difference.what + " " + difference.key + "\n    view: " + difference.live +
            "\n    log:  " + difference.computed;
  if (report.different > report.differences.size()) text += "\n  ...";
  return text + "\n  To make it anew from the log, run: " + program + " rebuild " + view.name();
}

template <typename... Cells>
std::string table_row(std::size_t width, const std::string& view, const Cells&... cells) {
  char text[160];
  std::snprintf(text, sizeof text, "  %-10s %10s %7s %14s %12s %12s %12s", cells.c_str()...);
  return view + std::string(width - view.size(), ' ') + text;
}

std::string sink_line(const SinkStatus& sink) {
  std::string text = "also kept in " + sink.where;
  if (sink.shown) text += ", as of offset " + grouped(sink.shown->offset.value);
  if (!sink.shown && sink.failure.empty()) text += ", where it was not written yet";
  return sink.failure.empty() ? text : text + "; not now: " + sink.failure;
}

std::string to_table(const std::vector<ViewStatus>& all, const std::string& program) {
  std::size_t width = 4;
  for (const auto& status : all) width = std::max(width, status.view.size());
  const auto heading = [](const char* text) { return std::string(text); };
  std::string text =
      table_row(width, "view", heading("state"), heading("generation"), heading("version"),
                heading("offset"), heading("lag"), heading("rows"), heading("KiB"));
  for (const auto& status : all) {
    text +=
        '\n' + table_row(width, status.view, status.state, std::to_string(status.generation),
                         std::to_string(status.checkpoint.version.value),
                         grouped(status.checkpoint.offset.value), grouped(status.lag),
                         status.rows ? grouped(*status.rows) : "-", grouped(status.bytes / 1024));
    if (!status.worker.empty()) text += "\n  kept up to date by " + printable(status.worker);
    if (!status.reason.empty()) text += "\n  " + status.reason;
    if (status.shown)
      text += "\n  in memory as of offset " + grouped(status.shown->value) +
              "; its last snapshot is as of the offset above";
    if (status.sink) text += "\n  " + sink_line(*status.sink);
    if (status.quarantine.keys != 0)
      text += "\n  degraded: " + counted(status.quarantine.keys, "key") + " with " +
              counted(status.quarantine.events, "event") + " set aside; `" + program +
              " quarantine list` tells why";
  }
  return text;
}

}  // namespace

Result<void> check_sources(const View& view, const Context& context) {
  for (const auto& source : view.sources())
    MILLRACE_RETURN_IF_ERROR(check_source(view, source, *context.schemas));
  warn_of_unseen_events(view, context);
  return {};
}

std::string to_json(const View& view, const VerifyReport& report) {
  nlohmann::ordered_json json = {{"view", view.name()},
                                 {"equal", report.different == 0},
                                 {"offset", report.offset.value},
                                 {"compared", report.compared},
                                 {"different", report.different},
                                 {"events_set_aside", report.left_out.events},
                                 {"events_skipped", report.left_out.skipped},
                                 {"differences", nlohmann::ordered_json::array()}};
  for (const auto& difference : report.differences)
    json["differences"].push_back({{"what", difference.what},
                                   {"key", difference.key},
                                   {"live", difference.live},
                                   {"computed", difference.computed}});
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int worse(int code, int other) { return code != kExitDone ? code : other; }

int exit_code_of_work(const Error& error) {
  const int code = exit_code_for(error.code());
  return code == kExitUsage ? kExitFailed : code;
}

void report(const Error& error) { spdlog::error("{}", error.to_string()); }

Result<int> run_views(const Views& views, Context context, const Options& options) {
  const StopSignals signals;
  context.stop = signals.token();
  std::vector<int> codes(views.size(), kExitDone);
  std::stop_source finish;
  {
    std::vector<std::jthread> workers;
    for (std::size_t i = 0; i < views.size(); ++i)
      workers.emplace_back([&, i] { codes[i] = run_view(*views[i], context, options, finish); });
  }
  int code = kExitDone;
  for (const int one : codes) code = worse(code, one);
  return code;
}

Result<int> build_view(const Views& views, Context context, const Options& options) {
  const StopSignals signals;
  context.stop = signals.token();
  const View& view = *views.front();
  MILLRACE_RETURN_IF_ERROR(check_sources(view, context));
  Progress line("build " + view.name(), 0, ProgressUnit::kEvents);
  const auto built = build_as_of(view, context, options.as_of, options.into, shown_on(line));
  line.finish();
  if (!built) {
    report(built.error());
    return exit_code_of_work(built.error());
  }
  spdlog::info("view {}: {} made from {} events, as of offset {}", view.name(),
               options.into.string(), grouped(built->checkpoint.events),
               built->checkpoint.offset.value);
  if (built->set_aside.keys != 0)
    spdlog::warn("view {}: {} set aside, in its millrace_quarantine", view.name(),
                 counted(built->set_aside.keys, "key"));
  return kExitDone;
}

Result<int> verify_views(const Views& views, Context context, const Options& options) {
  const StopSignals signals;
  context.stop = signals.token();
  int code = kExitDone;
  Lines lines;
  for (const View* view : views) {
    const auto verified = check_view(*view, context);
    if (!verified) {
      report(verified.error());
      code = worse(code, exit_code_of_work(verified.error()));
      continue;
    }
    MILLRACE_RETURN_IF_ERROR(lines.add(options.json ? to_json(*view, *verified)
                                                    : to_text(*view, *verified, context.program)));
    MILLRACE_RETURN_IF_ERROR(lines.flush());  // the next view may take long
    if (verified->different != 0) code = worse(code, kExitFailed);
  }
  return code;
}

Result<int> show_status(const Views& views, const Context& context, const Options& options) {
  std::vector<ViewStatus> all;
  for (const View* view : views) {
    MILLRACE_ASSIGN_OR_RETURN(ViewStatus status,
                              status_of(*view, context, {.count_rows = options.count_rows}));
    all.push_back(std::move(status));
  }
  Lines lines;
  if (!options.json) MILLRACE_RETURN_IF_ERROR(lines.add(to_table(all, context.program)));
  if (options.json)
    for (const auto& status : all) MILLRACE_RETURN_IF_ERROR(lines.add(to_json(status)));
  MILLRACE_RETURN_IF_ERROR(lines.flush());
  return kExitDone;
}

Result<int> wait_for_views(const Views& views, Context context, const Options& options) {
  const StopSignals signals;
  const auto begin = std::chrono::steady_clock::now();
  for (const View* view : views) {
    std::optional<std::chrono::milliseconds> rest;
    if (options.timeout)
      rest = std::max(std::chrono::milliseconds(0),
                      *options.timeout - std::chrono::duration_cast<std::chrono::milliseconds>(
                                             std::chrono::steady_clock::now() - begin));
    MILLRACE_ASSIGN_OR_RETURN(const bool folded,
                              wait_until_folded({context.store, context.views, view->name()},
                                                options.wait, rest, signals.token()));
    if (folded) continue;
    spdlog::error(
        "view {} does not show it after {} s; `{} status` tells how far it is, and whether a "
        "process "
        "keeps it up to date",
        view->name(), options.timeout->count() / 1000, context.program);
    return kExitFailed;
  }
  return kExitDone;
}

Result<int> roll_back_views(const Views& views, Context context) {
  const StopSignals signals;
  context.stop = signals.token();
  int code = kExitDone;
  for (const View* view : views) {
    const auto rolled_back = roll_back(*view, context);
    if (rolled_back) {
      spdlog::info("view {}: generation {} is live again, as of offset {}", view->name(),
                   rolled_back->generation, rolled_back->checkpoint.offset.value);
      continue;
    }
    report(rolled_back.error());
    code = worse(code, exit_code_of_work(rolled_back.error()));
  }
  return code;
}

Result<int> describe_views(const Views& views) {
  Lines lines;
  for (const View* view : views) {
    std::string text = view->name() + "\n  ";
    for (const char c : view->shape()) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
    while (text.ends_with(' ') || text.ends_with('\n')) text.pop_back();
    if (view->sink() != nullptr)
      text += "\n  kept in " + view->sink()->describe(view->sink_shape()) + " as well";
    MILLRACE_RETURN_IF_ERROR(lines.add(text));
  }
  MILLRACE_RETURN_IF_ERROR(lines.flush());
  return kExitDone;
}

}  // namespace millrace::projections
