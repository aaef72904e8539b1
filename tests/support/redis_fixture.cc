#include "tests/support/redis_fixture.h"

#include <signal.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

constexpr auto kStartTimeout = std::chrono::seconds(30);

/// Debian's package of the server also makes a service of it. The program itself is in redis-tools,
/// where it is called redis-check-rdb: it looks at its own name (server.c, main()).
std::filesystem::path find_server(const std::filesystem::path& directory) {
  if (std::filesystem::exists("/usr/bin/redis-server")) return "/usr/bin/redis-server";
  if (!std::filesystem::exists("/usr/bin/redis-check-rdb"))
    throw std::runtime_error("no Redis found: apt-get install redis-tools");
  const std::filesystem::path link = directory / "redis-server";
  std::filesystem::create_symlink("/usr/bin/redis-check-rdb", link);
  return link;
}

}  // namespace

RedisServer::RedisServer(std::vector<std::string> settings)
    : settings_(std::move(settings)),
      directory_(make_temporary_directory("millrace-redis")),
      program_(find_server(directory_)) {
  start();
}

RedisServer::~RedisServer() {
  kill();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void RedisServer::start() {
  std::vector<std::string> words = {program_.string(),   "--port",          "0",
                                    "--unixsocket",      socket().string(), "--dir",
                                    directory_.string(), "--save",          ""};
  words.insert(words.end(), settings_.begin(), settings_.end());
  server_ = std::make_unique<ChildProcess>(words);
  const auto end = std::chrono::steady_clock::now() + kStartTimeout;
  while (true) {
    if (std::filesystem::exists(socket())) {
      const auto answer = run_command({"redis-cli", "-s", socket().string(), "PING"});
      if (answer.out == "PONG\n") return;
    }
    if (!server_->running() || std::chrono::steady_clock::now() > end)
      throw std::runtime_error("Redis does not start: " + server_->error_output());
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void RedisServer::kill() {
  if (!server_) return;
  server_->kill(SIGKILL);
  server_->wait();
  server_.reset();
  std::error_code ignored;
  std::filesystem::remove(socket(), ignored);
}

std::string RedisServer::run(const std::vector<std::string>& words) const {
  std::vector<std::string> command = {"redis-cli", "-s", socket().string()};
  command.insert(command.end(), words.begin(), words.end());
  const auto done = run_command(command);
  if (done.exit_code != 0) throw std::runtime_error("redis-cli: " + done.err + done.out);
  return done.out.ends_with('\n') ? done.out.substr(0, done.out.size() - 1) : done.out;
}

}  // namespace millrace::test
