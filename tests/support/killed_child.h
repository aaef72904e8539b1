#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

namespace millrace::test {

/// Runs `work(at_step)` in a copy of this process, which is killed where `at_step` is called for
/// the `step`th time; false if the work came to its end before, which must be a good one. No other
/// thread may run here meanwhile.
template <typename Work>
bool is_killed_at(int step, Work work) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    int steps = 0;
    const bool good = work([&steps, step] {
      if (++steps == step) ::raise(SIGKILL);
    });
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid failed");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error("what was to be killed failed by itself");
  return false;
}

}  // namespace millrace::test
