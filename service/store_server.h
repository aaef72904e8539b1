#pragma once

#include <functional>
#include <memory>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/event_store.h"

namespace millrace {

/// Serves a store that this process holds to the other processes of the machine, until destroyed:
/// what SharedStore asks for. Access is by the mode of the store's folder and socket (0700, 0600).
class StoreServer {
 public:
  /// Begins to serve `store`, which lies in `directory` and outlives it. `on_yield` is called, from
  /// any thread, when somebody wants to hold the store itself; without it that is refused. Errors:
  /// kIo.
  static Result<std::unique_ptr<StoreServer>> start(EventStore& store, const Path& directory,
                                                    std::function<void()> on_yield = {});
  /// Finishes the calls that came before, for a few seconds at most; a compaction is ended.
  virtual ~StoreServer() = default;
};

}  // namespace millrace
