#include "cli/help.h"

#include <algorithm>
#include <sstream>

namespace millrace {
namespace {

namespace po = boost::program_options;

constexpr std::size_t kColumns = 90;

std::string list_of_commands(const Commands& commands, std::string_view noun) {
  std::size_t width = 0;
  for (const auto& command : commands) width = std::max(width, command->text.name.size());
  std::string text;
  for (const auto& command : commands) {
    const std::string name(command->text.name);
    if (!noun.empty() && name.substr(0, name.find(' ')) != noun) continue;
    text += "  millrace " + name + std::string(width - name.size() + 2, ' ');
    (text += command->text.summary) += '\n';
  }
  return text;
}

struct OptionHelp {
  std::string left;   // "--from WHERE"
  std::string right;  // what it does and its default
};

// Boost gives name and default as one word: "WHERE (=beginning)".
OptionHelp help_of(const po::option_description& option) {
  OptionHelp help{"--" + option.long_name(), option.description()};
  const std::string parameter = option.format_parameter();
  const std::size_t equals = parameter.find(" (=");
  if (!parameter.empty()) help.left += " " + parameter.substr(0, equals);
  if (equals != parameter.npos) help.right += " (default: " + parameter.substr(equals + 3);
  return help;
}

void append_wrapped(std::string& out, const std::string& text, std::size_t indent) {
  std::istringstream words(text);
  std::size_t column = indent;
  for (std::string word; words >> word;) {
    if (column > indent && column + 1 + word.size() > kColumns) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    }
    if (column > indent) out += ' ', ++column;
    out += word;
    column += word.size();
  }
  out += '\n';
}

void append_options(std::string& out, const po::options_description& options, std::size_t width) {
  for (const auto& option : options.options()) {
    const OptionHelp help = help_of(*option);
    out += "  " + help.left + std::string(width - help.left.size() + 2, ' ');
    append_wrapped(out, help.right, width + 4);
  }
}

}  // namespace

std::string general_help(const Commands& commands) {
  return "millrace: change data capture and event sourcing for PostgreSQL\n\n"
         "Usage: millrace <noun> <verb> [options]\n\nCommands:\n" +
         list_of_commands(commands, "") +
         "\n"
         "'millrace <noun> <verb> --help' tells the options of a command, 'millrace --version' "
         "the\n"
         "version.\n\n"
         "Every option can also come from MILLRACE_<OPTION> in the environment (MILLRACE_STORE,\n"
         "MILLRACE_LOG_LEVEL), and from a file: --config FILE, one 'option = value' per line. The\n"
         "command line wins over the environment, the environment over the file.\n\n"
         "Data goes to standard output, everything else to standard error.\n\n"
         "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 corruption found, 4 source or target\n"
         "unavailable.\n";
}

std::string group_help(const Commands& commands, const std::string& noun) {
  return "Usage: millrace " + noun + " <verb> [options]\n\n" + list_of_commands(commands, noun) +
         "\n'millrace " + noun + " <verb> --help' tells more.\n";
}

std::string command_help(const Command& command, const CommandOptions& options) {
  std::size_t width = 0;
  for (const auto& option : options.all.options())
    width = std::max(width, help_of(*option).left.size());
  std::string text = "Usage: millrace ";
  ((((text += command.text.name) += ' ') += command.text.usage) += "\n\n") +=
      command.text.description;
  text += "\n\nOptions:\n";
  append_options(text, options.own, width);
  text += "\nCommon options:\n";
  append_options(text, options.shared, width);
  return text;
}

}  // namespace millrace
