#include "tests/support/loopback.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

#include "tests/support/pgoutput_bytes.h"

namespace millrace::test {
namespace {

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int new_socket() { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

}  // namespace

Listener listen_on_loopback() {
  Listener made{.socket = new_socket()};
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (::bind(made.socket, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(made.socket, 64) != 0 ||
      ::getsockname(made.socket, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::runtime_error("listen");
  made.port = ntohs(address.sin_port);
  return made;
}

int connect_to_loopback(int port) {
  const int made = new_socket();
  const sockaddr_in address = loopback(port);
  if (::connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return made;
  ::close(made);
  return -1;
}

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t part = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (part <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(part));
  }
  return true;
}

FakeServer::FakeServer(std::function<void(int)> serve)
    : listener_(listen_on_loopback()), serve_(std::move(serve)), thread_([this] {
        for (int client;
             (client = ::accept4(listener_.socket, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;
             ::close(client))
          serve_(client);
      }) {}

FakeServer::~FakeServer() {
  ::shutdown(listener_.socket, SHUT_RDWR);  // wakes accept()
  thread_.join();
  ::close(listener_.socket);
}

std::optional<std::string> ClientReader::bytes(std::size_t size) {
  std::string read(size, '\0');
  for (std::size_t at = 0; at < size;) {
    const ssize_t part = ::recv(socket_, read.data() + at, size - at, 0);
    if (part <= 0) return std::nullopt;
    at += static_cast<std::size_t>(part);
  }
  return read;
}

std::optional<std::string> ClientReader::startup() {
  const auto length = bytes(4);
  if (!length) return std::nullopt;
  std::uint32_t size = 0;
  for (const char c : *length) size = size << 8 | static_cast<unsigned char>(c);
  return bytes(size - 4);
}

std::optional<std::string> ClientReader::message() {
  const auto type = bytes(1);
  const auto content = type ? startup() : std::nullopt;
  if (!content) return std::nullopt;
  return *type + *content;
}

void ClientReader::drain() {
  std::array<char, 4096> ignored{};
  while (::recv(socket_, ignored.data(), ignored.size(), 0) > 0) continue;
}

namespace backend {

std::string message(char type, std::string_view content) {
  return type + bytes::u32(content.size() + 4) + std::string(content);
}

std::string error(std::string_view sqlstate, std::string_view text, char type) {
  const std::string severity = type == 'E' ? "FATAL" : "NOTICE";
  return message(type, "S" + bytes::string(severity) + "V" + bytes::string(severity) + "C" +
                           bytes::string(sqlstate) + "M" + bytes::string(text) +
                           std::string(1, '\0'));
}

std::string parameter(std::string_view name, std::string_view value) {
  return message('S', bytes::string(name) + bytes::string(value));
}

std::string keepalive(std::uint64_t wal_end, bool reply_requested) {
  return message('d', "k" + bytes::u64(wal_end) + bytes::u64(0) +
                          std::string(1, reply_requested ? '\1' : '\0'));
}

std::string welcome(std::string_view version) {
  return message('R', bytes::u32(0)) + parameter("server_version", version) +
         parameter("client_encoding", "UTF8") + message('K', bytes::u32(1) + bytes::u32(2)) +
         message('Z', "I");
}

}  // namespace backend
}  // namespace millrace::test
