#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace millrace::test {

/// A socket that listens at a free port of the loopback interface, and that port. Throws
/// std::runtime_error.
struct Listener {
  int socket = -1, port = 0;
};
Listener listen_on_loopback();
/// A connection to a port of this machine; -1 if nobody listens.
int connect_to_loopback(int port);
/// Blocks; false if the other side has gone.
bool send_all(int socket, std::string_view bytes);

/// A server of one connection at a time that a test plays. Threads: one of its own.
class FakeServer {
 public:
  /// `serve` gets each connection; it is closed when it returns. Must end soon once the client has.
  explicit FakeServer(std::function<void(int socket)> serve);
  ~FakeServer();
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  int port() const { return listener_.port; }

 private:
  Listener listener_;
  std::function<void(int)> serve_;
  std::thread thread_;
};

/// Reads what a client of PostgreSQL sends, message by message.
class ClientReader {
 public:
  explicit ClientReader(int socket) : socket_(socket) {}
  /// The packet that a connection begins with (startup, SSLRequest), without its length; nothing at
  /// the end.
  std::optional<std::string> startup();
  /// Type and content; nothing at the end.
  std::optional<std::string> message();
  /// Until the client has closed.
  void drain();

 private:
  std::optional<std::string> bytes(std::size_t size);
  int socket_;
};

/// Messages of a PostgreSQL server
/// (https://www.postgresql.org/docs/15/protocol-message-formats.html).
namespace backend {
std::string message(char type, std::string_view content);
std::string error(std::string_view sqlstate, std::string_view text, char type = 'E');
std::string parameter(std::string_view name, std::string_view value);
/// Of the replication stream, in CopyData.
std::string keepalive(std::uint64_t wal_end, bool reply_requested);
/// AuthenticationOk, the version, ReadyForQuery.
std::string welcome(std::string_view version = "15.0");
}  // namespace backend

}  // namespace millrace::test
