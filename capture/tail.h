#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "schemas/json.h"

namespace millrace {

struct TailOptions {
  std::string source;
  std::vector<std::string> tables;  ///< As in CaptureOptions; empty: public.*.
};

/// Hands every change that is committed from now on to `on_event`, transaction by transaction,
/// until `stop` or until on_event gives an error (kCancelled ends without one). `on_ready` runs
/// once when changes are being watched.
///
/// Uses a temporary slot and a publication of its own, which are both gone afterwards; what a
/// killed one left, the next one removes. Tables without replica identity are left out (with a log
/// line), since publishing them would break the application's updates. Events carry no offset: they
/// are in no store.
///
/// Errors: as run_capture.
Result<void> tail_source(
    const TailOptions& options, const std::stop_token& stop,
    const std::function<Result<void>(const EventRecord&, SchemaRegistry&)>& on_event,
    const std::function<void()>& on_ready = {});

}  // namespace millrace
