#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eventstore/log/segment_index.h"

namespace millrace::log {

/// The way of a reader through one sealed segment: by its index it tells which batches need no
/// look. Where there is no plan, or it turns out wrong, the reader walks from batch to batch and
/// gets the same.
class SegmentPlan {
 public:
  struct Wanted {
    Offset from;
    /// All before the first transaction that was committed then or later is not wanted.
    std::optional<UnixMicros> from_time;
    std::span<const std::string> categories;  ///< Empty: all.
  };

  /// Nothing where the index of `segment`, which was just opened, is missing, damaged or no help.
  static std::optional<SegmentPlan> make(FileSystem& files, const StorePaths& paths,
                                         SegmentReader& segment, const Wanted& wanted);

  /// Where the first batch at or after `position` starts that needs a look, end_position() if none
  /// does. Positions must not go back. `time_reached`: Wanted::from_time is behind the reader.
  /// `in_given_transaction`: the last batch of the open transaction is wanted, whatever it holds.
  std::uint64_t next(std::uint64_t position, bool time_reached, bool in_given_transaction);

  std::uint64_t end_position() const { return header_.used_bytes; }
  const IndexHeader& header() const { return header_; }
  /// How many bytes are worth reading at once.
  std::size_t read_ahead() const { return read_ahead_; }

 private:
  /// Positions, of which those before the reader are done with.
  struct List {
    std::vector<std::uint64_t> positions = {};
    std::size_t next = 0;
    std::uint64_t at_or_after(std::uint64_t position, std::uint64_t otherwise);
  };

  IndexHeader header_;
  std::uint64_t start_ = kSegmentHeaderBytes;
  bool by_category_ = false;
  List postings_, ends_;
  std::size_t read_ahead_ = SegmentReader::kReadAhead;
};

}  // namespace millrace::log
