#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/file.h"
#include "base/result.h"
#include "schemas/lsn.h"

namespace millrace {

/// What a capture is doing.
enum class CapturePhase : std::uint8_t {
  kStarting,
  kSnapshot,      ///< Copies the rows that are there before the first change.
  kCatchingUp,    ///< Streams what was committed before it connected.
  kStreaming,     ///< Has caught up since it connected.
  kReconnecting,  ///< The connection is gone, or could not be made.
  kAuthFailed,    ///< The server does not let this role in.
  kStopped,       ///< It was asked to end.
  kFailed,        ///< It ended with an error.
  kHalted,        ///< It ended in a named state: going on could lose or repeat something.
};
/// "catching_up"
std::string_view name_of(CapturePhase phase);

/// How long it takes from the commit of a probe to its being durable here; of this process.
struct ProbeLatency {
  /// Upper bounds in seconds; above the last one is one bucket more.
  static constexpr std::array<double, 15> kBounds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                                  0.5,   1,     2,     5,    10,   30,   60};
  std::array<std::uint64_t, kBounds.size() + 1> buckets{};  ///< Not cumulative.
  std::uint64_t count = 0;
  double seconds_sum = 0;
  /// Of the last few hundred probes; nothing before the first.
  std::optional<double> last, p50, p99;
};

/// What a capture tells of itself: at --listen, and once a second in the file `capture.json` of its
/// store, so that `millrace status` shows it from any process, and how it ended. Nothing depends
/// on that file. Numbers are since the start of the process.
struct CaptureStatus {
  CapturePhase phase = CapturePhase::kStarting;
  std::string halt;  ///< kHalted: "SLOT_MISSING".
  /// Why it reconnects, or what it ended with, in the words of the error; empty else.
  std::string reason;
  UnixMicros phase_since, started, written;
  int pid = 0;
  std::string source;  ///< Without a secret.
  std::string slot, publication;
  std::string listen;  ///< "127.0.0.1:9187"; empty: no port.

  Lsn server_end;               ///< Of the server's WAL, when it was last looked at.
  Lsn appended;                 ///< To the store ...
  Lsn durable;                  ///< ... and safe there ...
  Lsn confirmed;                ///< ... and told to the server.
  std::uint64_t store_end = 0;  ///< Durable offset.
  std::uint64_t lag_bytes = 0;  ///< From `durable` to `server_end`.
  /// 0 while everything that the server had when it was last looked at is durable here. Else how
  /// long ago that was not yet so; while catching up, the age of the last durable commit.
  double lag_seconds = 0;
  /// For how long nothing has become durable although something was appended.
  double stalled_seconds = 0;

  std::uint64_t transactions = 0, changes = 0;
  double transactions_per_second = 0, changes_per_second = 0;  ///< Over the last ten seconds.
  std::uint64_t reconnects = 0;
  std::uint64_t repeated = 0;  ///< Transactions that came again and were dropped.
  std::vector<std::pair<std::string, std::uint64_t>> tables;  ///< Changes of each, sorted by name.
  ProbeLatency latency;

  std::string wal_status;                       ///< Of the slot; empty before it was looked at.
  std::optional<std::uint64_t> retained_bytes;  ///< WAL that the server keeps for the slot.
  std::optional<std::int64_t> safe_wal_bytes;   ///< Until the slot is in danger; none: unlimited.

  /// "streaming", "halted:SLOT_MISSING"
  std::string state() const;
  /// Connected and streaming, and not more than a minute behind.
  bool ready() const;
  /// The process works and the store takes what it is given.
  bool healthy() const;
};

/// Nothing if there is none, or none that can be read. Errors: kIo.
Result<std::optional<CaptureStatus>> load_capture_status(const Path& store,
                                                         FileSystem& files = FileSystem::real());
/// The file holds either the old status or the new one; it is not synced. Errors: kNoSpace, kIo.
Result<void> save_capture_status(const Path& store, const CaptureStatus& status, FileSystem& files);
/// The same as one JSON object, as it is in the file.
std::string to_json(const CaptureStatus& status);

}  // namespace millrace
