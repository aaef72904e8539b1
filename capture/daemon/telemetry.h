#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/result.h"
#include "capture/capture.h"
#include "capture/daemon/monitor.h"
#include "capture/daemon/source_watch.h"
#include "capture/metrics/http_server.h"
#include "capture/postgres/source_address.h"

namespace millrace {

/// How a capture is seen from outside: its numbers, the port that serves them, the file in the
/// store that `millrace status` reads, and the watch over the server. Nothing that goes wrong here
/// once it has started ends the capture. Threads: the capture's; those that it starts end with it.
class Telemetry {
 public:
  Telemetry(const CaptureOptions& options, const SourceAddress& address);
  ~Telemetry();

  /// Takes the port, if one is asked for. Errors: kInvalidArgument, kUnavailable.
  Result<void> listen();
  /// From now on the status goes into the store, once a second.
  void store_is_open();
  /// From now on the server is watched.
  void watch(const SourceAddress& address, const std::string& slot);
  /// Tells, also in the store, what the capture ended with.
  void ended(const Result<void>& outcome);
  /// The connection was lost, or could not be made, for this reason.
  void lost(const Error& error);

  Monitor& monitor() { return monitor_; }

 private:
  void report(const std::stop_token& stop);
  void write_status();

  const CaptureOptions& options_;
  Monitor monitor_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<SourceWatch> watch_;
  bool write_failed_ = false;
  std::jthread reporter_;
};

}  // namespace millrace
