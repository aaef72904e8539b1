#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/codec.h"
#include "eventstore/log/format.h"
#include "eventstore/log/store_files.h"

namespace millrace::log {

/// False if another file has the segment's name by now: its new generation, of which `file` is an
/// old one. Nobody should keep that open for long, for the disk gives nothing back meanwhile.
bool is_in_place(FileSystem& files, const StorePaths& paths, std::uint64_t segment, File& file);

/// Walks over the batches of one segment and checks each, through a buffer that is used again.
///
/// Nothing is mapped: a file that somebody cuts short gives a fault, not a signal.
class SegmentReader {
 public:
  static constexpr std::uint64_t kNoLimit = ~std::uint64_t{0};
  static constexpr std::size_t kReadAhead = 1 << 20;

  /// A batch, or what is wrong where one should be. Views last until the next call.
  struct Found {
    BatchFault fault = BatchFault::kNone;
    BatchHeader header{};
    std::uint64_t position = 0;
    std::string_view payload{};  ///< Decompressed; after load() only.
  };

  /// Memory that the reader of the next segment can have.
  struct Buffers {
    ByteBuffer file;
    Decompressor decompressor;
  };

  /// Reads and checks the header page. Errors: kCorruption (also: of another store, under a wrong
  /// name), kUnsupported, kNotFound, kIo.
  static Result<SegmentReader> open(FileSystem& files, const StorePaths& paths,
                                    const StoreId& store, std::uint64_t segment,
                                    Buffers buffers = {});

  /// The header of the next batch, of what lies below byte `limit`. Stays where it is.
  Result<Found> peek(std::uint64_t limit = kNoLimit);
  /// Reads, checks and decompresses the payload too. `found` is what peek gave.
  Result<void> load(Found& found, std::uint64_t limit = kNoLimit);
  /// Goes on behind what peek() found fine.
  void advance(const Found& found);
  /// Goes on at `position`, where a header is that find_header() found: after damage.
  void resume_at(const Found& found);
  /// The header at `position`, behind this one, where an index says that a batch starts: intact, or
  /// what is wrong. Stays where it is; resume_at() goes there.
  Result<Found> peek_at(std::uint64_t position);
  /// Goes to the end of a sealed segment without a look at what is between, as its index tells it.
  void skip_to_end(std::uint64_t position, std::uint64_t chain, Offset next);
  /// Reads so many bytes at once, where more of them are there. Fewer: for one who jumps.
  void set_read_ahead(std::size_t bytes) { read_ahead_ = bytes; }
  /// True if `bytes` can be the start of the next batch: nothing that is known of its header
  /// contradicts them.
  bool may_begin_next(std::string_view bytes) const;
  /// The first intact header at or after `position` (a multiple of 8); kAbsent if there is none.
  Result<Found> find_header(std::uint64_t position);

  /// The control batch of a rewritten segment, checked and loaded, wherever the walk is.
  Result<Found> read_control();

  /// `size` bytes at `position`, fewer where the file or `limit` ends.
  Result<std::string_view> fetch(std::uint64_t position, std::uint64_t size,
                                 std::uint64_t limit = kNoLimit);

  /// True behind the last batch of a sealed segment.
  Result<bool> at_end();
  /// What the segment after this one remembers of it, whichever generation this is; at_end() only.
  SegmentHeader::Predecessor link() const;
  /// The first offset of the segment after this one; at_end() only.
  Offset end() const { return header_.rewritten ? header_.rewritten->end : state_.next(); }

  const SegmentHeader& header() const { return header_; }
  const LogState& state() const { return state_; }
  Result<std::uint64_t> file_size() { return file_->size(); }
  bool is_in_place(FileSystem& files, const StorePaths& paths) const {
    return log::is_in_place(files, paths, header_.segment, *file_);
  }
  std::unique_ptr<File> take_file() && { return std::move(file_); }
  Buffers take_buffers() && {
    return {.file = std::move(buffer_), .decompressor = std::move(decompressor_)};
  }

 private:
  SegmentReader(std::unique_ptr<File> file, const StoreId& store, std::uint64_t segment,
                Buffers buffers)
      : file_(std::move(file)),
        seal_(store, segment),
        buffer_(std::move(buffers.file)),
        decompressor_(std::move(buffers.decompressor)) {
    buffer_.resize(0);
  }

  std::unique_ptr<File> file_;
  HeaderSeal seal_;
  SegmentHeader header_;
  LogState state_;
  ByteBuffer buffer_;  // bytes of the file from buffer_at_ on
  std::uint64_t buffer_at_ = 0;
  Decompressor decompressor_;
  std::size_t read_ahead_ = kReadAhead;
  std::uint64_t chain_after_ = 0;  // of the header that peek found
};

}  // namespace millrace::log
