#include "bench/jetstream.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/bench.h"
#include "tests/support/process.h"

namespace millrace::bench {
namespace {

constexpr std::chrono::seconds kStartTimeout{10};

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

std::uint16_t free_port() {
  const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  const bool bound = ::bind(probe, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(probe);
  if (!bound) give_up("no free port");
  return ntohs(address.sin_port);
}

/// One connection; what is asked of it is answered on an inbox of its own.
class Connection {
 public:
  Connection(std::uint16_t port, int number) : inbox_("inbox." + std::to_string(number)) {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = loopback(port);
    connected_ =
        ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    if (!connected_) return;
    const int on = 1;
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    line();  // INFO
    send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB " + inbox_ + " 1\r\n");
  }
  ~Connection() { ::close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool connected() const { return connected_; }

  std::string request(const std::string& subject, const std::string& payload) {
    send("PUB " + subject + " " + inbox_ + " " + std::to_string(payload.size()) + "\r\n" + payload +
         "\r\n");
    for (;;) {
      const std::string head = line();
      if (head == "PING") send("PONG\r\n");
      if (head.starts_with("-ERR")) give_up("nats-server: " + head);
      if (!head.starts_with("MSG ")) continue;
      return line();  // answers hold no line end
    }
  }

 private:
  void send(const std::string& bytes) {
    for (std::size_t sent = 0; sent < bytes.size();) {
      const ssize_t count = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) give_up("nats-server went away");
      sent += static_cast<std::size_t>(count);
    }
  }
  std::string line() {
    for (;;) {
      if (const std::size_t end = in_.find("\r\n"); end != in_.npos) {
        std::string result = in_.substr(0, end);
        in_.erase(0, end + 2);
        return result;
      }
      char buffer[4096];
      const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
      if (count <= 0) give_up("nats-server went away");
      in_.append(buffer, static_cast<std::size_t>(count));
    }
  }

  const std::string inbox_;
  int socket_ = -1;
  bool connected_ = false;
  std::string in_;
};

bool has_server() {
  const auto found = test::run_command({"/bin/sh", "-c", "command -v nats-server"});
  return found.exit_code == 0;
}

void make_stream(std::uint16_t port) {
  const auto deadline = std::chrono::steady_clock::now() + kStartTimeout;
  for (;;) {
    Connection connection(port, 0);
    if (connection.connected()) {
      const std::string answer = connection.request(
          "$JS.API.STREAM.CREATE.bench",
          R"({"name":"bench","subjects":["orders"],"storage":"file","retention":"limits"})");
      if (answer.find("\"error\"") == answer.npos) return;
      give_up("nats-server: " + answer);
    }
    if (std::chrono::steady_clock::now() > deadline) give_up("nats-server does not start");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

std::optional<double> publish_to_jetstream(const Path& directory, int publishers, int messages,
                                           std::size_t payload_bytes) {
  if (!has_server()) return std::nullopt;
  std::filesystem::create_directories(directory);
  const std::uint16_t port = free_port();
  const Path config = directory / "nats.conf";
  std::ofstream(config) << "listen: \"127.0.0.1:" << port << "\"\njetstream { store_dir: \""
                        << directory.string() << "\" }\n";
  double rate = 0;
  {
    test::ChildProcess server({"nats-server", "-c", config.string()});
    make_stream(port);
    const std::string payload(payload_bytes, 'x');
    std::atomic<int> next = 0;
    const Stopwatch watch;
    {
      std::vector<std::jthread> threads;
      for (int publisher = 1; publisher <= publishers; ++publisher)
        threads.emplace_back([&, publisher] {
          Connection connection(port, publisher);
          if (!connection.connected()) give_up("nats-server refuses a connection");
          while (next++ < messages) connection.request("orders", payload);
        });
    }
    rate = messages / watch.seconds();
  }
  std::filesystem::remove_all(directory);
  return rate;
}

}  // namespace millrace::bench
