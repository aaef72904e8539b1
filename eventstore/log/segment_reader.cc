#include "eventstore/log/segment_reader.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"
#include "base/checksum.h"

namespace millrace::log {
namespace {

constexpr std::size_t kSearchBytes = 64 << 10;
/// Well above the largest that a writer makes (EventStore: 32 GiB, or one batch of 4 GiB). Whoever
/// looks for the end of the log reads the zeros behind it, which of a file that somebody made a
/// terabyte long would take minutes.
constexpr std::uint64_t kFileBytesMax = std::uint64_t{64} << 30;

}  // namespace

bool is_in_place(FileSystem& files, const StorePaths& paths, std::uint64_t segment, File& file) {
  const auto named = files.open(paths.segment(segment), OpenMode::kRead);
  if (!named) return false;
  const auto there = (*named)->identity(), here = file.identity();
  return there && here && *there == *here;
}

Result<SegmentReader> SegmentReader::open(FileSystem& files, const StorePaths& paths,
                                          const StoreId& store, std::uint64_t segment,
                                          Buffers buffers) {
  const Path path = paths.segment(segment);
  MILLRACE_ASSIGN_OR_RETURN(auto file, files.open(path, OpenMode::kRead));
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t file_bytes, file->size());
  if (file_bytes > kFileBytesMax)
    return Error(ErrorCode::kCorruption, path.string() + " has " + std::to_string(file_bytes) +
                                             " bytes, more than a segment can have (" +
                                             std::to_string(kFileBytesMax) + ")")
        .hint("Nothing was changed; put the file back from a backup.");
  SegmentReader reader(std::move(file), store, segment, std::move(buffers));
  // Not a byte more: what lies behind may still be unwritten, and would stay so in the buffer.
  MILLRACE_ASSIGN_OR_RETURN(const auto page,
                            reader.fetch(0, kSegmentHeaderBytes, kSegmentHeaderBytes));
  auto header = decode_segment_header(page);
  if (!header) return std::move(header).error().context(path.string());
  if (header->store != store)
    return Error(ErrorCode::kCorruption,
                 path.string() + ": segment of another store, " + to_string(header->store))
        .hint("Somebody put a file of another store here; move it away.");
  if (header->segment != segment)
    return Error(ErrorCode::kCorruption, path.string() + ": segment that starts at offset " +
                                             std::to_string(header->segment) +
                                             " under another one's name");
  reader.header_ = *header;
  reader.state_ = LogState(*header, page);
  return reader;
}

Result<std::string_view> SegmentReader::fetch(std::uint64_t position, std::uint64_t size,
                                              std::uint64_t limit) {
  if (position >= limit) return std::string_view();
  size = std::min(size, limit - position);
  const std::uint64_t have_end = buffer_at_ + buffer_.size();
  if (position < buffer_at_ || position > have_end) {
    buffer_at_ = position;
    buffer_.resize(0);
  } else if (position + size > have_end) {
    const std::size_t kept = static_cast<std::size_t>(have_end - position);
    if (kept != 0) std::memmove(buffer_.data(), buffer_.data() + (position - buffer_at_), kept);
    buffer_at_ = position;
    buffer_.resize(kept);
  }
  const std::size_t start = static_cast<std::size_t>(position - buffer_at_);
  if (start + size > buffer_.size()) {
    std::uint64_t end = std::min(limit, position + std::max<std::uint64_t>(size, read_ahead_));
    if (size > read_ahead_) {
      // Never room for more than the file has: `size` may come from a damaged header.
      MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t file_bytes, file_->size());
      end = std::min(end, file_bytes);
    }
    const std::size_t kept = buffer_.size();
    const std::uint64_t next = buffer_at_ + kept;
    if (end > next) {
      const std::size_t more = static_cast<std::size_t>(end - next);
      char* into = buffer_.reserve(more);
      MILLRACE_ASSIGN_OR_RETURN(const std::size_t count, file_->read_at(next, {into, more}));
      buffer_.set_end(into + count);
    }
  }
  return buffer_.view().substr(start).substr(0, size);
}

Result<SegmentReader::Found> SegmentReader::peek(std::uint64_t limit) {
  Found found{.position = state_.position()};
  MILLRACE_ASSIGN_OR_RETURN(const auto bytes, fetch(found.position, kBatchHeaderBytes, limit));
  if (bytes.size() < kBatchHeaderBytes) {
    const bool zeros = std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
    found.fault = zeros ? BatchFault::kAbsent : BatchFault::kIncomplete;
    return found;
  }
  found.fault = decode_batch_header(bytes.data(), seal_.at(found.position), found.header);
  if (found.fault == BatchFault::kNone) found.fault = state_.check(found.header);
  chain_after_ = chain_after_batch(bytes.data());
  return found;
}

