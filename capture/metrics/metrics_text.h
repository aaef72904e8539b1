#pragma once

#include <string>

#include "capture/capture_status.h"

namespace millrace {

/// A status in Prometheus' text format (version 0.0.4).
std::string metrics_text(const CaptureStatus& status);

}  // namespace millrace
