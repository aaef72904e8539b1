#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log/batch_packer.h"
#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/format.h"
#include "eventstore/log/removal.h"
#include "eventstore/log/segment_reader.h"

namespace millrace::log {

/// The header of the generation after `present`, before its end is known. The segment after it is
/// `end`, and remembers `origin`, unless `present` is a rewritten one and knows better.
SegmentHeader next_generation(const SegmentHeader& present, Offset end, SegmentHeader::End origin,
                              UnixMicros now);

/// What a segment lacks for good; of one that was not rewritten nothing. Errors: kCorruption (its
/// control batch is damaged), kIo.
Result<std::vector<Removal>> removals_of(SegmentReader& reader);

/// The bytes of a new generation on their way to its file: header page last, so that a file without
/// an end is none.
class GenerationFile {
 public:
  GenerationFile(std::unique_ptr<File> file, const StoreId& store, const SegmentHeader& header,
                 Compression compression);

  /// Takes a batch. Its payload is `stored` as it is, in the header's codec, or else gets packed.
  Result<void> add(BatchHeader header, std::string_view payload, bool stored);
  /// Ends it with its control batch, and makes it durable.
  Result<void> finish(const std::vector<Removal>& removals);

  std::uint64_t position() const { return written_ + out_.size(); }

 private:
  std::string page() const;
  Result<void> flush();

  std::unique_ptr<File> file_;
  SegmentHeader header_;
  HeaderSeal seal_;
  BatchPacker packer_;
  std::uint64_t chain_ = 0;
  std::uint64_t written_ = kSegmentHeaderBytes;
  ByteBuffer out_;
};

}  // namespace millrace::log
