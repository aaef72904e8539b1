#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "eventstore/log/byte_buffer.h"
#include "eventstore/log/name_table.h"
#include "eventstore/types.h"

namespace millrace::log {

/// The properties of a batch without any, as its tail starts.
inline constexpr std::string_view kNoProperties("\0", 1);
/// The properties in the tail of a batch, with their count; empty if they can't be read.
std::string_view properties_of(std::string_view tail);
/// The same properties, of an idempotency key only what stays when it is erased.
std::string without_idempotency_key(std::string_view properties);

/// Encodes the records and the tail of a batch from events that were read, holes between them
/// included. Keeps its memory between batches.
class RecordWriter {
 public:
  /// Starts a payload at the end of `out`, of a batch whose header says `base`.
  void begin(ByteBuffer& out, Offset base);
  /// Adds an event; offsets increase.
  void add(const EventView& event);
  /// Ends it with `properties` (as from properties_of); gives where in the payload the tail starts.
  std::uint32_t finish(std::string_view properties);

 private:
  void write_names(const NameTable& names);

  ByteBuffer* out_ = nullptr;
  std::size_t start_ = 0;
  Offset next_;
  NameTable categories_, types_;
};

}  // namespace millrace::log
