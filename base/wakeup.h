#pragma once

namespace millrace {

/// A flag that poll() can wait for (eventfd): one thread notifies, another waits beside its socket.
/// Threads: all of it, from any; notify() also from a signal handler.
class Wakeup {
 public:
  Wakeup();
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  void notify() noexcept;
  void clear() noexcept;  ///< Forgets every notify() so far.
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace millrace
