#pragma once

#include "capture/capture.h"
#include "capture/capture_status.h"
#include "tests/support/capture_runner.h"
#include "tests/support/captured_log.h"
#include "tests/support/faulty_link.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {

/// The one server that listens on TCP too, for the cases of a program that share it.
inline PostgresServer& tcp_server() {
  static PostgresServer server({.settings = {}, .tcp = true});
  return server;
}

/// A database behind a bad network, and a store for it.
struct LinkedScene {
  TestDatabase database{tcp_server()};
  TemporaryDirectory directory;
  FaultyLink link{tcp_server().port()};

  Path store() const { return directory.path() / "store"; }
  std::string source(const std::string& more = "sslmode=disable") const {
    return "host=127.0.0.1 user=postgres dbname=" + database.name() +
           " port=" + std::to_string(link.port()) + " " + more;
  }
  CaptureOptions options() const {
    CaptureOptions options;
    options.source = source();
    options.store = store();
    options.slot = database.name();
    options.status_interval = std::chrono::milliseconds(100);
    options.report_interval = std::chrono::milliseconds(20);
    options.probe_interval = std::chrono::milliseconds(0);
    options.backoff_max = std::chrono::milliseconds(1);
    options.catch_up.from = 0;
    return options;
  }
  CaptureStatus status() const {
    const auto status = load_capture_status(store());
    return status && *status ? **status : CaptureStatus{};
  }
  bool comes_to(const std::string& state) const {
    return eventually([&] { return status().state() == state; });
  }
  std::uint64_t durable_changes() const { return count_changes(store()); }
};

}  // namespace millrace::test
