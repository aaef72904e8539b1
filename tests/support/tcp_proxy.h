#pragma once

#include <atomic>
#include <thread>
#include <vector>

namespace millrace::test {

/// Hands TCP connections on to a port of this machine, and, while frozen, holds every byte in both
/// directions and every new connection, as a network does that has been cut: nobody is told.
/// Threads: one that asks; one of its own.
class TcpProxy {
 public:
  explicit TcpProxy(int to_port);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  int port() const { return port_; }
  void freeze(bool frozen) { frozen_ = frozen; }

 private:
  struct Pair {
    int client = -1, server = -1;
  };
  void run();
  void accept_one();
  static bool hand_on(int from, int to);

  int to_port_, port_ = 0, listener_;
  std::vector<Pair> pairs_;
  std::atomic<bool> frozen_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace millrace::test
