#include "capture/daemon/telemetry.h"

#include <spdlog/spdlog.h>

#include <condition_variable>
#include <mutex>

#include "base/bytes.h"
#include "capture/daemon/source_guard.h"
#include "capture/metrics/metrics_text.h"

namespace millrace {
namespace {

constexpr std::size_t kReasonBytesMax = 2000;

/// "SLOT_MISSING" of an error that names a state; empty for any other.
std::string halt_state(const Error& error) {
  const std::string& message = error.message();
  const std::size_t end = message.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
  const bool named = is_halt(error) && end != 0 && end != message.npos && message[end] == ':';
  return named ? message.substr(0, end) : "";
}

/// As it is: whoever shows it to a person makes it printable.
std::string reason(const Error& error) { return error.message().substr(0, kReasonBytesMax); }

std::optional<HttpAnswer> answer(const CaptureStatus& status, std::string_view path) {
  if (path == "/metrics")
    return HttpAnswer{.content_type = "text/plain; version=0.0.4; charset=utf-8",
                      .body = metrics_text(status)};
  const std::string state = status.state() + "\n";
  if (path == "/healthz") return HttpAnswer{.status = status.healthy() ? 200 : 503, .body = state};
  if (path == "/readyz") return HttpAnswer{.status = status.ready() ? 200 : 503, .body = state};
  return std::nullopt;
}

}  // namespace

Telemetry::Telemetry(const CaptureOptions& options, const SourceAddress& address)
    : options_(options),
      monitor_({.source = address.describe(),
                .slot = options.slot,
                .publication = options.publication}) {}

Telemetry::~Telemetry() = default;

Result<void> Telemetry::listen() {
  if (options_.listen.empty()) return {};
  MILLRACE_ASSIGN_OR_RETURN(const ListenAddress where, ListenAddress::parse(options_.listen));
  MILLRACE_ASSIGN_OR_RETURN(http_, HttpServer::start(where, [this](std::string_view path) {
                              return answer(monitor_.status(), path);
                            }));
  monitor_.listens_at(http_->address());
  spdlog::info("metrics at http://{}/metrics", http_->address());
  return {};
}

void Telemetry::store_is_open() {
  reporter_ = std::jthread([this](const std::stop_token& stop) { report(stop); });
}

void Telemetry::watch(const SourceAddress& address, const std::string& slot) {
  watch_ = std::make_unique<SourceWatch>(
      address,
      SourceWatch::Options{.slot = slot,
                           .interval = options_.watch_interval,
                           .probe_interval = options_.probe_interval,
                           .held_back_bytes = options_.held_back_wal_bytes,
                           .long_transaction = options_.long_transaction},
      monitor_);
}

void Telemetry::lost(const Error& error) {
  monitor_.enter(was_refused(error) ? CapturePhase::kAuthFailed : CapturePhase::kReconnecting,
                 reason(error));
}

void Telemetry::ended(const Result<void>& outcome) {
  watch_.reset();
  if (outcome || outcome.error().code() == ErrorCode::kCancelled)
    monitor_.enter(CapturePhase::kStopped);
  else if (const std::string state = halt_state(outcome.error()); !state.empty())
    monitor_.enter(CapturePhase::kHalted, reason(outcome.error()), state);
  else
    monitor_.enter(CapturePhase::kFailed, reason(outcome.error()));
  if (!reporter_.joinable()) return;
  reporter_.request_stop();
  reporter_.join();
  write_status();
}

void Telemetry::report(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any condition;
  std::unique_lock lock(mutex);
  do write_status();
  while (!condition.wait_for(lock, stop, options_.report_interval,
                             [&] { return stop.stop_requested(); }));
}

/// A full disk is the store's to tell; here it is only said once.
void Telemetry::write_status() {
  auto written = save_capture_status(options_.store, monitor_.status(), *options_.files);
  if (!written && !write_failed_)
    spdlog::warn("millrace status will be out of date: {}", printable(written.error().message()));
  write_failed_ = !written;
}

}  // namespace millrace
