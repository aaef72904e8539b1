// The one composition root: words to commands, options to members, errors to exit codes.

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "base/output.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/secrets.h"
#include "cli/text.h"
#include "cli/version.h"

namespace millrace {
namespace {

// A file that the store opens must never become descriptor 1 or 2, where output and logs go.
void fill_standard_descriptors() {
  int descriptor = 0;
  do descriptor = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  while (descriptor >= 0 && descriptor <= STDERR_FILENO);
  if (descriptor > STDERR_FILENO) ::close(descriptor);
}

void print_error(const std::string& message, const std::string& hint) {
  std::string text = message + "\n";
  if (!hint.empty()) text += "  " + hint + "\n";
  std::fputs(without_passwords(text).c_str(), stderr);
}

int usage_error(const std::string& program, const Error& error) {
  print_error(program + ": " + error.message(),
              error.hint().empty() ? "Try '" + program + " --help'." : error.hint());
  return kExitUsage;
}

int finish(Result<void> result) {
  if (result || result.error().code() == ErrorCode::kCancelled) return kExitDone;
  print_error("millrace: " + result.error().message(), result.error().hint());
  return exit_code_for(result.error().code());
}

int print(const std::string& text) {
  Output output;
  output.text() = text;
  return finish(output.flush());
}

bool is_noun(const Commands& commands, const std::string& word) {
  for (const auto& command : commands)
    if (command->text.name.substr(0, command->text.name.find(' ')) == word) return true;
  return false;
}

Command* find_command(const Commands& commands, const std::string& name) {
  for (const auto& command : commands)
    if (command->text.name == name) return command.get();
  return nullptr;
}

int unknown_command(const Commands& commands, const std::string& name) {
  std::vector<std::string> names{"help"};
  for (const auto& command : commands) names.emplace_back(command->text.name);
  std::string message = "there is no command '" + name + "'";
  if (const auto meant = closest(name, names)) message += "; did you mean '" + *meant + "'?";
  return usage_error("millrace", Error(ErrorCode::kInvalidArgument, message));
}

/// The options of all commands: what a configuration file may hold.
std::vector<std::string> known_keys(const Commands& commands) {
  std::vector<std::string> keys;
  for (const auto& command : commands) {
    CommonOptions common;
    const CommandOptions options(*command, common);
    for (const auto& option : options.all.options())
      if (option->long_name() != "help" && option->long_name() != "config")
        keys.push_back(option->long_name());
  }
  return keys;
}

int run_command(const Commands& commands, Command& command,
                const std::vector<std::string>& arguments) {
  const std::string program = "millrace " + std::string(command.text.name);
  CommonOptions common;
  CommandOptions options(command, common);
  const Environment environment = [](const char* name) { return std::getenv(name); };
  if (auto read = read_options(options, arguments, environment, known_keys(commands)); !read)
    return usage_error(program, read.error());
  if (common.help) return print(command_help(command, options));
  if (auto logging = start_logging(common.log_level); !logging)
    return usage_error(program, logging.error());
  if (auto checked = command.check(); !checked) return usage_error(program, checked.error());
  return finish(command.run());
}

/// `arguments` without the program's name. The words before the first option name the command.
int dispatch(std::vector<std::string> arguments) {
  const Commands commands = all_commands();
  if (!arguments.empty() && arguments[0] == "--version")
    return print("millrace " + std::string(kVersion) + "\n");
  if (!arguments.empty() && arguments[0] == "help") {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  }
  std::vector<std::string> words;
  for (const std::string& argument : arguments) {
    if (argument.empty() || argument[0] == '-' || words.size() == 2) break;
    words.push_back(argument);
  }
  const auto rest = [&](std::size_t used) {
    return std::vector<std::string>(arguments.begin() + static_cast<std::ptrdiff_t>(used),
                                    arguments.end());
  };
  if (words.size() == 2)
    if (Command* command = find_command(commands, words[0] + " " + words[1]))
      return run_command(commands, *command, rest(2));
  if (words.empty()) {
    if (arguments.empty())
      return usage_error("millrace", Error(ErrorCode::kInvalidArgument, "which command?"));
    if (arguments[0] == "--help" || arguments[0] == "-h") return print(general_help(commands));
    return usage_error("millrace", Error(ErrorCode::kInvalidArgument,
                                         "expected a command before '" + arguments[0] + "'"));
  }
  if (Command* command = find_command(commands, words[0]))
    return run_command(commands, *command, rest(1));
  if (words.size() == 2 || !is_noun(commands, words[0]))
    return unknown_command(commands, words[0] + (words.size() == 2 ? " " + words[1] : ""));
  if (arguments.size() > 1 && (arguments[1] == "--help" || arguments[1] == "-h"))
    return print(group_help(commands, words[0]));
  return usage_error("millrace " + words[0],
                     Error(ErrorCode::kInvalidArgument, "which verb comes after it?"));
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  millrace::fill_standard_descriptors();
  std::signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  millrace::hide_passwords(argc, argv);
  return millrace::dispatch(std::move(arguments));
}
