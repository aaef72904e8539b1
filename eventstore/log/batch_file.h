#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/codec.h"
#include "eventstore/log/format.h"
#include "eventstore/log/segment_reader.h"
#include "eventstore/log_reader.h"

namespace millrace::log {

/// What a reader says of a batch that is not fine; with the offset that it should have, if that is
/// known.
Error fault_error(std::uint64_t segment, std::uint64_t position, BatchFault fault,
                  std::optional<Offset> offset = {});

/// The batches of one segment in any order, by their positions. Each is checked by itself: header
/// (which counts in this place of this segment only) and payload; not that it follows another one.
/// Threads: one at a time.
class BatchFile {
 public:
  /// Of what `segment` is a reader of, in that generation.
  BatchFile(SegmentReader segment, const StoreId& store);

  /// What a batch is read into; one for any number of files of one store. It keeps the batch that
  /// was loaded last: rows that were written together are often looked for one after the other.
  struct Buffers {
    ByteBuffer file;
    Decompressor decompressor;
    struct Loaded {
      std::uint64_t segment = 0, position = 0;
      std::uint32_t generation = 0;
      BatchHeader header;
      std::string_view payload;  // of `file` or of what `decompressor` has made
    };
    std::optional<Loaded> loaded;
  };

  /// Loads the batch at `position` into `batch`, which views `buffers` then. Errors: kCorruption,
  /// kUnsupported, kIo.
  Result<void> load(std::uint64_t position, Buffers& buffers, Batch& batch) const;
  /// Positions are those of this generation of the segment.
  std::uint32_t generation() const { return generation_; }
  bool is_in_place(FileSystem& files, const StorePaths& paths) const {
    return log::is_in_place(files, paths, segment_, *file_);
  }

 private:
  Result<void> read(std::uint64_t position, Buffers& buffers) const;

  std::uint64_t segment_;
  std::uint32_t generation_;
  HeaderSeal seal_;
  std::unique_ptr<File> file_;
};

}  // namespace millrace::log
