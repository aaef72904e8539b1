#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "capture/pgoutput/message.h"

namespace millrace::pgoutput {

inline constexpr std::size_t kColumnsMax = 1600;  ///< PostgreSQL's MaxHeapAttributeNumber.
/// Of a schema, table, column or type. PostgreSQL's own limit is 63, unless it was compiled with
/// another.
inline constexpr std::size_t kNameBytesMax = 255;
/// Of a prepared transaction's name: PostgreSQL's GIDSIZE without the NUL.
inline constexpr std::size_t kGidBytesMax = 199;

/// Bytes in, messages out; no I/O. Keeps no state but whether a stream block is open, since
/// messages inside one carry an xid.
///
/// A message is valid until the next decode() and as long as its bytes are. Buffers are reused:
/// once the widest table was seen, decoding allocates nothing; no allocation is ever larger than
/// the bytes present ask for. Threads: one.
class Decoder {
 public:
  /// `parallel_streaming`: that it was asked for (protocol 4, streaming 'parallel'); a Stream Abort
  /// then has a position and a time.
  explicit Decoder(bool parallel_streaming = false) : parallel_streaming_(parallel_streaming) {}

  /// Errors: kCorruption (truncated, left-over bytes, a count or length that can't be, stream
  /// blocks out of order), kUnsupported (unknown message), both with the message's kind and the
  /// byte where it happened. The state is then as before the call.
  Result<Message> decode(std::string_view bytes);
  /// Forgets an open stream block; for a new connection.
  void reset() { in_stream_ = false; }
  /// As after a Stream Start: for messages of a stream block that were kept without it.
  void enter_stream() { in_stream_ = true; }

 private:
  // One object per kind, so that the vectors inside keep their room.
  Begin begin_;
  Commit commit_;
  Origin origin_;
  Relation relation_;
  Type type_;
  Insert insert_;
  Update update_;
  Delete delete_;
  Truncate truncate_;
  LogicalMessage logical_message_;
  StreamStart stream_start_;
  StreamStop stream_stop_;
  StreamCommit stream_commit_;
  StreamAbort stream_abort_;
  BeginPrepare begin_prepare_;
  Prepare prepare_;
  StreamPrepare stream_prepare_;
  CommitPrepared commit_prepared_;
  RollbackPrepared rollback_prepared_;
  bool parallel_streaming_;
  bool in_stream_ = false;
};

/// "Insert", for messages to people; "unknown" for a byte that names none.
std::string_view name_of_kind(char kind);

}  // namespace millrace::pgoutput
