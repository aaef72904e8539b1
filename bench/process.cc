#include "bench/process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "bench/bench.h"

namespace millrace::bench {
namespace {

pid_t start(const std::vector<std::string>& argv, int output) {
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) give_up("fork failed");
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);  // ours keeps the stop signals for their own thread
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(output, STDOUT_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  return child;
}

}  // namespace

void Terminate::operator()() const { ::kill(child, SIGTERM); }

PipedProcess::PipedProcess(const std::vector<std::string>& argv) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) give_up("pipe failed");
  pid_ = start(argv, ends[1]);
  ::close(ends[1]);
  descriptor_ = ends[0];
  on_stop_.emplace(stop_signals().token(), Terminate{pid_});
}

PipedProcess::~PipedProcess() {
  on_stop_.reset();  // before the number can become another process's
  ::kill(pid_, SIGTERM);
  ::close(descriptor_);
  ::waitpid(pid_, nullptr, 0);
}

ProcessCost run_measured(const std::vector<std::string>& argv) {
  const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  const Stopwatch watch;
  const pid_t child = start(argv, null);
  int status = 0;
  {
    const std::stop_callback on_stop(stop_signals().token(), Terminate{child});
    siginfo_t ended;
    while (::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT) != 0 &&
           errno == EINTR)
      continue;
  }
  struct rusage usage {};
  if (::wait4(child, &status, 0, &usage) != child) give_up("wait failed");
  ProcessCost cost;
  cost.seconds = watch.seconds();
  ::close(null);
  stop_if_asked();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) give_up(argv[0] + " failed");
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  cost.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  cost.peak_mebibytes = static_cast<double>(usage.ru_maxrss) / 1024;
  return cost;
}

}  // namespace millrace::bench
