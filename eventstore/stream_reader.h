#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>

#include "base/file.h"
#include "base/result.h"
#include "eventstore/log_reader.h"
#include "eventstore/types.h"

namespace millrace {

enum class ReadDirection : std::uint8_t { kForward, kBackward };

/// Which events of a stream to read.
struct StreamRange {
  /// The version to begin with; backwards, the highest one wanted. Events without a version (those
  /// that were captured) come only where this is left out.
  std::optional<std::uint64_t> from = {};
  ReadDirection direction = ReadDirection::kForward;
  std::uint64_t limit = ~std::uint64_t{0};  ///< At most so many.
};

/// Reads single streams of a store, in this or another process than the writer's, without
/// disturbing it: what is durable, nothing else.
///
/// A sealed segment is asked through its index, the one that is being written through an index in
/// memory that the first call makes and later ones keep up to date (about 50 bytes an event of that
/// segment). Threads: one at a time. Errors: as LogReader.
class StreamReader {
 public:
  /// Takes an event and what holds for its transaction; false ends the reading. Views last until it
  /// returns.
  using Visit = std::function<bool(const EventView& event, const TransactionInfo& transaction)>;

  static Result<std::unique_ptr<StreamReader>> open(const Path& store,
                                                    FileSystem& files = FileSystem::real());
  virtual ~StreamReader() = default;

  /// Reads `stream` as it is now. A stream that is not there has no events.
  virtual Result<void> read(const StreamName& stream, const StreamRange& range,
                            const Visit& visit) = 0;
  /// The version of the stream's last event; nothing if none of its events has one.
  virtual Result<std::optional<std::uint64_t>> last_version(const StreamName& stream) = 0;
  /// Waits until something became durable that the last read did not see; false when `timeout`
  /// passed or `stop` was asked.
  virtual Result<bool> wait(std::chrono::milliseconds timeout,
                            const std::stop_token& stop = {}) = 0;
  virtual const StoreId& store_id() const = 0;
};

}  // namespace millrace
