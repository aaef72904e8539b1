#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace millrace::log {

/// Where callers wait for the flush that takes what they appended: without a lock, so that those
/// of one flush do not queue behind each other when it is over. Flushes are numbered; only the one
/// under way and the next one are waited for, each by a group of its own.
///
/// Threads: wait() any, the others the flusher.
class FlushGroups {
 public:
  /// Returns when end(flush) or end_all() was called, no matter how the flush went.
  void wait(std::uint32_t flush);
  /// Wakes one of the group; that one wakes the others, so that the flusher goes on at once.
  void end(std::uint32_t flush);
  /// There are no more flushes after number `last`.
  void end_all(std::uint32_t last);

 private:
  static constexpr std::size_t kCacheLine = 64;
  struct alignas(kCacheLine) Group {
    std::atomic<std::uint32_t> ended = 0;  ///< The last flush of this group that is over.
    std::atomic<std::uint32_t> waiting = 0;
    std::atomic<bool> wake_others = false;
  };
  Group& group_of(std::uint32_t flush) { return groups_[flush % groups_.size()]; }

  std::array<Group, 2> groups_;
};

}  // namespace millrace::log
