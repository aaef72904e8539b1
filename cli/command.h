#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace boost::program_options {
class options_description;
}

namespace millrace {

/// What a command says of itself; all of it appears in its help.
struct CommandText {
  std::string_view name;         ///< "log tail"
  std::string_view summary;      ///< One line for the list of commands.
  std::string_view usage;        ///< What follows the name: "--store DIR [--follow]".
  std::string_view description;  ///< Paragraphs, lines of at most 90 characters.
};

/// One `millrace <noun> <verb>`: its options are its members, filled before check() and run().
class Command {
 public:
  explicit Command(const CommandText& words) : text(words) {}
  virtual ~Command() = default;

  virtual void declare(boost::program_options::options_description& options) = 0;
  /// Looks at the options alone, before anything is opened. Errors: kInvalidArgument.
  virtual Result<void> check() { return {}; }
  /// An error's code decides the exit code; kCancelled ends quietly with 0.
  virtual Result<void> run() = 0;

  const CommandText text;
};

using Commands = std::vector<std::unique_ptr<Command>>;

void add_capture_commands(Commands& commands);
void add_capture_admin_commands(Commands& commands);  ///< capture setup, teardown
void add_resync_commands(Commands& commands);  ///< capture verify, capture resync
void add_log_commands(Commands& commands);
void add_repair_command(Commands& commands);  ///< log repair
void add_stream_commands(Commands& commands);
void add_maintenance_commands(Commands& commands);  ///< Of a log; with those of add_copy_commands.
void add_copy_commands(Commands& commands);
void add_schema_commands(Commands& commands);
void add_status_command(Commands& commands);

/// Every command, in the order of the help.
Commands all_commands();

}  // namespace millrace
