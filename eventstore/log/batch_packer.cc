#include "eventstore/log/batch_packer.h"

#include <cstring>

#include "base/check.h"
#include "base/checksum.h"
#include "eventstore/log/format.h"

namespace millrace::log {

std::span<char> BatchPacker::pack(std::span<char> batches) {
  char* to = batches.data();
  char* const end = to + batches.size();
  for (char* from = to; from != end;) {
    const std::uint32_t length = batch_length(from);
    MILLRACE_CHECK(length >= kBatchHeaderBytes && length <= static_cast<std::size_t>(end - from));
    const std::string_view raw = raw_batch_payload(from);
    std::optional<std::string_view> compressed;
    if (compression_ == Compression::kZstd) compressed = compressor_.compress(raw);
    std::uint32_t packed_length = length;
    if (compressed) {
      if (to != from) std::memcpy(to, from, kBatchHeaderBytes);
      std::memcpy(to + kBatchHeaderBytes, compressed->data(), compressed->size());
      packed_length = set_batch_payload(to, Codec::kZstd, compressed->size());
    } else if (to != from) {
      std::memmove(to, from, length);
    }
    set_payload_checksum(to, checksum({to + kBatchHeaderBytes, packed_length - kBatchHeaderBytes}));
    from += length;
    to += packed_length;
  }
  return batches.first(static_cast<std::size_t>(to - batches.data()));
}

}  // namespace millrace::log
