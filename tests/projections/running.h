#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <stop_token>
#include <thread>
#include <utility>

#include "projections/engine/worker.h"
#include "tests/projections/shop_store.h"

namespace millrace::projections::test {

/// Folds all that is in the store, and ends.
inline Result<void> catch_up(ShopStore& store, const View& view, WorkerOptions options = {}) {
  options.until_caught_up = true;
  const Context context = store.context();
  return Worker(view, context, std::move(options)).run();
}

/// A worker on a thread of its own; on another folder of views than the store's, if one is given.
class Running {
 public:
  Running(ShopStore& store, const View& view, WorkerOptions options = {},
          const std::filesystem::path& views = {})
      : context_(in(store.context(stop_.get_token()), views)),
        worker_(view, context_, std::move(options)),
        thread_([this] { result_ = worker_.run(), ended_ = true; }) {}
  ~Running() { static_cast<void>(stop()); }

  bool has_ended() const { return ended_; }
  Result<void> stop() {
    stop_.request_stop();
    return ended();
  }
  /// Waits until it ends by itself.
  Result<void> ended() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  static Context in(Context context, const std::filesystem::path& views) {
    if (!views.empty()) context.views = views;
    return context;
  }

  std::stop_source stop_;
  Context context_;
  Worker worker_;
  Result<void> result_;
  std::atomic<bool> ended_ = false;
  std::jthread thread_;
};

/// Looks again until `condition` holds; false after half a minute.
template <typename Condition>
bool comes_true(Condition condition) {
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
       !condition();) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace millrace::projections::test
