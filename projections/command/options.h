#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "projections/engine/as_of.h"
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
  kBuild,
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
  std::string reason;           ///< Of a skip.
  bool diff = false;            ///< Of rebuild: compare before the switch ...
  bool switch_over = false;     ///< ... and switch whatever comes of it.
  bool with_skipped = false;    ///< Of rebuild.
  std::size_t jobs = 0;         ///< Of rebuild: views at once; 0: as many as suit the machine.
  std::optional<AsOf> as_of{};  ///< Of build; without it, the end of the store.
  Path into{};
};

/// From the arguments, then the environment (MILLRACE_STORE, MILLRACE_VIEWS, MILLRACE_LOG_LEVEL),
/// then --config FILE. kInvalidArgument says what is wrong with them.
Result<Options> parse_options(int argc, const char* const* argv);

std::string help_text(const std::string& program);

}  // namespace millrace::projections
