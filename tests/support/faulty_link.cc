#include "tests/support/faulty_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "tests/support/loopback.h"

namespace millrace::test {
namespace {

constexpr int kLookMs = 2;
constexpr std::size_t kHeldBytesMax = 4 << 20;
constexpr std::uint32_t kSslRequest = 80877103;

std::uint32_t u32_at(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = at; i < at + 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// False once the other side has gone.
bool read_some(int socket, std::string& into) {
  std::array<char, 65536> bytes{};
  const ssize_t size = ::recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (size > 0) into.append(bytes.data(), static_cast<std::size_t>(size));
  return size > 0;
}

}  // namespace

FaultyLink::FaultyLink(int to_port) : to_port_(to_port), replication_port_(to_port) {
  const Listener listener = listen_on_loopback();
  listener_ = listener.socket;
  port_ = listener.port;
  thread_ = std::thread([this] { run(); });
}

FaultyLink::~FaultyLink() {
  stop_ = true;
  thread_.join();
  for (const Link& link : links_) ::close(link.client), ::close(link.server);
  ::close(listener_);
}

void FaultyLink::cut_after(std::deque<std::uint64_t> bytes) {
  const std::lock_guard lock(mutex_);
  cuts_ = std::move(bytes);
}

std::size_t FaultyLink::cuts_left() const {
  const std::lock_guard lock(mutex_);
  return cuts_.size();
}

void FaultyLink::inject(const std::string& bytes) {
  const std::lock_guard lock(mutex_);
  injected_ += bytes;
}

void FaultyLink::rewrite(std::function<std::string(std::string_view)> change) {
  const std::lock_guard lock(mutex_);
  change_ = std::move(change);
}

std::vector<std::string> FaultyLink::recorded() const {
  const std::lock_guard lock(mutex_);
  return recorded_;
}

void FaultyLink::run() {
  auto before = std::chrono::steady_clock::now();
  while (!stop_) {
    if (frozen_) {
      ::poll(nullptr, 0, kLookMs);
      continue;
    }
    std::vector<pollfd> polled{{listener_, POLLIN, 0}};
    for (const Link& link : links_) {
      polled.push_back({link.client, POLLIN, 0});
      const bool room = link.to_client.size() < kHeldBytesMax;
      polled.push_back({link.server, static_cast<short>(room ? POLLIN : 0), 0});
    }
    ::poll(polled.data(), polled.size(), kLookMs);
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - std::exchange(before, now)).count();
    const std::lock_guard lock(mutex_);
    std::size_t i = 1;
    for (Link& link : links_) {
      if (polled[i++].revents != 0) take_from_client(link);
      if (polled[i++].revents != 0 && link.server >= 0) take_from_server(link);
      if (link.streaming && link.from_server.empty()) link.to_client += injected_;
      give_to_client(link, seconds);
    }
    if (std::any_of(links_.begin(), links_.end(), [](const Link& link) { return link.streaming; }))
      injected_.clear();
    links_.remove_if([](const Link& link) {
      if (!link.ended) return false;
      ::close(link.client);
      ::close(link.server);
      return true;
    });
    if (polled[0].revents != 0)
      links_.emplace_back().client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  }
}

/// The server is connected to once the client has said what it wants.
void FaultyLink::first_packet(Link& link, std::string_view packet) {
  link.started = true;
  link.opaque = u32_at(packet, 4) == kSslRequest;
  link.replication = packet.find(std::string_view("replication\0database", 20)) != packet.npos;
  if (link.replication) {
    recorded_.assign(1, "");
    if (!cuts_.empty()) {
      link.cut_at = cuts_.front();
      cuts_.pop_front();
    }
  }
  link.server = connect_to_loopback(link.replication ? replication_port_.load() : to_port_);
  link.ended = link.server < 0;
}

void FaultyLink::take_from_client(Link& link) {
  if (!read_some(link.client, link.from_client)) link.ended = true;
  std::string_view rest = link.from_client;
  while (!link.ended && !rest.empty()) {
    const std::size_t head = link.started ? 1 : 0;
    std::size_t size = rest.size();
    if (!link.opaque) {
      if (rest.size() < head + 4 || rest.size() < head + u32_at(rest, head)) break;
      size = head + u32_at(rest, head);
    }
    const std::string_view packet = rest.substr(0, size);
    if (!link.started)
      first_packet(link, packet);
    else if (link.streaming && packet.size() > 5 && packet[0] == 'd' && packet[5] == 'r')
      ++statuses_;
    else if (link.replication)
      recorded_.emplace_back();
    if (link.server >= 0 && !send_all(link.server, packet)) link.ended = true;
    rest.remove_prefix(size);
  }
  link.from_client.erase(0, link.from_client.size() - rest.size());
}

/// Empty if it is not whole.
std::string_view FaultyLink::next_message(const Link& link) const {
  const std::string_view bytes = link.from_server;
  if (link.opaque) return bytes;
  const bool whole = bytes.size() >= 5 && bytes.size() >= 1 + u32_at(bytes, 1);
  return whole ? bytes.substr(0, 1 + u32_at(bytes, 1)) : std::string_view();
}

void FaultyLink::take_from_server(Link& link) {
  const bool more = read_some(link.server, link.from_server);
  for (;;) {
    const std::string_view message = next_message(link);
    if (message.empty()) break;
    if (link.replication) recorded_.back() += message;
    link.streaming = link.streaming || (link.replication && message[0] == 'W');
    link.to_client += change_ && !link.opaque ? change_(message) : std::string(message);
    link.from_server.erase(0, message.size());
  }
  if (more) return;
  link.to_client += link.from_server;
  give_to_client(link, 1e6);  // all that came before the end
  link.ended = true;
}

void FaultyLink::give_to_client(Link& link, double seconds) {
  if (link.ended || held_) return;
  std::size_t size = link.to_client.size();
  if (const double rate = static_cast<double>(rate_); rate > 0) {
    link.allowance = std::min(link.allowance + seconds * rate, rate);
    size = std::min(size, static_cast<std::size_t>(std::max(link.allowance, 0.0)));
  } else {
    link.allowance = static_cast<double>(size);
  }
  if (link.cut_at) size = std::min<std::size_t>(size, *link.cut_at - link.sent);
  const ssize_t sent =
      size == 0 ? 0 : ::send(link.client, link.to_client.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0) {
    link.to_client.erase(0, static_cast<std::size_t>(sent));
    link.sent += static_cast<std::uint64_t>(sent);
    link.allowance -= static_cast<double>(sent);
    from_server_ += static_cast<std::uint64_t>(sent);
  }
  if (link.cut_at && link.sent == *link.cut_at) link.ended = true;
}

}  // namespace millrace::test
