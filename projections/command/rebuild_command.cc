#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "projections/command/commands.h"
#include "projections/command/lines.h"
#include "projections/engine/build.h"

namespace millrace::projections {
namespace {

/// Views that are rebuilt at once: each may gather as much as an eighth of the machine's memory.
constexpr std::size_t kJobsMax = 4;

std::string diff_json(const View& view, const VerifyReport& report, bool switches) {
  auto json = nlohmann::ordered_json::parse(to_json(view, report));
  json["switched"] = switches;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string diff_text(const View& view, const VerifyReport& report, bool switches) {
  const std::string as_of = " as of offset " + std::to_string(report.offset.value);
  if (report.different == 0)
    return view.name() + ": the new generation equals the live one" + as_of + " (" +
           grouped(report.compared) + " compared)";
  std::string text = view.name() + ": " + grouped(report.different) +
                     " differences of the new generation to the live one" + as_of;
  for (const auto& difference : report.differences)
    text += "\n  " + difference.what + " " + difference.key + "\n    live: " + difference.live +
            "\n    new:  " + difference.computed;
  if (report.different > report.differences.size()) text += "\n  ...";
  return text + (switches ? "" : "\n  The live one stays; --diff --switch switches over.");
}

void tell_of(const View& view, const BuildReport& built, const Context& context) {
  const double seconds = std::chrono::duration<double>(built.elapsed).count();
  if (built.switched)
    spdlog::info("view {}: generation {} made from {} events in {:.1f} s and now live", view.name(),
                 built.generation, grouped(built.checkpoint.events), seconds);
  if (built.switched && built.set_aside.keys != 0)
    spdlog::warn("view {}: {} set aside; `{} quarantine list {}` tells why", view.name(),
                 counted(built.set_aside.keys, "key"), context.program, view.name());
}

/// Rebuilds, several at once, and what they say. Threads: rebuild_all() once.
class Rebuilds {
 public:
  Rebuilds(const Views& views, const Context& context, const Options& options)
      : views_(views),
        context_(context),
        options_(options),
        line_(views.size() == 1 ? "rebuild " + views.front()->name()
                                : "rebuild " + std::to_string(views.size()) + " views",
              0, ProgressUnit::kEvents),
        progress_(views.size()),
        codes_(views.size(), kExitDone) {}

  Result<int> rebuild_all() {
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
    const std::size_t jobs = options_.jobs != 0 ? options_.jobs : std::min(cores, kJobsMax);
    {
      std::vector<std::jthread> others;
      for (std::size_t i = 1; i < std::min(jobs, views_.size()); ++i)
        others.emplace_back([this] { work(); });
      work();
    }
    MILLRACE_RETURN_IF_ERROR(printed_);
    int code = kExitDone;
    for (const int one : codes_) code = worse(code, one);
    return code;
  }

 private:
  struct Folded {
    std::uint64_t done = 0, end = 0;
  };

  void work() {
    for (std::size_t place = next_++; place < views_.size(); place = next_++)
      codes_[place] = rebuild(place);
  }

  int rebuild(std::size_t place) {
    const View& view = *views_[place];
    const auto known = check_sources(view, context_);
    const auto built = known ? build_generation(view, context_, hooks(place)) : known.error();
    const std::lock_guard lock(mutex_);
    line_.finish();
    // Not before: who reads these lines slowly must not keep the live view's file locked.
    if (auto printed = lines_.flush(); !printed && printed_) printed_ = std::move(printed);
    if (!built) {
      report(built.error());
      return exit_code_of_work(built.error());
    }
    tell_of(view, *built, context_);
    return built->switched ? kExitDone : kExitFailed;
  }

  BuildHooks hooks(std::size_t place) {
    BuildHooks hooks;
    hooks.with_skipped = options_.with_skipped;
    hooks.progress = [this, place](Offset done, Offset end) {
      show(place, {done.value, end.value});
    };
    if (options_.diff)
      hooks.may_switch = [this, place](const VerifyReport& report) {
        return print(*views_[place], report);
      };
    return hooks;
  }

  void show(std::size_t place, Folded folded) {
    const std::lock_guard lock(mutex_);
    progress_[place] = folded;
    Folded all;
    for (const Folded& one : progress_) {
      all.done += one.done;
      // Of one whose turn is yet to come, the log is as long as that of the others.
      all.end += one.end != 0 ? one.end : folded.end;
    }
    line_.update(all.done, all.end);
  }

  /// What can't be printed of a comparison is an error only once the work is done.
  bool print(const View& view, const VerifyReport& report) {
    const bool switches = report.different == 0 || options_.switch_over;
    const std::lock_guard lock(mutex_);
    line_.finish();
    auto printed = lines_.add(options_.json ? diff_json(view, report, switches)
                                            : diff_text(view, report, switches));
    if (!printed && printed_) printed_ = std::move(printed);
    return switches;
  }

  const Views& views_;
  const Context& context_;
  const Options& options_;
  std::atomic<std::size_t> next_ = 0;
  std::mutex mutex_;  // guards what follows but codes_, of which each thread has its own
  Progress line_;
  std::vector<Folded> progress_;
  Lines lines_;
  Result<void> printed_;
  std::vector<int> codes_;
};

}  // namespace

Result<int> rebuild_views(const Views& views, Context context, const Options& options) {
  const StopSignals signals;
  context.stop = signals.token();
  return Rebuilds(views, context, options).rebuild_all();
}

}  // namespace millrace::projections
