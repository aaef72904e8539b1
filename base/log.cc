#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <memory>

namespace millrace {

Result<void> start_logging(std::string_view level) {
  const spdlog::level::level_enum parsed = spdlog::level::from_str(std::string(level));
  if (parsed == spdlog::level::off && level != "off")
    return Error(ErrorCode::kInvalidArgument, "unknown log level '" + std::string(level) + "'")
        .hint("Use one of trace, debug, info, warn, error, off.");
  spdlog::drop("millrace");  // of an earlier call
  auto logger = spdlog::stderr_color_mt("millrace");
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  logger->set_level(parsed);
  logger->flush_on(spdlog::level::trace);
  logger->set_error_handler([](const std::string&) {});  // nowhere left to report to
  spdlog::set_default_logger(std::move(logger));
  // A pipe that nobody reads and a file at its size limit are errors to report, not to die of.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return {};
}

}  // namespace millrace
