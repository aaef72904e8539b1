#include "projections/command/progress_line.h"

#include <unistd.h>

#include <cstdio>

namespace millrace::projections {

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

BuildHooks ProgressLine::hooks() {
  if (!on_terminal_) return {};
  return {.progress = [this](const BuildProgress& progress) { show(progress); }};
}

void ProgressLine::show(const BuildProgress& progress) {
  shown_ = true;
  std::fprintf(stderr, "\r\033[K%s", progress_text(what_, progress).c_str());
}

std::string progress_text(const std::string& what, const BuildProgress& progress) {
  const double seconds = std::chrono::duration<double>(progress.elapsed).count();
  const auto done = static_cast<double>(progress.done.value);
  const auto end = static_cast<double>(progress.end.value);
  const double rate = seconds > 0 ? done / seconds : 0;
  std::string text = what + "  " + grouped(progress.done.value) + " of " +
                     grouped(progress.end.value) + " events (" +
                     std::to_string(end > 0 ? static_cast<int>(100 * done / end) : 100) + " %)  " +
                     grouped(static_cast<std::uint64_t>(rate)) + "/s";
  if (rate > 0 && done < end)
    text += "  " + grouped(static_cast<std::uint64_t>((end - done) / rate) + 1) + " s left";
  return text;
}

std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (auto place = static_cast<std::ptrdiff_t>(text.size()) - 3; place > 0; place -= 3)
    text.insert(static_cast<std::size_t>(place), ",");
  return text;
}

}  // namespace millrace::projections
