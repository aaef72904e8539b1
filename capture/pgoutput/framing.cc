#include "capture/pgoutput/framing.h"

#include "base/bytes.h"

namespace millrace::pgoutput {

// frame     := 'w' u64(start) u64(server's end) i64(time) payload   XLogData
//            | 'k' u64(end) i64(time) u8(reply requested)           keepalive
Result<std::variant<WalData, Keepalive>> decode_frame(std::string_view bytes) {
  using Frame = std::variant<WalData, Keepalive>;
  ByteReader in(bytes);
  switch (in.u8()) {
    case 'w': {
      WalData data{.start = Lsn{in.u64_be()}, .payload = {}};
      in.u64_be();  // in logical replication the same as start
      in.u64_be();
      data.payload = in.bytes(in.remaining());
      return in.finish("XLogData", Frame(data));
    }
    case 'k': {
      Keepalive keepalive{.end = Lsn{in.u64_be()}};
      in.u64_be();
      const std::uint8_t requested = in.u8();
      if (requested > 1) in.fail();
      keepalive.reply_requested = requested == 1;
      return in.finish("keepalive", Frame(keepalive));
    }
    default:
      return Error(ErrorCode::kCorruption,
                   "the server sent neither data nor a keepalive: " + printable(bytes, 16));
  }
}

// status := 'r' u64(written) u64(flushed) u64(applied) i64(time) u8(reply requested)
std::string encode_status(const StatusUpdate& status, UnixMicros now) {
  std::string out = "r";
  append_be<std::uint64_t>(out, status.written.value);
  append_be<std::uint64_t>(out, status.flushed.value);
  append_be<std::uint64_t>(out, status.flushed.value);
  append_be<std::uint64_t>(out, static_cast<std::uint64_t>(now.value - kEpochUnixMicros));
  out += static_cast<char>(status.reply_requested ? 1 : 0);
  return out;
}

}  // namespace millrace::pgoutput
