#pragma once

#include <sys/types.h>

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace millrace::bench {

/// What a whole process cost, as the kernel counted it.
struct ProcessCost {
  double seconds = 0;
  double cpu_seconds = 0;
  double peak_mebibytes = 0;
};

/// What a stop signal does to a child process.
struct Terminate {
  pid_t child = -1;
  void operator()() const;
};

/// Runs `argv` to its end with output to /dev/null; gives up on any exit code but 0, and on a stop
/// signal.
ProcessCost run_measured(const std::vector<std::string>& argv);

/// A process whose standard output we read ourselves; SIGTERM on a stop signal, SIGTERM and a wait
/// when it goes.
class PipedProcess {
 public:
  explicit PipedProcess(const std::vector<std::string>& argv);
  ~PipedProcess();
  PipedProcess(const PipedProcess&) = delete;
  PipedProcess& operator=(const PipedProcess&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  pid_t pid_ = -1;
  int descriptor_ = -1;
  std::optional<std::stop_callback<Terminate>> on_stop_;
};

}  // namespace millrace::bench
