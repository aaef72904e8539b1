#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "eventstore/log/byte_buffer.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

// zstd, as far as a payload needs it: one frame without a dictionary, its content size in it.
namespace millrace::log {

/// Compresses payloads. Keeps its memory from one to the next. Threads: one at a time.
class Compressor {
 public:
  /// `raw` as one frame, or nothing where that is not worth it: too small, too large, or it saves
  /// less than an eighth. The view lasts until the next call.
  std::optional<std::string_view> compress(std::string_view raw);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
  ByteBuffer out_;
};

/// Decompresses payloads. Keeps its memory from one to the next. Threads: one at a time.
class Decompressor {
 public:
  /// The payload in `frame`; nothing unless it is one whole frame of exactly `raw_bytes` that needs
  /// no dictionary. What the frame says of its size is checked before room is made. The view lasts
  /// until the next call.
  std::optional<std::string_view> decompress(std::string_view frame, std::size_t raw_bytes);

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
  ByteBuffer out_;
};

}  // namespace millrace::log
