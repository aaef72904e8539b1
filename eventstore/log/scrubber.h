#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/file.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log/store_files.h"
#include "eventstore/log_reader.h"
#include "eventstore/scrub_report.h"

namespace millrace::log {

/// Reads the sealed segments of a store again and again, in small steps, and checks every byte of
/// them: checksums, chain, records, and that each ends as the one after it remembers. What it finds
/// is logged and noted in `scrub.json`; it changes nothing else, and nothing that goes wrong here
/// is anybody else's affair. A pass goes on after a restart with the segment that it was at.
///
/// Threads: one at a time.
class Scrubber {
 public:
  /// Between the beginnings of two passes at least.
  static constexpr std::chrono::hours kPassInterval{7 * 24};
  /// What a step reads at least, if there is so much.
  static constexpr std::uint64_t kStepBytes = 1 << 20;

  struct Options {
    StoreId store;
    FileSystem* files = nullptr;
    Clock* clock = nullptr;
    std::uint64_t bytes_per_second = 0;  ///< Above 0.
  };

  Scrubber(StorePaths paths, const Options& options)
      : paths_(std::move(paths)), options_(options) {}

  /// One step, among the segments before `sealed_before`. Gives how long to pause before the next
  /// one, so that the rate is kept.
  std::chrono::milliseconds step(std::uint64_t sealed_before);

  const ScrubReport& report() const { return report_; }

 private:
  /// What is wrong, and where.
  struct Finding {
    std::uint64_t position = 0;
    std::string what;
  };

  void load_report();
  bool is_pass_due() const;
  Result<std::optional<std::uint64_t>> find_next(std::uint64_t before);
  Result<std::optional<Finding>> read_on(std::uint64_t& bytes);
  Result<std::optional<Finding>> check_end();
  void end_segment(const std::optional<Finding>& finding);
  void end_pass();
  void save();

  const StorePaths paths_;
  const Options options_;
  bool loaded_ = false;
  bool in_pass_ = false;
  std::optional<std::uint64_t> pass_end_;  // segments before this are of the present pass
  ScrubReport report_;
  std::uint64_t segment_ = 0;            // the one at hand ...
  std::optional<SegmentReader> reader_;  // ... if any is
  Batch batch_;
};

}  // namespace millrace::log
