#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

enum class ProgressUnit : std::uint8_t { kEvents, kBytes };

/// One line on the terminal that says how far a long piece of work is: share, rate, time left. At
/// most ten updates a second. Silent where stderr is no terminal, and in the first half second.
///
/// Threads: one at a time.
class Progress {
 public:
  /// `total` 0: not known, no share and no time left are shown.
  Progress(std::string_view what, std::uint64_t total, ProgressUnit unit);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of the total so far. Cheap enough for every batch, not meant for every event.
  void update(std::uint64_t done);
  /// The same where the total has become known, or has moved, meanwhile.
  void update(std::uint64_t done, std::uint64_t total);
  /// Erases the line, so that what comes next starts on a clean one.
  void finish();

 private:
  using Time = std::chrono::steady_clock::time_point;

  std::string what_;
  std::uint64_t total_;
  ProgressUnit unit_;
  bool terminal_;
  bool shown_ = false;
  Time start_, next_;
};

/// The text of that line: "rebuild product_search  42 %  1.2 M events/s  0:12 left".
std::string progress_text(std::string_view what, std::uint64_t done, std::uint64_t total,
                          ProgressUnit unit, std::chrono::duration<double> elapsed);

/// "812 B", "1.4 MiB"
std::string human_bytes(double bytes);
/// "812", "1.4 M"
std::string human_count(double count);
/// "1,204,332"
std::string grouped(std::uint64_t number);

}  // namespace millrace
