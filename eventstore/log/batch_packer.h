#pragma once

#include <optional>
#include <span>

#include "eventstore/event_store.h"
#include "eventstore/log/codec.h"

namespace millrace::log {

/// Makes batches as BatchBuilder leaves them ready to be stamped: compresses payloads where that
/// pays, and sets their checksums. Work that the appender need not wait for: the flusher does it.
/// Pure; keeps its memory. Threads: one at a time.
class BatchPacker {
 public:
  explicit BatchPacker(Compression compression) : compression_(compression) {}

  /// Packs whole batches in place, moving them together; gives what is left of them, at the front.
  std::span<char> pack(std::span<char> batches);

 private:
  const Compression compression_;
  Compressor compressor_;
};

}  // namespace millrace::log
