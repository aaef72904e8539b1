#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/clock.h"
#include "base/result.h"
#include "schemas/lsn.h"

/// What travels inside CopyData while a slot is streamed
/// (https://www.postgresql.org/docs/15/protocol-replication.html, START_REPLICATION).
namespace millrace::pgoutput {

struct WalData {
  Lsn start;  ///< Of the change that `payload` tells.
  std::string_view payload;
};
struct Keepalive {
  /// The server has sent everything that was committed before it.
  Lsn end;
  bool reply_requested = false;
};

/// Errors: kCorruption (neither of the two, or cut off).
Result<std::variant<WalData, Keepalive>> decode_frame(std::string_view bytes);

struct StatusUpdate {
  Lsn written;
  Lsn flushed;  ///< The server forgets what is below it.
  bool reply_requested = false;
};
std::string encode_status(const StatusUpdate& status, UnixMicros now);

/// PostgreSQL counts microseconds from 2000-01-01 00:00 UTC.
inline constexpr std::int64_t kEpochUnixMicros = 946'684'800'000'000;

}  // namespace millrace::pgoutput