Result<void> SegmentReader::load(Found& found, std::uint64_t limit) {
  MILLRACE_ASSIGN_OR_RETURN(const auto batch, fetch(found.position, found.header.length, limit));
  if (batch.size() < found.header.length) {
    found.fault = BatchFault::kIncomplete;
    return {};
  }
  const std::string_view body = batch.substr(kBatchHeaderBytes);
  found.payload = body.substr(0, found.header.payload_bytes);
  if (checksum(body) != found.header.payload_checksum) {
    found.fault = BatchFault::kPayloadChecksum;
  } else if (found.header.codec == Codec::kZstd) {
    const auto raw = decompressor_.decompress(found.payload, found.header.raw_bytes);
    found.payload = raw.value_or(std::string_view());
    if (!raw) found.fault = BatchFault::kPayloadCodec;
  }
  return {};
}

Result<SegmentReader::Found> SegmentReader::read_control() {
  MILLRACE_CHECK(header_.rewritten.has_value());
  Found found{.position = header_.rewritten->control};
  MILLRACE_ASSIGN_OR_RETURN(const auto bytes, fetch(found.position, kBatchHeaderBytes));
  if (bytes.size() < kBatchHeaderBytes) {
    found.fault = BatchFault::kIncomplete;
    return found;
  }
  found.fault = decode_batch_header(bytes.data(), seal_.at(found.position), found.header);
  if (found.fault == BatchFault::kNone && !found.header.has(kControl))
    found.fault = BatchFault::kFields;
  if (found.fault == BatchFault::kNone) MILLRACE_RETURN_IF_ERROR(load(found));
  return found;
}

void SegmentReader::advance(const Found& found) {
  MILLRACE_CHECK(found.position == state_.position());
  state_.advance(found.header, chain_after_);
}

Result<SegmentReader::Found> SegmentReader::peek_at(std::uint64_t position) {
  Found found{.position = position};
  MILLRACE_ASSIGN_OR_RETURN(const auto bytes, fetch(position, kBatchHeaderBytes));
  found.fault = bytes.size() < kBatchHeaderBytes
                    ? BatchFault::kIncomplete
                    : decode_batch_header(bytes.data(), seal_.at(position), found.header);
  if (found.fault == BatchFault::kNone && found.header.base < state_.next().value)
    found.fault = BatchFault::kOffset;
  return found;
}

void SegmentReader::skip_to_end(std::uint64_t position, std::uint64_t chain, Offset next) {
  state_.skip_to(position, chain, next);
}

void SegmentReader::resume_at(const Found& found) { state_.resume(found.header, found.position); }

Result<bool> SegmentReader::at_end() {
  if (header_.rewritten)
    return SegmentHeader::End{state_.position(), state_.chain()} == header_.rewritten->own;
  MILLRACE_ASSIGN_OR_RETURN(const std::uint64_t size, file_->size());
  return size == state_.position();
}

SegmentHeader::Predecessor SegmentReader::link() const {
  const SegmentHeader::End end = header_.rewritten
                                     ? header_.rewritten->origin
                                     : SegmentHeader::End{state_.position(), state_.chain()};
  return {.segment = header_.segment, .bytes_used = end.bytes_used, .chain = end.chain};
}

bool SegmentReader::may_begin_next(std::string_view bytes) const {
  char known[kBatchHeaderBytes] = {};
  store_le<std::uint32_t>(known, kBatchMagic);
  store_le<std::uint64_t>(known + kBatchBaseAt, state_.next().value);
  store_le<std::uint64_t>(known + kBatchChainAt, state_.chain());
  const auto agrees = [&](std::size_t from, std::size_t size) {
    const std::string_view part = bytes.substr(std::min(from, bytes.size()), size);
    return part == std::string_view(known + from, part.size());
  };
  return agrees(0, 4) && agrees(kBatchBaseAt, 8) && agrees(kBatchChainAt, 8);
}

Result<SegmentReader::Found> SegmentReader::find_header(std::uint64_t position) {
  Found found{.fault = BatchFault::kAbsent, .position = position};
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(const auto bytes, fetch(position, kSearchBytes));
    if (bytes.size() < kBatchHeaderBytes) return found;
    std::size_t at = 0;
    for (; at + kBatchHeaderBytes <= bytes.size(); at += kBatchAlignment) {
      if (load_le<std::uint32_t>(bytes.data() + at) != kBatchMagic) continue;
      BatchHeader header;
      if (decode_batch_header(bytes.data() + at, seal_.at(position + at), header) !=
          BatchFault::kNone)
        continue;
      return Found{.header = header, .position = position + at};
    }
    position += at;
  }
}

}  // namespace millrace::log
