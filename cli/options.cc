#include "cli/options.h"

#include <algorithm>
#include <cctype>

#include "cli/config_file.h"
#include "cli/text.h"

namespace millrace {
namespace {

namespace po = boost::program_options;

Error usage(const std::string& message) { return Error(ErrorCode::kInvalidArgument, message); }

std::vector<std::string> long_names(const po::options_description& options) {
  std::vector<std::string> names;
  for (const auto& option : options.options()) names.push_back(option->long_name());
  return names;
}

Error unknown_option(std::string name, const po::options_description& options) {
  name = name.substr(0, name.find('='));
  std::string message = "there is no option '" + name + "'";
  const std::size_t dashes = std::min(name.find_first_not_of('-'), name.size());
  if (const auto meant = closest(name.substr(dashes), long_names(options)))
    message += "; did you mean '--" + *meant + "'?";
  return usage(message);
}

// Boost knows -h as an option of its own only with an uglier help text.
std::vector<std::string> with_long_help(std::vector<std::string> arguments) {
  std::replace(arguments.begin(), arguments.end(), std::string("-h"), std::string("--help"));
  return arguments;
}

// Boost's messages name options in several ways; ours name them in one.
Result<po::parsed_options> parse_arguments(const po::options_description& options,
                                           const std::vector<std::string>& arguments) {
  namespace style = po::command_line_style;
  try {
    po::parsed_options parsed = po::command_line_parser(with_long_help(arguments))
                                    .options(options)
                                    .style(style::unix_style & ~style::allow_guessing)
                                    .run();
    for (const po::option& option : parsed.options)
      if (option.position_key >= 0)
        return usage("unexpected argument '" + option.original_tokens.front() + "'");
    return parsed;
  } catch (const po::unknown_option& error) {
    return unknown_option(error.get_option_name(), options);
  } catch (const po::error_with_option_name& error) {
    return usage(error.what());
  } catch (const po::error& error) {
    return usage(error.what());
  }
}

// Values that came from elsewhere than the command line, in the form in which Boost stores them.
po::parsed_options as_parsed(const po::options_description& options,
                             const std::vector<Setting>& settings) {
  po::parsed_options parsed(&options);
  for (const Setting& setting : settings) {
    if (options.find_nothrow(setting.key, false) == nullptr) continue;  // another command's
    const auto same_key = [&](const po::option& option) {
      return option.string_key == setting.key;
    };
    const auto found = std::find_if(parsed.options.begin(), parsed.options.end(), same_key);
    if (found == parsed.options.end())
      parsed.options.emplace_back(setting.key, std::vector<std::string>{setting.value});
    else
      found->value.push_back(setting.value);
  }
  return parsed;
}

std::vector<Setting> from_environment(const po::options_description& options,
                                      const Environment& environment) {
  std::vector<Setting> settings;
  for (const std::string& name : long_names(options)) {
    const char* value = environment(environment_name(name).c_str());
    if (name != "help" && value != nullptr && *value != '\0') settings.push_back({name, value});
  }
  return settings;
}

/// `where` goes in front of what is wrong with a value: "MILLRACE_" variables, a file.
Result<void> store(const po::parsed_options& parsed, const std::string& where,
                   po::variables_map& values) {
  try {
    po::store(parsed, values);
    return {};
  } catch (const po::multiple_occurrences& error) {
    return usage(where + "option '" + error.get_option_name() + "' is given more than once");
  } catch (const po::error& error) {
    return usage(where + error.what());
  }
}

Result<void> fill_members(po::variables_map& values) {
  try {
    po::notify(values);
  } catch (const po::required_option& error) {
    const std::string name = error.get_option_name();  // "--store"
    return usage(name + " is missing (or " + environment_name(name.substr(2)) + ")");
  } catch (const po::error& error) {
    return usage(error.what());
  }
  for (const auto& [name, value] : values) {
    const auto* text = boost::any_cast<std::string>(&value.value());
    if (text != nullptr && text->empty() && !value.defaulted())
      return usage("--" + name + " is empty");
  }
  return {};
}

}  // namespace

std::string environment_name(std::string_view option) {
  std::string name = "MILLRACE_";
  for (const char c : option)
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

CommandOptions::CommandOptions(Command& command, CommonOptions& common_options)
    : common(common_options) {
  command.declare(own);
  shared.add_options()  //
      ("config", po::value(&common.config)->value_name("FILE"),
       "read options from a file, one 'option = value' per line")  //
      ("log-level", po::value(&common.log_level)->value_name("LEVEL")->default_value("info"),
       "trace, debug, info, warn, error or off")  //
      ("help", po::bool_switch(&common.help), "this text");
  all.add(own).add(shared);
}

Result<void> read_options(CommandOptions& options, const std::vector<std::string>& arguments,
                          const Environment& environment,
                          const std::vector<std::string>& known_keys) {
  po::variables_map values;
  MILLRACE_ASSIGN_OR_RETURN(const auto parsed, parse_arguments(options.all, arguments));
  MILLRACE_RETURN_IF_ERROR(store(parsed, "", values));
  if (values["help"].as<bool>()) {
    options.common.help = true;
    return {};
  }
  const auto variables = from_environment(options.all, environment);
  MILLRACE_RETURN_IF_ERROR(
      store(as_parsed(options.all, variables), "in the MILLRACE_ variables: ", values));
  if (values.count("config") != 0) {
    const std::string file = values["config"].as<std::string>();
    MILLRACE_ASSIGN_OR_RETURN(const auto settings, read_config_file(file, known_keys));
    MILLRACE_RETURN_IF_ERROR(store(as_parsed(options.all, settings), file + ": ", values));
  }
  return fill_members(values);
}

}  // namespace millrace
