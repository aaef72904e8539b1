#include "tests/support/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace millrace::test {
namespace {

[[noreturn]] void refuse(const std::string& what, int error = errno) {
  throw std::runtime_error(what + ": " + std::strerror(error));
}

std::vector<std::string> environment(const ProcessOptions& options) {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string name(text.substr(0, text.find('=')));
    if (options.env.contains(name)) continue;
    if (std::find(options.unset.begin(), options.unset.end(), name) != options.unset.end())
      continue;
    out.emplace_back(text);
  }
  for (const auto& [name, value] : options.env) out.push_back(name + "=" + value);
  return out;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

/// What the child does between fork and exec: only calls that are safe there. Gives errno.
int become(const ProcessOptions& options, pid_t parent, int in, int out, int err) {
  if (options.user && getuid() == 0) {
    if (setgroups(0, nullptr) != 0 || setgid(options.user->group) != 0 ||
        setuid(options.user->user) != 0)
      return errno;
  }
  // After setuid, which clears it; the parent may have gone before.
  if (prctl(PR_SET_PDEATHSIG, options.parent_death_signal) != 0) return errno;
  if (getppid() != parent) return ESRCH;
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0) return errno;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) return errno;
  return 0;
}

std::chrono::milliseconds left_until(std::chrono::steady_clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& argv, const ProcessOptions& options) {
  int in[2], out[2], status[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) != 0) refuse("socketpair");
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(status, O_CLOEXEC) != 0) refuse("pipe");
  error_fd_ =
      memfd_create("stderr", MFD_CLOEXEC);  // never full: standard error can't block the child
  if (error_fd_ < 0) refuse("memfd_create");
  input_fd_ = in[0];
  output_fd_ = out[0];

  const std::vector<std::string> env = environment(options);
  const std::vector<char*> arguments = pointers(argv), variables = pointers(env);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    int error = become(options, parent, in[1], out[1], error_fd_);
    if (error == 0) {
      execvpe(arguments[0], arguments.data(), variables.data());
      error = errno;
    }
    if (::write(status[1], &error, sizeof error) < 0) _exit(126);
    _exit(127);
  }
  ::close(in[1]);
  ::close(out[1]);
  ::close(status[1]);
  int error = 0;
  const bool failed = pid_ < 0 || ::read(status[0], &error, sizeof error) == sizeof error;
  ::close(status[0]);
  if (failed) {
    if (pid_ > 0) reap(true);
    close_all();
    refuse("start " + argv.at(0), pid_ < 0 ? EAGAIN : error);
  }
  pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  if (pid_fd_ < 0) refuse("pidfd_open");
  fcntl(output_fd_, F_SETFL, O_NONBLOCK);
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !exit_code_) {
    kill(SIGKILL);
    reap(true);
  }
  close_all();
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pid_fd_(std::exchange(other.pid_fd_, -1)),
      input_fd_(std::exchange(other.input_fd_, -1)),
      output_fd_(std::exchange(other.output_fd_, -1)),
      error_fd_(std::exchange(other.error_fd_, -1)),
      output_(std::move(other.output_)),
      exit_code_(other.exit_code_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(pid_fd_, other.pid_fd_);
  std::swap(input_fd_, other.input_fd_);
  std::swap(output_fd_, other.output_fd_);
  std::swap(error_fd_, other.error_fd_);
  std::swap(output_, other.output_);
  std::swap(exit_code_, other.exit_code_);
  return *this;
}

void ChildProcess::close_all() {
  for (int* fd : {&pid_fd_, &input_fd_, &output_fd_, &error_fd_})
    if (*fd >= 0) ::close(std::exchange(*fd, -1));
}

bool ChildProcess::reap(bool block) {
  if (exit_code_) return true;
  int status = 0;
  pid_t got;
  do got = waitpid(pid_, &status, block ? 0 : WNOHANG);
  while (got < 0 && errno == EINTR);
  if (got != pid_) return false;
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

bool ChildProcess::running() { return pid_ > 0 && !reap(false); }

void ChildProcess::kill(int signal) {
  if (running()) ::kill(pid_, signal);
}

/// Waits for output or (also) for the process to end, and takes what output there is. False when
/// neither came before `deadline`, or output is at its end and nothing else is waited for.
bool ChildProcess::fill(std::chrono::steady_clock::time_point deadline, bool until_exit) {
  pollfd waited[2] = {{output_fd_, POLLIN, 0}, {until_exit ? pid_fd_ : -1, POLLIN, 0}};
  if (output_fd_ < 0 && !until_exit) return false;
  const int ready = poll(waited, 2, static_cast<int>(left_until(deadline).count()));
  if (ready < 0 && errno == EINTR) return true;
  if (ready <= 0) return false;
  if (waited[0].revents == 0) return true;
  char bytes[65536];
  const ssize_t got = ::read(output_fd_, bytes, sizeof bytes);
  if (got > 0) output_.append(bytes, static_cast<std::size_t>(got));
  if (got == 0) ::close(std::exchange(output_fd_, -1));
  return got != 0 || until_exit;
}

std::optional<int> ChildProcess::wait(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (running())
    if (!fill(deadline, true) && running()) return std::nullopt;
  // What the pipe still holds; a grandchild that has it open too must not hold us up.
  while (output_fd_ >= 0 && fill(std::chrono::steady_clock::now(), false)) continue;
  return exit_code_;
}

void ChildProcess::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(input_fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) refuse("write to child");
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void ChildProcess::close_input() {
  if (input_fd_ >= 0) ::close(std::exchange(input_fd_, -1));
}

std::optional<std::string> ChildProcess::read_line(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::size_t end;
  while ((end = output_.find('\n')) == std::string::npos)
    if (!fill(deadline, false)) return std::nullopt;
  std::string line = output_.substr(0, end);
  output_.erase(0, end + 1);
  return line;
}

std::string ChildProcess::error_output() const {
  std::string text;
  char bytes[65536];
  ssize_t got;
  while ((got = pread(error_fd_, bytes, sizeof bytes, static_cast<off_t>(text.size()))) > 0)
    text.append(bytes, static_cast<std::size_t>(got));
  return text;
}

CommandResult run_command(const std::vector<std::string>& argv, const ProcessOptions& options,
                          std::string_view input, std::chrono::milliseconds timeout) {
  ChildProcess child(argv, options);
  if (!input.empty()) child.write(input);
  child.close_input();
  const std::optional<int> code = child.wait(timeout);
  if (!code)
    throw std::runtime_error(argv.at(0) +
                             " did not end in time; its errors: " + child.error_output());
  return {*code, child.output(), child.error_output()};
}

}  // namespace millrace::test
