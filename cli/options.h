#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/command.h"

namespace millrace {

/// What every command takes beside its own options.
struct CommonOptions {
  std::string config;
  std::string log_level = "info";
  bool help = false;
};

/// The options of `command` with their descriptions; parsing fills its members and `common`.
struct CommandOptions {
  CommandOptions(Command& command, CommonOptions& common_options);

  CommonOptions& common;
  boost::program_options::options_description own;
  boost::program_options::options_description shared;
  boost::program_options::options_description all;
};

/// Gives the value of an environment variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

/// Fills the options from `arguments`, then, where those say nothing, from MILLRACE_<OPTION>, then
/// from the file that --config names. `known_keys` are the options of any command: one file serves
/// them all.
///
/// With --help nothing else is looked at. Errors: kInvalidArgument (also for a file that can't be
/// read or is wrong, which is named with its line).
Result<void> read_options(CommandOptions& options, const std::vector<std::string>& arguments,
                          const Environment& environment,
                          const std::vector<std::string>& known_keys);

/// "MILLRACE_LOG_LEVEL" for "log-level".
std::string environment_name(std::string_view option);

}  // namespace millrace
