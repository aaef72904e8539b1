#include "eventstore/log/batch_file.h"

#include <string>

#include "base/checksum.h"

namespace millrace::log {
namespace {

/// The first read of a batch: most fit into it.
constexpr std::size_t kGuessBytes = 512;

}  // namespace

BatchFile::BatchFile(SegmentReader segment, const StoreId& store)
    : segment_(segment.header().segment),
      generation_(segment.header().generation()),
      seal_(store, segment_),
      file_(std::move(segment).take_file()) {}

Error fault_error(std::uint64_t segment, std::uint64_t position, BatchFault fault,
                  std::optional<Offset> offset) {
  std::string where =
      "log/" + StorePaths::segment_name(segment) + " at byte " + std::to_string(position);
  if (offset) where += " (offset " + std::to_string(offset->value) + ")";
  where += ": ";
  if (fault == BatchFault::kUnsupported)
    return Error(ErrorCode::kUnsupported, where + "written by a newer millrace")
        .hint("Install that version, or a newer one.");
  return Error(ErrorCode::kCorruption, where + std::string(describe(fault)))
      .hint("`millrace log verify` lists every fault; put the file back from a backup.");
}

Result<void> BatchFile::load(std::uint64_t position, Buffers& buffers, Batch& batch) const {
  const auto& loaded = buffers.loaded;
  if (!loaded || loaded->position != position || loaded->segment != segment_ ||
      loaded->generation != generation_)
    MILLRACE_RETURN_IF_ERROR(read(position, buffers));
  batch.segment = segment_;
  batch.position = position;
  batch.generation = generation_;
  batch.load(loaded->header, loaded->payload, Offset{0});
  return {};
}

Result<void> BatchFile::read(std::uint64_t position, Buffers& buffers) const {
  buffers.loaded.reset();
  ByteBuffer& buffer = buffers.file;
  const auto read_to = [&](std::size_t size) -> Result<bool> {
    const std::size_t have = buffer.size();
    char* into = buffer.reserve(size - have);
    MILLRACE_ASSIGN_OR_RETURN(const std::size_t count,
                              file_->read_at(position + have, {into, size - have}));
    buffer.set_end(into + count);
    return buffer.size() == size;
  };
  buffer.resize(0);
  MILLRACE_RETURN_IF_ERROR(read_to(kGuessBytes));
  if (buffer.size() < kBatchHeaderBytes)
    return fault_error(segment_, position, BatchFault::kIncomplete);
  BatchHeader header;
  const BatchFault fault = decode_batch_header(buffer.data(), seal_.at(position), header);
  if (fault != BatchFault::kNone) return fault_error(segment_, position, fault);
  if (buffer.size() < header.length) {
    MILLRACE_ASSIGN_OR_RETURN(const bool whole, read_to(header.length));
    if (!whole) return fault_error(segment_, position, BatchFault::kIncomplete);
  }
  const std::string_view body = buffer.view().substr(
      kBatchHeaderBytes, static_cast<std::size_t>(header.length) - kBatchHeaderBytes);
  if (checksum(body) != header.payload_checksum)
    return fault_error(segment_, position, BatchFault::kPayloadChecksum);
  std::string_view payload = body.substr(0, header.payload_bytes);
  if (header.codec == Codec::kZstd) {
    const auto raw = buffers.decompressor.decompress(payload, header.raw_bytes);
    if (!raw) return fault_error(segment_, position, BatchFault::kPayloadCodec);
    payload = *raw;
  }
  buffers.loaded = {.segment = segment_,
                    .position = position,
                    .generation = generation_,
                    .header = header,
                    .payload = payload};
  return {};
}

}  // namespace millrace::log
