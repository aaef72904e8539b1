#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace millrace::test {

/// A private Redis on a Unix socket in a folder of its own below temporary_root(). It goes with its
/// object, and with the process, should the test be killed. Everything throws std::runtime_error.
/// Threads: one.
class RedisServer {
 public:
  /// `settings` as on its command line: {"--appendonly", "yes"}.
  explicit RedisServer(std::vector<std::string> settings = {});
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  /// "unix:///tmp/.../redis.sock"
  std::string url() const { return "unix://" + socket().string(); }
  std::filesystem::path socket() const { return directory_ / "redis.sock"; }
  /// Runs one command; what redis-cli prints, without the last newline.
  std::string run(const std::vector<std::string>& words) const;

  void kill();  ///< With SIGKILL.
  void start();
  pid_t pid() const { return server_ ? server_->pid() : -1; }

 private:
  std::vector<std::string> settings_;
  std::filesystem::path directory_, program_;
  std::unique_ptr<ChildProcess> server_;
};

}  // namespace millrace::test
