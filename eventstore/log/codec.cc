#include "eventstore/log/codec.h"

#include <zstd.h>

#include "base/check.h"
#include "eventstore/log/format.h"

namespace millrace::log {
namespace {

/// Of W1 in docs/figures.md (76.8 MB of payloads in batches of 77 kB) it leaves 18 % at 470 MB/s of
/// a core. Level 3 leaves as much at 370 MB/s, level 5 at 140; level -1 leaves 21 % at 590.
constexpr int kLevel = 1;
/// Smaller ones cost readers more than they save: of 1 kB, with ten events, each costs 3 us to
/// decompress, and a scan takes six times as long.
constexpr std::size_t kRawBytesMin = 1536;
/// Compressed is kept what is smaller by one part in so many.
constexpr std::size_t kSavedPart = 8;
/// A frame can't say more in a block of so many bytes (its header and one byte to repeat) ...
constexpr std::size_t kBlockBytesMin = 4;
/// ... than this (RFC 8878, 3.1.1.2.4).
constexpr std::size_t kBlockRawBytesMax = 128 << 10;
/// Buffers above this go back to the system after a large payload.
constexpr std::size_t kBufferBytesKept = 4 << 20;

}  // namespace

void Compressor::Free::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }
void Decompressor::Free::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

std::optional<std::string_view> Compressor::compress(std::string_view raw) {
  if (raw.size() < kRawBytesMin || raw.size() > kCompressedRawBytesMax) return std::nullopt;
  if (!context_) context_.reset(ZSTD_createCCtx());
  MILLRACE_CHECK(context_ != nullptr);
  out_.clear(kBufferBytesKept);
  // Room for what is worth keeping and no more: zstd gives up where it does not suffice.
  const std::size_t wanted = raw.size() - raw.size() / kSavedPart;
  char* const to = out_.reserve(wanted);
  const std::size_t size =
      ZSTD_compressCCtx(context_.get(), to, wanted, raw.data(), raw.size(), kLevel);
  if (ZSTD_isError(size) != 0) return std::nullopt;
  return std::string_view(to, size);
}

std::optional<std::string_view> Decompressor::decompress(std::string_view frame,
                                                         std::size_t raw_bytes) {
  const std::size_t blocks = frame.size() / kBlockBytesMin + 1;
  if (raw_bytes > kCompressedRawBytesMax || raw_bytes / kBlockRawBytesMax > blocks)
    return std::nullopt;
  // Also neither of the two values that stand for "not known" and "no frame".
  if (ZSTD_getFrameContentSize(frame.data(), frame.size()) != raw_bytes) return std::nullopt;
  // What follows a frame must not be a second one.
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return std::nullopt;
  if (!context_) context_.reset(ZSTD_createDCtx());
  MILLRACE_CHECK(context_ != nullptr);
  out_.clear(kBufferBytesKept);
  char* const to = out_.reserve(raw_bytes);
  const std::size_t size =
      ZSTD_decompressDCtx(context_.get(), to, raw_bytes, frame.data(), frame.size());
  if (ZSTD_isError(size) != 0 || size != raw_bytes) return std::nullopt;
  return std::string_view(to, size);
}

}  // namespace millrace::log
