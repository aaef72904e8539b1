#include "base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

namespace millrace {
namespace {

constexpr std::chrono::milliseconds kQuietAtFirst{500};
constexpr std::chrono::milliseconds kBetweenUpdates{100};

std::string scaled(double value, double step, const char* const* units, std::size_t count) {
  std::size_t unit = 0;
  while (unit + 1 < count && value >= step) value /= step, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 || value >= 99.5 ? "%.0f" : "%.1f", value);
  std::string result = text;
  if (units[unit][0] != '\0') (result += ' ') += units[unit];
  return result;
}

std::string minutes_and_seconds(double seconds) {
  const auto whole = static_cast<unsigned long long>(seconds);
  char text[48];
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60,
                  whole % 60);
  else
    std::snprintf(text, sizeof text, "%llu:%02llu", whole / 60, whole % 60);
  return text;
}

std::size_t terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void write_to_terminal(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace

std::string human_bytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  return scaled(bytes, 1024, kUnits, std::size(kUnits));
}

std::string human_count(double count) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  return scaled(count, 1000, kUnits, std::size(kUnits));
}

std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

std::string progress_text(std::string_view what, std::uint64_t done, std::uint64_t total,
                          ProgressUnit unit, std::chrono::duration<double> elapsed) {
  const bool bytes = unit == ProgressUnit::kBytes;
  const double rate = elapsed.count() > 0 ? static_cast<double>(done) / elapsed.count() : 0;
  std::string text(what);
  if (total > 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    text += "  " + std::to_string(static_cast<int>(share * 100)) + " %";
  } else {
    text += "  " + (bytes ? human_bytes(static_cast<double>(done))
                          : human_count(static_cast<double>(done)) + " events");
  }
  text += "  " + (bytes ? human_bytes(rate) + "/s" : human_count(rate) + " events/s");
  if (total > done && rate > 0)
    text += "  " + minutes_and_seconds(static_cast<double>(total - done) / rate) + " left";
  return text;
}

Progress::Progress(std::string_view what, std::uint64_t total, ProgressUnit unit)
    : what_(what),
      total_(total),
      unit_(unit),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      next_(start_ + kQuietAtFirst) {}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  total_ = total;
  update(done);
}

void Progress::update(std::uint64_t done) {
  if (!terminal_) return;
  const Time now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + kBetweenUpdates;
  std::string text = progress_text(what_, done, total_, unit_, now - start_);
  text.resize(std::min(text.size(), terminal_columns() - 1));
  write_to_terminal("\r" + text + "\x1b[K");
  shown_ = true;
}

void Progress::finish() {
  if (shown_) write_to_terminal("\r\x1b[K");
  shown_ = false;
}

}  // namespace millrace
