#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "eventstore/event_store.h"
#include "eventstore/log_reader.h"
#include "tests/support/catch.h"
#include "tests/support/fault_fs.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {

/// The value, or a failed test that prints the error.
template <typename T>
T must(Result<T> result) {
  if (!result) FAIL(result.error().to_string());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

struct StoredEvent {
  std::string category, key, type, payload, metadata;
  EventFlags flags = EventFlags::kNone;
  bool operator==(const StoredEvent&) const = default;
  NewEvent view() const {
    return {.category = category,
            .key = key,
            .type = type,
            .payload = payload,
            .metadata = metadata,
            .flags = flags};
  }
};

/// A whole transaction as a reader sees it.
struct StoredTransaction {
  std::uint64_t commit = 0;
  std::vector<StoredEvent> events;
  bool operator==(const StoredTransaction&) const = default;
};
using History = std::vector<StoredTransaction>;

/// The transaction number `number` (from 1) of a test: always the same, with `events` events.
StoredTransaction sample_transaction(std::uint64_t number, std::size_t events,
                                     std::size_t payload_bytes = 60);

/// Small segments, small buffers, no compression and no flush that nobody asked for: what happens,
/// and where it lies, is the same each time.
StoreOptions small_options(FileSystem& files);

Result<void> append(EventStore& store, const StoredTransaction& transaction);
/// Appends and waits until it is durable.
Result<void> append_durably(EventStore& store, const StoredTransaction& transaction);

/// Everything a reader gets, transaction by transaction; checks that they are whole and in order.
/// Stops at an error, which is left in `error` if given, else fails the test.
History read_history(const Path& store, FileSystem& files, std::optional<Error>* error = nullptr);

bool is_prefix(const History& prefix, const History& whole);

}  // namespace millrace::test
