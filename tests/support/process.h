#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::test {

struct UserId {
  uid_t user = 0;
  gid_t group = 0;
};

struct ProcessOptions {
  std::map<std::string, std::string> env = {};  ///< On top of our own environment.
  std::vector<std::string> unset = {};          ///< Left out of it.
  std::filesystem::path directory = {};         ///< To start in; empty: ours.
  std::optional<UserId> user = {};              ///< To become; only root can.
  int parent_death_signal = 9;  ///< What it gets when the thread that started it ends.
};

/// A child process with pipes: killed and reaped with its object, and by the kernel should the test
/// be killed.
///
/// Everything here throws std::runtime_error when the operating system refuses. Threads: one.
class ChildProcess {
 public:
  explicit ChildProcess(const std::vector<std::string>& argv, const ProcessOptions& options = {});
  ~ChildProcess();
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;

  pid_t pid() const { return pid_; }
  bool running();
  /// Does nothing once the process has ended.
  void kill(int signal);
  /// Its exit code, 128 + signal if one ended it; nothing when `timeout` was first. Reads its
  /// output meanwhile, so that a full pipe never holds it up.
  std::optional<int> wait(std::chrono::milliseconds timeout = std::chrono::seconds(60));

  /// Blocks while the child does not read: not for more than a child takes before it writes much
  /// itself.
  void write(std::string_view bytes);
  void close_input();
  /// The next line of standard output without its newline; nothing at its end or when `timeout` was
  /// first.
  std::optional<std::string> read_line(
      std::chrono::milliseconds timeout = std::chrono::seconds(10));
  /// Standard output as far as it was read by wait() and not taken by read_line().
  const std::string& output() const { return output_; }
  /// All of standard error so far.
  std::string error_output() const;

 private:
  bool reap(bool block);
  bool fill(std::chrono::steady_clock::time_point deadline, bool until_exit);
  void close_all();

  pid_t pid_ = -1;
  int pid_fd_ = -1, input_fd_ = -1, output_fd_ = -1, error_fd_ = -1;
  std::string output_;
  std::optional<int> exit_code_;
};

struct CommandResult {
  int exit_code = -1;
  std::string out, err;
};

/// Runs a command to its end. Throws if it takes longer than `timeout`; it is dead then.
CommandResult run_command(const std::vector<std::string>& argv, const ProcessOptions& options = {},
                          std::string_view input = {},
                          std::chrono::milliseconds timeout = std::chrono::seconds(60));

}  // namespace millrace::test
