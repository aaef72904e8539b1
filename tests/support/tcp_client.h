#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace millrace::test {

/// A TCP connection to this machine, for bytes that no well-behaved client would send. Throws
/// std::runtime_error when it can't connect. Threads: one.
class TcpClient {
 public:
  explicit TcpClient(int port);
  ~TcpClient();
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;

  /// False once the server has closed.
  bool send(std::string_view bytes);
  void end_of_input();
  /// Everything until the server closes; throws if it has not within `limit`.
  std::string read_all(std::chrono::milliseconds limit = std::chrono::seconds(30));

 private:
  int socket_;
};

/// "GET /metrics" and the like; the whole answer with its headers.
std::string http_get(int port, std::string_view path);

}  // namespace millrace::test
