#pragma once

#include <string>

#include "cli/command.h"
#include "cli/options.h"

namespace millrace {

std::string general_help(const Commands& commands);
/// Of the commands that start with `noun`.
std::string group_help(const Commands& commands, const std::string& noun);
std::string command_help(const Command& command, const CommandOptions& options);

}  // namespace millrace
