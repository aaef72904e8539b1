#include "eventstore/log/auto_compaction.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace millrace::log {
namespace {

/// A run is followed by a rest of so many times its length.
constexpr int kRests = 20;
constexpr std::chrono::hours kIdleMax{24};

}  // namespace

AutoCompaction::AutoCompaction(Run run, std::chrono::steady_clock::duration rest)
    : run_(std::move(run)), rest_(rest) {
  if (run_) thread_ = std::jthread([this] { run_in_background(); });
}

void AutoCompaction::note_sealed() {
  MutexLock lock(mutex_);
  sealed_ = true;
  changed_.notify_all();
}

void AutoCompaction::interrupt() {
  MutexLock lock(mutex_);
  running_.request_stop();
}

void AutoCompaction::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    running_.request_stop();
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void AutoCompaction::run_in_background() {
  Time rested = std::chrono::steady_clock::now() + rest_;
  Time idle_until = rested;
  for (;;) {
    std::stop_token token;
    {
      MutexLock lock(mutex_);
      for (Time now; !stopping_; changed_.wait_until(mutex_, sealed_ ? rested : idle_until)) {
        now = std::chrono::steady_clock::now();
        if (now >= rested && (sealed_ || now >= idle_until)) break;
      }
      if (stopping_) return;
      sealed_ = false;
      running_ = std::stop_source();
      token = running_.get_token();
    }
    const Time begun = std::chrono::steady_clock::now();
    const Result<void> ran = run_(token);
    const Time ended = std::chrono::steady_clock::now();
    rested = ended + std::max(rest_, kRests * (ended - begun));
    idle_until = std::max(rested, ended + kIdleMax);
    if (ran) continue;
    const ErrorCode code = ran.error().code();
    // Damage stays until somebody mends it.
    if (code == ErrorCode::kCorruption || code == ErrorCode::kUnsupported) rested = idle_until;
    note_sealed();  // what is left to do is done next time
    if (code != ErrorCode::kCancelled)
      spdlog::warn("{}; it is tried again later", ran.error().to_string());
  }
}

}  // namespace millrace::log
