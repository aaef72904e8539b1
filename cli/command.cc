#include "cli/command.h"

namespace millrace {

Commands all_commands() {
  Commands commands;
  add_capture_commands(commands);
  add_capture_admin_commands(commands);
  add_resync_commands(commands);
  add_log_commands(commands);
  add_repair_command(commands);
  add_stream_commands(commands);
  add_maintenance_commands(commands);
  add_schema_commands(commands);
  add_status_command(commands);
  return commands;
}

}  // namespace millrace
