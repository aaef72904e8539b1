#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "projections/engine/retry.h"
#include "projections/wait.h"

namespace millrace::projections {

enum class Command {
  kHelp,
  kRun,
  kRebuild,
  kVerify,
  kStatus,
  kWait,
  kRollback,
  kDescribe,
  kQuarantine
};
enum class QuarantineVerb { kList, kRetry, kSkip };

/// The command line of a program of views.
struct Options {
  Command command = Command::kHelp;
  Path store = "store";
  Path views = "views";
  std::string log_level = "info";
  std::vector<std::string> names;  ///< Views that were named.
  bool all = false;
  bool until_caught_up = false;
  bool json = false;
  bool count_rows = false;
  WaitTarget wait{};
  std::optional<std::chrono::milliseconds> timeout{};  ///< Of wait.
  QuarantineVerb verb = QuarantineVerb::kList;
  QuarantineChoice choice{};
  std::string reason;  ///< Of a skip.
};

/// From the arguments, then the environment (MILLRACE_STORE, MILLRACE_VIEWS, MILLRACE_LOG_LEVEL),
/// then --config FILE. kInvalidArgument says what is wrong with them.
Result<Options> parse_options(int argc, const char* const* argv);

std::string help_text(const std::string& program);

}  // namespace millrace::projections
