#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "capture/pipeline/encoded_rows.h"

namespace millrace {

/// Keys of rows whose latest event lacks large values (unchanged TOAST) that perhaps no event has.
/// Bounded: when there are too many, all are forgotten and overflowed() says so. Threads: one.
class IncompleteRows {
 public:
  /// An event of the table.
  void saw(std::string_view key, EventFlags flags);
  void is_whole(std::string_view key);
  void clear();
  bool empty() const { return keys_.empty(); }
  std::size_t size() const { return keys_.size(); }
  std::vector<std::string> some(std::size_t count) const;
  bool overflowed() const { return overflowed_; }

 private:
  std::unordered_set<std::string> keys_;
  std::size_t bytes_ = 0;
  bool overflowed_ = false;
};

/// Rows of a table that were read beside the stream, between the watermarks that stand before and
/// after their reading in PostgreSQL's log: finds which of them are still as they were read when
/// the stream has come to the second one (DBLog, https://arxiv.org/abs/2010.12597).
///
/// Why that is right. Let C be the snapshot that the rows were read with. C sees every transaction
/// that committed before the low watermark (VisibilityCheck; else the rows are not used at all),
/// and none that commits after the high one, which was written after C was taken. So C sees all
/// that the stream brought before the low watermark and some of what it brings between the two. A
/// row that no event between them names is therefore, at the high watermark, as it was read: it is
/// appended there. A row that one names is in the log as that event has it, and what was read is
/// dropped: it may be older or newer.
///
/// But for one thing: the events of a row may all have left a large value alone and not have sent
/// it. Then it was the same all the time, in C too, and the row as read has it: it is merged under
/// the events, one after the other, and what comes of it is the row at the high watermark. A value
/// that one of them did send is taken from that one, so it does not matter which of them C saw.
///
/// A table is locked against TRUNCATE and changes of its shape from before the low watermark until
/// after the high one. Pure. Threads: one.
class SnapshotWindow {
 public:
  /// At the low watermark. `wanted`: keys of rows that were asked for; some may not be there.
  void open(std::string category, EncodedRows rows, std::vector<std::string> wanted);
  bool is_open() const { return open_; }
  /// An event that the stream brought meanwhile, of any category.
  void saw(const NewEvent& event);
  /// At the high watermark: appends what is known here, as `r`. Each row that the log has whole by
  /// that, or that is known not to be there, leaves `incomplete`. Gives the number of rows.
  Result<std::uint64_t> close(EventOut& out, IncompleteRows& incomplete);
  /// Nothing of it is used.
  void drop();

 private:
  enum class Seen : std::uint8_t { kNot, kMerged, kInLog };
  struct State {
    Seen seen = Seen::kNot;
    std::string merged;  ///< The row with the events since, while one lacked a value.
  };

  bool open_ = false;
  std::string category_;
  EncodedRows rows_;
  std::unordered_map<std::string_view, std::string_view> read_;  ///< Key to payload, in rows_.
  std::vector<std::string> wanted_;
  std::unordered_map<std::string, State> touched_;  ///< Of keys that were read or wanted.
  std::unordered_set<std::string_view> names_;      ///< These keys.
  bool truncated_ = false;
};

}  // namespace millrace
