#include "tests/support/capture_runner.h"

#include <stdexcept>

namespace millrace::test {

Result<void> catch_up(CaptureOptions options) {
  options.until_caught_up = true;
  return run_capture(options, std::stop_token());
}

BackgroundCapture::BackgroundCapture(CaptureOptions options)
    : options_(std::move(options)), thread_([this](const std::stop_token& stop) {
        outcome_ = run_capture(options_, stop);
        ended_ = true;
      }) {}

Result<void> BackgroundCapture::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
  return outcome_;
}

Result<void> BackgroundCapture::wait() {
  if (!eventually([this] { return ended_.load(); })) throw std::runtime_error("capture goes on");
  if (thread_.joinable()) thread_.join();
  return outcome_;
}

}  // namespace millrace::test
