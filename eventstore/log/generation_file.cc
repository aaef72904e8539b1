#include "eventstore/log/generation_file.h"

#include <cstring>

#include "base/check.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

constexpr std::size_t kWriteBytes = 1 << 20;

}  // namespace

SegmentHeader next_generation(const SegmentHeader& present, Offset end, SegmentHeader::End origin,
                              UnixMicros now) {
  SegmentHeader header = present;
  if (!header.rewritten) header.rewritten = {.generation = 0, .end = end, .origin = origin};
  ++header.rewritten->generation;
  header.rewritten->at = now;
  header.rewritten->own = {};
  header.rewritten->control = 0;
  return header;
}

Result<std::vector<Removal>> removals_of(SegmentReader& reader) {
  if (!reader.header().rewritten) return std::vector<Removal>{};
  MILLRACE_ASSIGN_OR_RETURN(const auto control, reader.read_control());
  if (control.fault != BatchFault::kNone)
    return Error(ErrorCode::kCorruption,
                 "log/" + StorePaths::segment_name(reader.header().segment) + " at byte " +
                     std::to_string(control.position) + ": " + std::string(describe(control.fault)))
        .hint("`millrace log verify` lists every fault; put the file back from a backup.");
  return decode_removals(control.payload);
}

GenerationFile::GenerationFile(std::unique_ptr<File> file, const StoreId& store,
                               const SegmentHeader& header, Compression compression)
    : file_(std::move(file)), header_(header), seal_(store, header.segment), packer_(compression) {
  chain_ = chain_after_page(page());
}

Result<void> GenerationFile::add(BatchHeader header, std::string_view payload, bool stored) {
  const std::uint64_t length = align_up(kBatchHeaderBytes + payload.size(), kBatchAlignment);
  MILLRACE_CHECK(length <= 0xffffffffu);
  char* to = out_.reserve(length);
  std::memset(to + length - kBatchAlignment, 0, kBatchAlignment);
  std::memcpy(to + kBatchHeaderBytes, payload.data(), payload.size());
  header.length = static_cast<std::uint32_t>(length);
  header.payload_bytes = static_cast<std::uint32_t>(payload.size());
  if (stored)
    header.payload_checksum = checksum({to + kBatchHeaderBytes, length - kBatchHeaderBytes});
  encode_batch_header(header, to);
  std::span<char> batch(to, length);
  if (!stored) batch = packer_.pack(batch);
  stamp_batch_header(to, chain_, kSegmentHeaderBytes, seal_.at(position()));
  chain_ = chain_after_batch(to);
  out_.set_end(to + batch.size());
  return out_.size() < kWriteBytes ? Result<void>{} : flush();
}

Result<void> GenerationFile::finish(const std::vector<Removal>& removals) {
  header_.rewritten->control = position();
  const std::string payload = encode_removals(removals);
  MILLRACE_RETURN_IF_ERROR(add({.base = header_.rewritten->end.value,
                                .flags = kControl,
                                .raw_bytes = static_cast<std::uint32_t>(payload.size())},
                               payload, false));
  MILLRACE_RETURN_IF_ERROR(flush());
  header_.rewritten->own = {.bytes_used = position(), .chain = chain_};
  MILLRACE_RETURN_IF_ERROR(file_->write_at(0, page()));
  return file_->sync();
}

std::string GenerationFile::page() const {
  std::string bytes(kSegmentHeaderBytes, '\0');
  encode_segment_header(header_, bytes.data());
  return bytes;
}

Result<void> GenerationFile::flush() {
  MILLRACE_RETURN_IF_ERROR(file_->write_at(written_, out_.view()));
  written_ += out_.size();
  out_.clear(4 * kWriteBytes);
  return {};
}

}  // namespace millrace::log
