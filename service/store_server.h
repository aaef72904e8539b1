#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/event_store.h"

namespace millrace {

/// Serves a store that this process holds to the other processes of the machine, until destroyed:
/// what SharedStore asks for. Access is by the mode of the store's folder and socket (0700, 0600).
class StoreServer {
 public:
  /// Begins to serve `store`, which lies in `directory` and outlives it. `on_yield` is called, from
  /// any thread, when somebody wants to hold the store itself; without it that is refused. After it
  /// long calls end with kCancelled: the store is expected to be given back. Errors: kIo.
  static Result<std::unique_ptr<StoreServer>> start(EventStore& store, const Path& directory,
                                                    std::function<void()> on_yield = {});
  /// Finishes the calls that came before, for a few seconds at most; long ones are ended.
  virtual ~StoreServer() = default;
  /// Since when nobody has asked for anything; nothing while a call is being served. Threads: any.
  virtual std::optional<std::chrono::steady_clock::time_point> idle_since() const = 0;
};

}  // namespace millrace
