#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "base/mutex.h"

namespace millrace::service {

/// Tells somebody how far a long call is, on a thread of its own: one that does not listen holds up
/// nobody, and gets what is the latest by then. Threads: tell() any, else the owner's.
template <typename Message>
class Updates {
 public:
  /// Calls `write` with each message that is told, and with less than all where they come faster
  /// than one in `interval`, or than it returns.
  Updates(std::chrono::milliseconds interval, std::function<void(const Message&)> write)
      : interval_(interval), write_(std::move(write)), thread_([this] { send(); }) {}
  /// Waits until the latest messages are written. No lock of the store may be held.
  ~Updates() {
    {
      MutexLock lock(mutex_);
      finishing_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  Updates(const Updates&) = delete;
  Updates& operator=(const Updates&) = delete;

  enum Kind : std::uint8_t { kProgress, kReport };
  /// Takes the place of what was told of that kind before. Never waits.
  void tell(Kind kind, Message message) {
    MutexLock lock(mutex_);
    latest_[kind] = std::move(message);
    changed_.notify_all();
  }

 private:
  void send() {
    auto next = std::chrono::steady_clock::now();
    for (bool is_last = false; !is_last;) {
      std::array<std::optional<Message>, 2> messages;
      {
        MutexLock lock(mutex_);
        while (!finishing_ && !latest_[kProgress] && !latest_[kReport]) changed_.wait(mutex_);
        while (!finishing_ && std::chrono::steady_clock::now() < next)
          changed_.wait_until(mutex_, next);
        messages = std::exchange(latest_, {});
        is_last = finishing_;
      }
      for (const auto& message : messages)
        if (message) write_(*message);
      next = std::chrono::steady_clock::now() + interval_;
    }
  }

  const std::chrono::milliseconds interval_;
  const std::function<void(const Message&)> write_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::array<std::optional<Message>, 2> latest_ MILLRACE_GUARDED_BY(mutex_);
  bool finishing_ MILLRACE_GUARDED_BY(mutex_) = false;
  std::jthread thread_;  // last: it uses all the others
};

}  // namespace millrace::service
