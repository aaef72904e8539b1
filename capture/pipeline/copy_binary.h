#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"
#include "capture/pgoutput/message.h"

namespace millrace {

/// A row is built in memory by the server, which has no more room than 1 GiB for it.
inline constexpr std::size_t kCopyRowBytesMax = std::size_t{1} << 30;

/// Takes apart what COPY ... TO STDOUT (FORMAT binary) sends
/// (https://www.postgresql.org/docs/15/sql-copy.html, "Binary Format"), so that a copied row and
/// one streamed in binary go through the same value decoders. Threads: one.
///
/// Where one message of the protocol ends and the next begins means nothing: what is cut is kept
/// until the rest has come.
class CopyBinaryParser {
 public:
  /// What the server sent next. `bytes` must live until next() has given nullptr.
  void feed(std::string_view bytes);
  /// The next row, its fields kBinary or kNull, valid until the next call; nullptr where what was
  /// fed holds no more whole ones. Errors: kCorruption (another format, a row without `columns`
  /// fields, a length that can't be, bytes behind the end), kUnsupported (a row beyond
  /// kCopyRowBytesMax). There is no going on after an error.
  Result<const pgoutput::Tuple*> next(std::size_t columns);
  /// The bytes of the row that next() gave last, valid as long as that; parse() takes them apart
  /// once more.
  std::string_view row() const { return row_; }
  /// One row() of another copy, of as many columns; valid until the next call and as long as `row`.
  Result<const pgoutput::Tuple*> parse(std::string_view row, std::size_t columns);
  /// The trailer has come: the copy is whole.
  bool ended() const { return ended_; }

 private:
  enum class Step { kDone, kMore };
  Result<Step> take_header();
  Result<Step> take_row(std::size_t columns);
  Result<const pgoutput::Tuple*> keep_rest();

  std::string_view rest_;  // of what was fed, or of kept_
  std::string_view row_;
  std::string kept_;
  bool begun_ = false, ended_ = false;
  pgoutput::Tuple fields_;
};

}  // namespace millrace
