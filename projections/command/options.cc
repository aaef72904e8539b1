#include "projections/command/options.h"

#include <boost/program_options.hpp>
#include <charconv>
#include <fstream>
#include <map>

#include "base/bytes.h"

namespace millrace::projections {
namespace {

namespace po = boost::program_options;

Error usage(const std::string& what) {
  return Error(ErrorCode::kInvalidArgument, what).hint("Run with --help to see how.");
}

po::options_description settings() {
  po::options_description description;
  description.add_options()("store", po::value<std::string>())("views", po::value<std::string>())(
      "log-level", po::value<std::string>());
  return description;
}

/// MILLRACE_LOG_LEVEL -> log-level; other variables of the name are somebody else's.
std::string option_of_variable(const std::string& variable) {
  static const std::map<std::string, std::string> options = {{"MILLRACE_STORE", "store"},
                                                             {"MILLRACE_VIEWS", "views"},
                                                             {"MILLRACE_LOG_LEVEL", "log-level"}};
  const auto found = options.find(variable);
  return found == options.end() ? "" : found->second;
}

po::variables_map parse(int argc, const char* const* argv) {
  po::options_description all = settings();
  all.add_options()("help,h", po::bool_switch())("config", po::value<std::string>())(
      "all", po::bool_switch())("until-caught-up", po::bool_switch())("json", po::bool_switch())(
      "count-rows", po::bool_switch())("offset", po::value<std::string>())(
      "lsn", po::value<std::string>())("timeout", po::value<std::string>())(
      "with-skipped", po::bool_switch())("jobs", po::value<std::string>())(
      "diff", po::bool_switch())("switch", po::bool_switch())("as-of", po::value<std::string>())(
      "into", po::value<std::string>())("category", po::value<std::string>())(
      "key", po::value<std::string>())("reason", po::value<std::string>())(
      "words", po::value<std::vector<std::string>>());
  po::positional_options_description words;
  words.add("words", -1);
  const auto style =
      po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
  po::variables_map values;
  po::store(po::command_line_parser(argc, argv).options(all).positional(words).style(style).run(),
            values);
  po::store(po::parse_environment(settings(), option_of_variable), values);
  if (values.count("config") != 0) {
    const auto name = values["config"].as<std::string>();
    std::ifstream file(name);
    if (!file) throw po::error("the file given with --config can't be read: " + name);
    po::store(po::parse_config_file(file, settings()), values);
  }
  return values;
}

Result<Command> command_of(const std::string& word) {
  if (word == "run") return Command::kRun;
  if (word == "rebuild") return Command::kRebuild;
  if (word == "verify") return Command::kVerify;
  if (word == "status") return Command::kStatus;
  if (word == "wait") return Command::kWait;
  if (word == "rollback") return Command::kRollback;
  if (word == "describe") return Command::kDescribe;
  if (word == "build") return Command::kBuild;
  if (word == "quarantine") return Command::kQuarantine;
  if (word == "help") return Command::kHelp;
  return usage("there is no command '" + printable(word) +
               "'; the commands are run, rebuild, verify, status, wait, rollback, "
               "build, quarantine, describe");
}

template <typename T>
Result<T> number(const po::variables_map& values, const char* option) {
  const auto& text = values[option].as<std::string>();
  T number{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure == std::errc() && end == text.data() + text.size() && number >= 0) return number;
  return usage(std::string("--") + option + " takes a number, not '" + printable(text) + "'");
}

Result<void> read_wait(const po::variables_map& values, Options& options) {
  if (values.count("offset") != 0) {
    MILLRACE_ASSIGN_OR_RETURN(const auto offset, number<std::uint64_t>(values, "offset"));
    options.wait.offset = Offset{offset};
  }
  if (values.count("lsn") != 0) {
    auto lsn = parse_lsn(values["lsn"].as<std::string>());
    if (!lsn) return std::move(lsn).error().context("--lsn");
    options.wait.lsn = *lsn;
  }
  if (values.count("timeout") != 0) {
    MILLRACE_ASSIGN_OR_RETURN(const auto seconds, number<std::uint32_t>(values, "timeout"));
    options.timeout = std::chrono::seconds(seconds);
  }
  return {};
}

Result<void> read_quarantine(const po::variables_map& values, Options& options) {
  const auto text = [&](const char* option) {
    return values.count(option) != 0 ? std::optional(values[option].as<std::string>())
                                     : std::nullopt;
  };
  options.choice = {text("category"), text("key")};
  options.reason = text("reason").value_or("");
  if (options.command != Command::kQuarantine) return {};
  const std::string word = options.names.empty() ? "" : options.names.front();
  if (word == "list")
    options.verb = QuarantineVerb::kList;
  else if (word == "retry")
    options.verb = QuarantineVerb::kRetry;
  else if (word == "skip")
    options.verb = QuarantineVerb::kSkip;
  else
    return usage("quarantine takes list, retry or skip");
  options.names.erase(options.names.begin());
  return {};
}

Result<void> check_quarantine(const Options& options) {
  const bool one_key = options.choice.category || options.choice.key;
  if (options.command != Command::kQuarantine) {
    if (one_key || !options.reason.empty())
      return usage("--category, --key and --reason go with quarantine only");
    return {};
  }
  if (options.choice.category.has_value() != options.choice.key.has_value())
    return usage("--category and --key go together: they name the key");
  if (!options.reason.empty() && options.verb != QuarantineVerb::kSkip)
    return usage("--reason goes with quarantine skip only");
  if (options.verb == QuarantineVerb::kList) {
    if (options.all || one_key) return usage("quarantine list shows all keys of the views");
    return {};
  }
  if (options.all == one_key)
    return usage("quarantine retry and skip take either --category and --key, or --all");
  if (options.verb == QuarantineVerb::kSkip && options.reason.empty())
    return usage("quarantine skip takes --reason: an event is left out for good");
  return {};
}

Result<void> read_build(const po::variables_map& values, Options& options) {
  options.diff = values["diff"].as<bool>();
  options.with_skipped = values["with-skipped"].as<bool>();
  options.switch_over = values["switch"].as<bool>();
  if (values.count("jobs") != 0) {
    MILLRACE_ASSIGN_OR_RETURN(options.jobs, number<std::size_t>(values, "jobs"));
    if (options.jobs == 0) return usage("--jobs takes a number from 1 on");
  }
  if (values.count("into") != 0) options.into = values["into"].as<std::string>();
  if (values.count("as-of") == 0) return {};
  auto as_of = parse_as_of(values["as-of"].as<std::string>());
  if (!as_of) return std::move(as_of).error().context("--as-of");
  options.as_of = *as_of;
  return {};
}

Result<void> check_build(const Options& options) {
  if (options.diff && options.command != Command::kRebuild)
    return usage("--diff goes with rebuild only");
  if (options.jobs != 0 && options.command != Command::kRebuild)
    return usage("--jobs goes with rebuild only");
  if (options.with_skipped && options.command != Command::kRebuild)
    return usage("--with-skipped goes with rebuild only");
  if (options.switch_over && !options.diff) return usage("--switch goes with rebuild --diff only");
  const bool is_build = options.command == Command::kBuild;
  if (!is_build && (options.as_of || !options.into.empty()))
    return usage("--as-of and --into go with build only");
  if (is_build && (options.names.size() != 1 || options.into.empty()))
    return usage("build takes the name of one view and --into FILE");
  return {};
}

Result<void> check_together(const Options& options) {
  MILLRACE_RETURN_IF_ERROR(check_build(options));
  MILLRACE_RETURN_IF_ERROR(check_quarantine(options));
  if (options.until_caught_up && options.command != Command::kRun)
    return usage("--until-caught-up goes with run only");
  if (options.all && options.command != Command::kRebuild &&
      options.command != Command::kQuarantine)
    return usage("--all goes with rebuild and quarantine only");
  if (options.json && options.command != Command::kStatus && options.command != Command::kVerify &&
      options.command != Command::kQuarantine && !options.diff)
    return usage("--json goes with status, verify, quarantine and rebuild --diff only");
  if (options.count_rows && options.command != Command::kStatus)
    return usage("--count-rows goes with status only");
  const bool waits = options.wait.offset || options.wait.lsn || options.timeout;
  if (waits && options.command != Command::kWait)
    return usage("--offset, --lsn and --timeout go with wait only");
  if (options.wait.offset && options.wait.lsn) return usage("wait takes either --offset or --lsn");
  if (options.command == Command::kRollback && options.names.empty())
    return usage("rollback takes the names of views");
  if (options.command == Command::kRebuild && options.all == !options.names.empty())
    return usage("rebuild takes either the names of views or --all");
  return {};
}

}  // namespace

Result<Options> parse_options(int argc, const char* const* argv) {
  Options options;
  try {
    const po::variables_map values = parse(argc, argv);
    if (values.count("words") != 0) options.names = values["words"].as<std::vector<std::string>>();
    if (values["help"].as<bool>()) return options;
    if (options.names.empty())
      return usage(
          "a command is missing: run, rebuild, verify, status, wait, rollback, build, "
          "quarantine or describe");
    MILLRACE_ASSIGN_OR_RETURN(options.command, command_of(options.names.front()));
    options.names.erase(options.names.begin());
    if (values.count("store") != 0) options.store = values["store"].as<std::string>();
    if (values.count("views") != 0) options.views = values["views"].as<std::string>();
    if (values.count("log-level") != 0) options.log_level = values["log-level"].as<std::string>();
    options.all = values["all"].as<bool>();
    options.until_caught_up = values["until-caught-up"].as<bool>();
    options.json = values["json"].as<bool>();
    options.count_rows = values["count-rows"].as<bool>();
    MILLRACE_RETURN_IF_ERROR(read_wait(values, options));
    MILLRACE_RETURN_IF_ERROR(read_quarantine(values, options));
    MILLRACE_RETURN_IF_ERROR(read_build(values, options));
  } catch (const po::error& error) {
    return usage(error.what());
  }
  MILLRACE_RETURN_IF_ERROR(check_together(options));
  return options;
}

std::string help_text(const std::string& program) {
  return "usage: " + program + R"( COMMAND [OPTION]...

Keeps views of a millrace event store: SQLite files that follow the store.

Commands
  run [VIEW...]             keep all views, or those named, up to date until SIGTERM
      --until-caught-up     end once everything that is in the store now is folded or set
                            aside (`status` counts that); exits 1 if it is stopped before
  rebuild VIEW... | --all   make views anew from the beginning of the log, beside the
                            live ones, and switch over
      --diff                show first what differs; switch only if nothing does, else exit 1
      --switch              with --diff: switch in any case
      --with-skipped        fold also what `quarantine skip` left out
      --jobs N              so many views at once (default: one a core, at most four), each
                            with up to an eighth of the machine's memory, 2 GiB at most
  verify [VIEW...]          compute views once more and compare; exits 1 on a difference
  status [VIEW...]          how far each view is
      --count-rows          and how many rows it has, which reads all of it
  wait [VIEW...]            until views show all that is in the store now; exits 1 if it
                            takes too long
      --offset N            until they show every event below N
      --lsn LSN             until they show what the source had committed when
                            SELECT pg_current_wal_insert_lsn() gave this: read your own writes
      --timeout SECONDS     but no longer than this
  rollback VIEW...          make the generation before the live one live again, up to date
  build VIEW --into FILE    the view in a file of its own, beside everything else
      --as-of MOMENT        as it was then: an offset, an LSN or a time such as
                            2026-01-01T10:00:00Z; else as of now
  quarantine list [VIEW...] the keys that wait since a function can't take an event of
                            theirs, and why
  quarantine retry [VIEW...] | skip [VIEW...]
                            fold what waits, up to the next failure; or first leave out, for
                            good, the event that each key waits for; exits 1 if keys go on
                            waiting
      --category TABLE --key KEY | --all
                            the key, as list shows it
      --reason TEXT         of a skip: kept with who did it and when
  describe [VIEW...]        what views are made of

Options
  --store DIR               the event store (default: store; or MILLRACE_STORE)
  --views DIR               folder of the SQLite files (default: views; or MILLRACE_VIEWS);
                            DIR/NAME.db is the live file of a view
  --json                    status, verify, quarantine and rebuild --diff: one JSON object a line
  --log-level LEVEL         trace, debug, info, warn, error, off (default: info)
  --config FILE             store, views and log-level as NAME = VALUE lines
  -h, --help                this text

Exit codes: 0 done, 1 failed or different, 2 usage, 3 corruption found, 4 unavailable
)";
}

}  // namespace millrace::projections
