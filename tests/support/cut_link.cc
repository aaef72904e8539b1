#include "tests/support/cut_link.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace millrace::test {
namespace {

constexpr int kLookAtStop = 20;  // ms

struct Pair {
  int client, server;
};

int connect_to(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

bool send_all(int fd, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

}  // namespace

CutLink::CutLink(std::filesystem::path to_socket) : to_(std::move(to_socket)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      listen(listener_, 16) != 0)
    throw std::runtime_error("no free port on 127.0.0.1");
  port_ = ntohs(address.sin_port);
  thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
}

CutLink::~CutLink() {
  thread_.request_stop();
  thread_.join();
  close(listener_);
}

void CutLink::serve(const std::stop_token& stop) {
  std::vector<Pair> pairs;
  std::vector<char> buffer(1 << 16);
  /// False once the connection is to end.
  const auto pass_on = [&](int from, int to) {
    const ssize_t size = recv(from, buffer.data(), buffer.size(), 0);
    if (size <= 0) return false;
    const std::int64_t left = left_;
    const std::int64_t allowed = left < 0 ? size : std::min<std::int64_t>(size, left);
    const bool cut = allowed < size;
    if (left >= 0) left_ = cut ? -1 : left - allowed;
    passed_ += static_cast<std::uint64_t>(allowed);
    return send_all(to, buffer.data(), static_cast<std::size_t>(allowed)) && !cut;
  };
  while (!stop.stop_requested()) {
    std::vector<pollfd> polls{{listener_, POLLIN, 0}};
    for (const Pair& pair : pairs) {
      polls.push_back({pair.client, POLLIN, 0});
      polls.push_back({pair.server, POLLIN, 0});
    }
    if (poll(polls.data(), polls.size(), kLookAtStop) <= 0) continue;
    for (std::size_t i = pairs.size(); i-- > 0;) {
      const bool from_client = polls[1 + 2 * i].revents != 0,
                 from_server = polls[2 + 2 * i].revents != 0;
      const bool lasts = (!from_client || pass_on(pairs[i].client, pairs[i].server)) &&
                         (!from_server || pass_on(pairs[i].server, pairs[i].client));
      if (lasts) continue;
      close(pairs[i].client);
      close(pairs[i].server);
      pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (polls[0].revents == 0) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const int server = connect_to(to_);
    if (server >= 0)
      pairs.push_back({client, server});
    else
      close(client);
  }
  for (const Pair& pair : pairs) {
    close(pair.client);
    close(pair.server);
  }
}

}  // namespace millrace::test
