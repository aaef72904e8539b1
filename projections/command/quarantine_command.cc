#include <pwd.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/counted.h"
#include "base/progress.h"
#include "base/stop_signals.h"
#include "projections/command/commands.h"
#include "projections/command/lines.h"
#include "projections/engine/retry.h"

namespace millrace::projections {
namespace {

/// A key that waits, and for what.
struct WaitingKey {
  std::uint64_t events = 0;
  const SetAsideEvent* first = nullptr;
  const SetAsideEvent* cause = nullptr;  ///< May be of another key.
};

std::string operator_of(const Context& context, std::string_view command) {
  const passwd* user = ::getpwuid(::geteuid());
  return (user != nullptr ? std::string(user->pw_name) : std::to_string(::geteuid())) + ", " +
         context.holder(command);
}

std::string to_json(const View& view, const WaitingKey& key) {
  const nlohmann::ordered_json json = {{"view", view.name()},
                                       {"category", key.first->category},
                                       {"key", key.first->key},
                                       {"events", key.events},
                                       {"offset", key.cause->offset.value},
                                       {"cause_category", key.cause->category},
                                       {"cause_key", key.cause->key},
                                       {"reason", key.cause->reason.value_or("")},
                                       {"attempts", key.cause->attempts},
                                       {"first_failed", to_iso8601(key.cause->first_failed)},
                                       {"last_failed", to_iso8601(key.cause->last_failed)}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string to_text(const View& view, const WaitingKey& key) {
  const SetAsideEvent& cause = *key.cause;
  std::string text =
      view.name() + ": " + printable(key.first->category) + " key '" + printable(key.first->key) +
      "' waits with " + grouped(key.events) + (key.events == 1 ? " event" : " events") + " since " +
      to_iso8601(cause.first_failed) + "\n  event at offset " + std::to_string(cause.offset.value);
  if (cause.key != key.first->key) text += " of key '" + printable(cause.key) + "'";
  text += ": " + cause.reason.value_or("");
  if (cause.attempts > 1) text += " (tried " + std::to_string(cause.attempts) + " times)";
  return text;
}

Result<void> show(const View& view, const Context& context, bool json, Lines& lines) {
  MILLRACE_ASSIGN_OR_RETURN(auto events, list_set_aside(view, context));
  for (const auto& group : groups_of(std::move(events))) {
    std::map<std::pair<std::string, std::string>, WaitingKey> keys;
    for (const SetAsideEvent& event : group) {
      WaitingKey& key = keys[{event.category, event.key}];
      if (key.events++ == 0) key.first = &event;
      key.cause = &cause_of(group);
    }
    for (const auto& [name, key] : keys)
      MILLRACE_RETURN_IF_ERROR(lines.add(json ? to_json(view, key) : to_text(view, key)));
  }
  return {};
}

std::string to_json(const View& view, const RetryReport& report) {
  nlohmann::ordered_json json = {{"view", view.name()},
                                 {"folded", report.folded},
                                 {"skipped", report.skipped},
                                 {"keys_set_aside", report.left.keys},
                                 {"events_set_aside", report.left.events},
                                 {"failed", nlohmann::ordered_json::array()}};
  for (const SetAsideEvent& event : report.failed)
    json["failed"].push_back({{"category", event.category},
                              {"key", event.key},
                              {"offset", event.offset.value},
                              {"reason", event.reason.value_or("")}});
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string to_text(const View& view, const RetryReport& report) {
  std::string text = view.name() + ": " + counted(report.folded, "event") + " folded, " +
                     grouped(report.skipped) +
                     " skipped; still set aside: " + counted(report.left.keys, "key") + " with " +
                     counted(report.left.events, "event");
  for (const SetAsideEvent& event : report.failed)
    text += "\n  event at offset " + std::to_string(event.offset.value) + " of " +
            printable(event.category) + ", key '" + printable(event.key) +
            "', still can't be folded: " + event.reason.value_or("");
  return text;
}

Result<int> list(const Views& views, const Context& context, bool json) {
  Lines lines;
  int code = kExitDone;
  for (const View* view : views) {
    const auto shown = show(*view, context, json, lines);
    if (shown) continue;
    report(shown.error());
    code = worse(code, exit_code_of_work(shown.error()));
  }
  MILLRACE_RETURN_IF_ERROR(lines.flush());
  return code;
}

}  // namespace

Result<int> quarantine(const Views& views, Context context, const Options& options) {
  if (options.verb == QuarantineVerb::kList) return list(views, context, options.json);
  const StopSignals signals;
  context.stop = signals.token();
  const bool skips = options.verb == QuarantineVerb::kSkip;
  const AuditNote note{operator_of(context, skips ? "quarantine skip" : "quarantine retry"),
                       options.reason};
  int code = kExitDone;
  std::uint64_t found = 0;
  Lines lines;
  for (const View* view : views) {
    const auto report_of_view = skips ? skip_set_aside(*view, context, options.choice, note)
                                      : retry_set_aside(*view, context, options.choice, note);
    if (!report_of_view) {
      report(report_of_view.error());
      if (code == kExitDone) code = exit_code_of_work(report_of_view.error());
      continue;
    }
    const RetryReport& done = *report_of_view;
    found += done.folded + done.skipped + done.failed.size();
    MILLRACE_RETURN_IF_ERROR(lines.add(options.json ? to_json(*view, done) : to_text(*view, done)));
    if (!done.failed.empty() && code == kExitDone) code = kExitFailed;
  }
  MILLRACE_RETURN_IF_ERROR(lines.flush());
  if (found > 0 || code != kExitDone || !options.choice.key) return code;
  return Error(ErrorCode::kNotFound, "no event of " + printable(*options.choice.category) +
                                         ", key '" + printable(*options.choice.key) +
                                         "', waits in these views")
      .hint("`" + context.program + " quarantine list` shows what does.");
}

}  // namespace millrace::projections
