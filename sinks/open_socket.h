#pragma once

#include <sys/socket.h>

#include <mutex>

namespace millrace::projections {

/// The socket of a connection that another thread may want to end: reads and writes on it fail at
/// once from then on. To be destroyed before what closes the socket. Threads: all of it, from any.
class OpenSocket {
 public:
  ~OpenSocket() {
    const std::lock_guard lock(mutex_);
    socket_ = -1;
  }
  void is(int socket) {
    const std::lock_guard lock(mutex_);
    socket_ = socket;
    if (ended_) ::shutdown(socket_, SHUT_RDWR);
  }
  void shut_down() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
  }

 private:
  std::mutex mutex_;
  int socket_ = -1;
  bool ended_ = false;
};

}  // namespace millrace::projections
